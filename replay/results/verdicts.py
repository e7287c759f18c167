"""The verdict of a run in one word, for lists and headlines."""

from __future__ import annotations

NOT_ENDED = ("interrupted", "killed", "failed", "not_allowed", "over_limit")
"""The ways in which a run can be cut off: the values of `Ending.how`."""


def verdict_word(how: str, validity: str, *, failed: bool) -> str:
    """The ending of a run that was cut off, otherwise INVALID, otherwise FAILED if its target failed, otherwise VALID
    or SUSPECT.
    """
    if how in NOT_ENDED:
        return how.upper()
    if validity == "INVALID":
        return validity
    return "FAILED" if failed or how == "circuit_breaker" else validity
