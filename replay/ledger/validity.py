"""Judges whether the generator was too slow: the verdict on a run's own figures.

Only faults of the generator are judged: requests taken up, dialled or read late, requests not sent because of that,
feed underruns, its own errors, and CPU time that it did not get. A slow or stalled target and a limit on connections
increase wait and service, but none of these.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from .delays import delayed, not_sent, unread
from .limits import Figures, Quantiles, ValidityLimits
from .starvation import contended, incomplete, kept_from_running, own_errors, underruns
from .verdicts import VALID, WORSE, Reason, Validity, Verdict

__all__ = ["VALID", "Figures", "Quantiles", "Reason", "Validity", "ValidityLimits", "Verdict"]
# Re-exported from the modules above for callers of `judge`.

_DEFAULT = ValidityLimits()


def judge(figures: Figures, limits: ValidityLimits = _DEFAULT) -> Validity:
    """Return the verdict on a run, with its findings, the worst first."""
    found = [
        *incomplete(figures),
        *delayed(figures, limits),
        *unread(figures, limits),
        *not_sent(figures, limits),
        *own_errors(figures, limits),
        *underruns(figures, limits),
        *kept_from_running(figures, limits),
        *contended(figures, limits),
    ]
    worst = max((reason.verdict for reason in found), key=WORSE.__getitem__, default=VALID)
    return Validity(verdict=worst, reasons=sorted(found, key=lambda r: -WORSE[r.verdict]))


def worst_of(judged: Sequence[tuple[str, Validity]]) -> Validity:
    """Return the verdict on a run with several targets.

    The message of a finding begins with the target, unless all targets have the same finding.
    """
    if len(judged) == 1:
        return judged[0][1]
    common = [reason for reason in judged[0][1].reasons if all(reason in v.reasons for _, v in judged)]
    own = [
        msgspec.structs.replace(reason, message=f"{target}: {reason.message}")
        for target, validity in judged
        for reason in validity.reasons
        if reason not in common
    ]
    reasons = sorted([*common, *own], key=lambda r: -WORSE[r.verdict])
    return Validity(verdict=reasons[0].verdict if reasons else VALID, reasons=reasons)
