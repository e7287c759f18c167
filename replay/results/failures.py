"""How the target of a run failed: by the circuit breaker, by statuses that differ from the recording, by objectives."""

from __future__ import annotations

from collections.abc import Sequence

from replay.ledger.statuses import FAILED_SHARE, StatusFigures
from replay.units import format_share

from .document import RunDocument


def failures_of(document: RunDocument) -> list[str]:
    """Return each failure of the target in a few words; empty if the target passed.

    The verdict on the generator is separate.
    """
    found = ["the circuit breaker opened"] if document.ending.how == "circuit_breaker" else []
    differs = document.status_differs
    if differs is not None and differs.failed:
        found.append(statuses_words(differs))
    missed = sum(not outcome.passed for outcome in document.slo)
    if missed:
        found.append(f"{missed} of {len(document.slo)} objectives missed")
    return found


def statuses_words(differs: StatusFigures) -> str:
    """Return words such as `62% of the requests got a worse status than recorded (50% is allowed)`."""
    what = "a worse status than recorded" if differs.compared else "a 4xx (the recording has no statuses)"
    allowed = format_share(FAILED_SHARE)
    return f"{format_share(differs.share)} of the requests got {what} ({allowed} is allowed)"


def failed_words(failures: Sequence[str]) -> str:
    """Return a line such as `FAILED: 1 of 2 objectives missed`; empty if there are no failures."""
    return f"FAILED: {'; '.join(failures)}" if failures else ""
