"""A diagnosis: its result and the evidence.

`rehearsal.json` and the output of `replay report --json` contain it in this form.
"""

from __future__ import annotations

from typing import Literal

import msgspec

How = Literal["limit", "refused", "changed"]
"""What happened to a figure: it reached its limit, its resource refused work, or it changed from its beginning."""


class Resource(msgspec.Struct, frozen=True, kw_only=True):
    """A watched figure that gave way or changed.

    `used_before` and `used_after` are mean shares of its limit: in the seconds before the first figure gave way, and
    from `at_s` on. They are null if they are not known, or if the figure only changed. `at_start`: this was the state
    from its first samples on.
    """

    name: str
    at_s: float
    how: How
    evidence: str
    used_before: float | None = None
    used_after: float | None = None
    at_start: bool = False


class ObjectiveCourse(msgspec.Struct, frozen=True, kw_only=True):
    """One objective over time, by the seconds of the run.

    `judged_by` is the figure of a second that was compared. `breached_s` is the first second that missed the
    objective, and `bad_s` is how long it was missed. `recovered_s` is when it was met again until the end (null: it
    never was, or it was never missed). `hysteresis` is the share by which the load was lower at the recovery than at
    the breach (0: at most 5% lower; null: it did not recover, or the load is not known). `area` is the excess over the
    objective: seconds times seconds for a latency, requests for a share. `note` is the reason why the objective could
    not be judged by seconds.
    """

    objective: str
    judged_by: str = ""
    breached_s: float | None = None
    recovered_s: float | None = None
    bad_s: float = 0.0
    hysteresis: float | None = None
    area: float = 0.0
    area_unit: Literal["s s", "requests"] = "s s"
    note: str = ""


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """The diagnosis of a run.

    `words` is its result in one sentence; `evidence` lists the sentences that support it. `first_resource` is the
    watched figure that gave way first; null if the figures do not show one. `harmed_s` is the second from which users
    felt harm; null without harm. `shared_cause` lists routes whose latencies or failures show a shared cause; empty if
    there are none. `resources` are all watched figures that gave way, in the order of time, then those that only
    changed. `amplification` is the number of requests at the target per request of a user; null without retries.
    """

    words: str
    first_resource: str | None = None
    evidence: list[str] = []
    shared_cause: list[str] = []
    shared_evidence: list[str] = []
    harmed_s: float | None = None
    resources: list[Resource] = []
    course: list[ObjectiveCourse] = []
    amplification: float | None = None
