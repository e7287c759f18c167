"""The ending of a merged run.

The ending decides the exit code, so it describes the run as a whole. It is `interrupted` (130) only if the
coordinator was interrupted. An agent that was ended by a signal is treated as if it were lost: the run continues
without it, or the coordinator stops the other agents and the run has failed (1).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import msgspec

from replay.results.document import EndedHow, Ending

from .parts import Part

_WORSE: tuple[EndedHow, ...] = ("over_limit", "circuit_breaker", "not_allowed", "failed")
"""Endings of one agent that apply to the whole run, from the mildest to the worst."""


class Cause(NamedTuple):
    """The reason why the coordinator ended a run early.

    `interrupted`: the coordinator received a signal. `stopped`: an agent was lost or ended early. `none`: the
    coordinator did not end the run early. `not_known`: the folders are merged without a coordinator.
    """

    how: Literal["none", "interrupted", "stopped", "not_known"]
    why: str = ""


NOT_KNOWN = Cause("not_known")


def ending_of(parts: Sequence[Part], lost: Iterable[int], cause: Cause) -> Ending:
    """Return the ending of the whole run, from those of the agents that were not lost.

    If all agents were lost, the run was killed.
    """
    gone = set(lost)
    left = [part for part in parts if part.share.agent not in gone]
    at_s = max((part.document.ending.at_s for part in left or parts), default=0.0)
    if not left:
        return Ending(how="killed", detail="every agent was lost", at_s=at_s)
    imposed = [part for part in left if part.document.ending.how in _WORSE]
    if imposed:
        worst = max(imposed, key=lambda part: _WORSE.index(part.document.ending.how))
        return msgspec.structs.replace(worst.document.ending, detail=_detail([worst], left))
    cut = [part for part in left if part.document.ending.how != "whole"]
    if not cut:
        return Ending(at_s=at_s)
    if cause.how == "interrupted":
        return Ending(how="interrupted", detail=cause.why, at_s=at_s)
    if cause.how == "none" and len(cut) < len(left):
        return Ending(at_s=at_s)
    return Ending(how="failed", detail=cause.why or _detail(cut, left), at_s=at_s)


def _detail(of: Sequence[Part], left: Sequence[Part]) -> str:
    """Return why some agents ended, without their names if all agents ended for the same reason."""
    details = {part.document.ending.detail for part in left}
    if len(details) == 1:
        return details.pop()
    return "; ".join(f"{part.name}: {part.document.ending.detail}" for part in of)
