"""The one word that sums a run up, for lists and headlines."""

from __future__ import annotations

NOT_ENDED = ("interrupted", "killed", "failed", "not_allowed", "over_limit")
"""Endings of a run that was cut off: `Ending.how`."""


def verdict_word(how: str, validity: str, *, failed: bool) -> str:
    """How a cut-off run ended; else INVALID; else FAILED where its target failed at something; else VALID or SUSPECT."""
    if how in NOT_ENDED:
        return how.upper()
    if validity == "INVALID":
        return validity
    return "FAILED" if failed or how == "circuit_breaker" else validity
