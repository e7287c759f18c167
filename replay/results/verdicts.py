"""The verdict of a run in one word, for lists and headlines."""

from __future__ import annotations

NOT_ENDED = ("interrupted", "killed", "failed", "not_allowed", "over_limit")
"""The values of `Ending.how` for a run that was cut off."""


def verdict_word(how: str, validity: str, *, failed: bool) -> str:
    """Return the verdict of a run in one word.

    It is the first of these that applies: the ending of a run that was cut off, INVALID, FAILED if the target failed,
    and otherwise `validity`, which is VALID or SUSPECT.
    """
    if how in NOT_ENDED:
        return how.upper()
    if validity == "INVALID":
        return validity
    return "FAILED" if failed or how == "circuit_breaker" else validity
