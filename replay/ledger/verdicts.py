"""A verdict and its reasons."""

from __future__ import annotations

from typing import Literal

import msgspec

Verdict = Literal["VALID", "SUSPECT", "INVALID"]
VALID: Verdict = "VALID"
WORSE: dict[Verdict, int] = {"VALID": 0, "SUSPECT": 1, "INVALID": 2}


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """One finding against the run, and what to do about it."""

    code: str
    verdict: Verdict
    message: str
    advice: str


class Validity(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict on a run, which is the worst of its reasons; VALID without any."""

    verdict: Verdict = "VALID"
    reasons: list[Reason] = []


def above_share(
    code: str, share: float, suspect: float, invalid: float, message: str, advice: str
) -> list[Reason]:
    """Return a finding if a share is above `suspect`, with the verdict INVALID if it is above `invalid`."""
    if share <= suspect:
        return []
    verdict: Verdict = "INVALID" if share > invalid else "SUSPECT"
    return [Reason(code=code, verdict=verdict, message=message, advice=advice)]
