"""The part of run.json about business actions."""

from __future__ import annotations

from typing import Literal

import msgspec

COUNTED = (
    "failed: a 5xx, no complete response, or not sent because of the target; 4xx are not "
    "counted, nor are requests that the generator failed to send"
)


class ActionMinute(msgspec.Struct, frozen=True, kw_only=True):
    """Requests of an action that ended in the interval that begins at `at_ns`.

    `at_ns` is in ns since the epoch, on the `clock` of BusinessFigures.
    """

    at_ns: int
    requests: int
    failed: int
    lost: float | None = None


class ActionFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One business action: its requests, how many of them failed, and the cost.

    `not_of_target` counts failures that are not part of `failed`: requests that the generator failed to send, or that
    were unsent for a reason other than the target. If the scenario has no value for the action, `value` is empty and
    `lost` is null. `intervals` lists the intervals in which requests of the action ended.
    """

    action: str
    requests: int
    failed: int
    not_of_target: int = 0
    value: str = ""
    currency: str = ""
    lost: float | None = None
    lost_per_hour: float | None = None
    words: str = ""
    intervals: list[ActionMinute] = []


class BusinessFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The business actions of a run.

    `counted` defines which requests count as failed. `hours` is the time in which requests were due after the warm-up,
    by `clock`: the recorded clock or, if there is none, the clock of the run. An interval is `interval_s` long on that
    clock. `lost` adds up the losses by currency. `without_requests` lists actions that had no requests.
    `values_unused` lists values of actions that the run did not have.
    """

    counted: str = COUNTED
    clock: Literal["recorded", "run"] = "recorded"
    hours: float = 0.0
    interval_s: int = 60
    actions: list[ActionFigures] = []
    lost: dict[str, float] = {}
    lost_per_hour: dict[str, float] = {}
    without_requests: list[str] = []
    values_unused: list[str] = []
