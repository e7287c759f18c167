"""What a run's target failed at: the circuit breaker, statuses against the recording, objectives."""

from __future__ import annotations

from collections.abc import Sequence

from replay.ledger.statuses import FAILED_SHARE
from replay.units import format_share

from .document import RunDocument


def failures_of(document: RunDocument) -> list[str]:
    """Each failure in a few words; none where the target passed. A verdict of the generator is none of them."""
    found = ["the circuit breaker opened"] if document.ending.how == "circuit_breaker" else []
    differs = document.status_differs
    if differs is not None and differs.failed:
        what = (
            "a worse status than recorded" if differs.compared else "a 4xx, and the recording has no statuses"
        )
        allowed = format_share(FAILED_SHARE)
        found.append(f"{format_share(differs.share)} of the requests got {what} ({allowed} is allowed)")
    missed = sum(not outcome.passed for outcome in document.slo)
    if missed:
        found.append(f"{missed} of {len(document.slo)} objectives missed")
    return found


def failed_words(failures: Sequence[str]) -> str:
    """`FAILED: 1 of 2 objectives missed`; empty where nothing failed."""
    return f"FAILED: {'; '.join(failures)}" if failures else ""
