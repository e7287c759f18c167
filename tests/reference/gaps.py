"""The obvious twin of `replay_native.gaps`: a lane's turns one by one, and the time that each of them lost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Turn:
    """One turn of a lane: for how long it was awake, asked to sleep, and slept, ns; whether dials were put off."""

    awake: int
    asked: int
    slept: int
    behind: bool = False


def gaps_of(turn: Turn, gap: int) -> list[int]:
    """Its gaps: away from its sockets, and asleep after it wanted to be awake."""
    return [gap_ns for gap_ns in (turn.awake, turn.slept - turn.asked) if gap_ns > gap]


def totals(turns: list[Turn], gap: int) -> dict[str, int]:
    """What all of them lost."""
    found = [gaps_of(turn, gap) for turn in turns]
    return {
        "gaps": sum(bool(gaps) for gaps in found),
        "gaps_ns": sum(map(sum, found)),
        "gap_max_ns": max((max(gaps) for gaps in found if gaps), default=0),
        "dials_postponed_ns": sum(turn.awake + turn.slept for turn in turns if turn.behind),
        "lost_ns": sum(
            turn.awake + turn.slept if turn.behind else sum(gaps)
            for turn, gaps in zip(turns, found, strict=True)
        ),
    }


def unread(turn: Turn, gap: int, instant: int) -> int:
    """How long an answer that is read after this turn has lain there at most."""
    if turn.slept - turn.asked > gap:
        return turn.slept
    slept = turn.asked > 0 and turn.slept >= instant
    return turn.awake if turn.awake > gap and not slept else 0
