"""The part of run.json about business actions."""

from __future__ import annotations

from typing import Literal

import msgspec

COUNTED = (
    "failed: a 5xx, no complete response, or not sent because of the target; 4xx are not "
    "counted, nor are requests that the generator failed to send"
)


class ActionMinute(msgspec.Struct, frozen=True, kw_only=True):
    """Requests of an action that ended in one interval, from `at_ns` on."""

    at_ns: int
    requests: int
    failed: int
    lost: float | None = None


class ActionFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One action: its requests, how many of them failed, and the cost. `not_of_target` are failures that are not
    counted in it: requests that the generator failed to send, or that were unsent for a reason other than the target.
    `value` is empty and `lost` null if the scenario has no value for it. `intervals` are those in which its requests
    ended.
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
    """Business actions. `counted` defines which requests count as failed. `lost` is the sum of the losses by currency.
    `hours` is the time in which requests were due, by `clock`: the recorded clock or, if there is none, the clock of
    the run. An interval is `interval_s` long on that clock. `without_requests` lists actions without requests,
    `values_unused` values of actions that the run did not have.
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
