"""Judges whether a target recovers.

A system is metastable if the harm of a surge persists after the surge has ended (Bronson, HotOS 2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from replay.results.baseline import like_baseline

Verdict = Literal["RECOVERED", "DID_NOT_RECOVER", "NOT_HARMED", "UNSTEADY", "UNKNOWN"]
"""UNSTEADY: the target already became slower before the surge. UNKNOWN: it was not measured, or the run is INVALID.

In both cases recovery cannot be judged. NOT_HARMED: every second since the start of the surge was like the baseline.
"""

WATCH_TIMES = 3
"""The target is watched for this many times the length of the surge."""

GOOD_LEAST, GOOD_SHARE = 3, 0.9
"""Recovery must last: at least three good seconds in a row, and at least nine of ten seconds good until the end."""


@dataclass(frozen=True, slots=True)
class Moment:
    """One second of a run: good responses, failed requests, the median response time, and the requests in flight."""

    t_s: float
    ended: int
    failed: int
    p50_ns: int | None
    in_flight: int


@dataclass(frozen=True, slots=True)
class Recovery:
    """The verdict, and how long recovery took.

    `after_s` is the number of seconds from the end of the surge until the target behaved as before (None: it
    never did, or that is not known). `bad_s` is the number of seconds since the start of the surge that were
    unlike the baseline, and `suffered` is the number of requests that ended in them. `failed` is the number of
    requests that failed since the start of the surge (UNSTEADY: in the whole run). `from_ns` is the time in the
    recording at which the run begins, and `window` describes it in words.
    """

    verdict: Verdict
    after_s: float | None
    baseline_p50_ns: int
    bad_s: float
    failed: int
    suffered: int = 0
    from_ns: int = 0
    window: str = ""


def judge(rows: Sequence[Moment], from_s: float, until_s: float) -> Recovery:
    """Judge whether a target has recovered from a surge that lasted from `from_s` to `until_s`.

    `rows` are in order, one per second.
    """
    before = [row for row in rows if row.t_s + 0.5 < from_s]
    medians = [row.p50_ns for row in before[len(before) // 4 :] if row.p50_ns is not None]
    if not medians:
        return Recovery("UNKNOWN", None, 0, 0.0, 0)
    base_ns = int(median(medians))
    third = max(1, len(medians) // 3)
    if len(medians) > 1 and not like_baseline(median(medians[-third:]), 0.0, median(medians[:third]), 0.0):
        return Recovery("UNSTEADY", None, base_ns, 0.0, sum(row.failed for row in rows))
    share = sum(row.failed for row in before) / max(1, sum(row.ended + row.failed for row in before))

    def good(row: Moment) -> bool:
        if row.p50_ns is None and row.in_flight:
            return False
        failed_share = row.failed / max(1, row.ended + row.failed)
        return like_baseline(row.p50_ns, failed_share, base_ns, share)

    after = [row for row in rows if row.t_s + 0.5 >= until_s]
    since = [row for row in rows if row.t_s + 0.5 >= from_s]
    bad, failed = [row for row in since if not good(row)], sum(row.failed for row in since)
    bad_s, suffered = float(len(bad)), sum(row.ended + row.failed for row in bad)
    if not bad:
        return Recovery("NOT_HARMED", 0.0, base_ns, 0.0, failed)
    states = [good(row) for row in after]
    for place, state in enumerate(states):
        rest = states[place:]
        if (
            state
            and len(rest) >= GOOD_LEAST
            and all(rest[:GOOD_LEAST])
            and sum(rest) >= GOOD_SHARE * len(rest)
        ):
            after_s = max(0.0, after[place].t_s - until_s)
            return Recovery("RECOVERED", after_s, base_ns, bad_s, failed, suffered)
    return Recovery("DID_NOT_RECOVER", None, base_ns, bad_s, failed, suffered)
