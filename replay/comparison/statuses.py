"""Compares the statuses of both sides with the recording.

Without this comparison, refused requests would count as fast responses of a build.
"""

from __future__ import annotations

from collections.abc import Sequence

from replay.ledger.statuses import SUSPECT_SHARE
from replay.units import format_share

from .decision import VerdictName
from .sides import Side
from .words import NOTHING_SHOWN


def judge_statuses(base: Side, new: Side) -> tuple[VerdictName, str] | None:
    """Return a verdict on statuses alone, and its sentence; None if latencies can be compared.

    None is also returned if a side has no statuses to compare with the recording.

    The verdict is REGRESSION if the share of responses with a worse status than recorded is higher in `new` than in
    `base` by more than SUSPECT_SHARE. Otherwise it is INVALID if most runs of a side failed by their statuses, and
    INCONCLUSIVE if that share is higher in `base` by more than SUSPECT_SHARE.
    """
    old, now = _share(base), _share(new)
    if old is None or now is None:
        return None
    shares = f"{format_share(now)} of the responses of {new.label} have a worse status than recorded"
    shares += f" ({format_share(old)} of {base.label})"
    if now > old + SUSPECT_SHARE:
        return (
            "REGRESSION",
            f"{new.label} is worse than {base.label}: {shares}; latencies are not compared",
        )
    if _has_failed(base) or _has_failed(new):
        return (
            "INVALID",
            "in most runs of a side, most statuses are worse than recorded, so these runs allow no verdict on the"
            f" builds: {shares}",
        )
    if old > now + SUSPECT_SHARE:
        return (
            "INCONCLUSIVE",
            f"{NOTHING_SHOWN}: {shares}; with such different statuses, latencies are not compared",
        )
    return None


def _share(side: Side) -> float | None:
    """Return the mean share of worse statuses over a side's runs; None if it is unknown for all of them."""
    shares = _shares(side)
    return sum(shares) / len(shares) if shares else None


def _shares(side: Side) -> Sequence[float]:
    documents = [run.document for run in side.runs if run.document is not None]
    return [document.status_differs.share for document in documents if document.status_differs is not None]


def _has_failed(side: Side) -> bool:
    """Return whether most runs of a side failed by their statuses."""
    found = [
        run.document.status_differs.failed
        for run in side.runs
        if run.document is not None and run.document.status_differs is not None
    ]
    return 2 * sum(found) > len(found)
