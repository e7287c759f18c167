"""Chooses the units of a comparison: all runs, runs within interleaved blocks, pairs, or whole sessions (nights)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from replay.errors import UsageError

from .order import Order, pairs_together, sessions_as_given, sessions_by_time
from .sides import Side, SideRun

Asked = Literal["auto", "labels", "blocks", "pairs", "together", "sessions"]
BLOCK = 4
BLOCKS_MIN, PAIRS_MIN = 3, 10
"""Minimum numbers of blocks and pairs: fewer blocks cannot reach alpha, and fewer pairs have little power
(docs/statistics.md)."""

SESSIONS_MIN = 4
"""Minimum number of sessions per side for a verdict."""

RESTARTS_MIN = 6
"""Minimum number of pairs of runs that were made together. With 6 pairs, the 2 most extreme of 64 labellings reach an
alpha of 0.05; with fewer pairs, no labelling can."""

_ABBA = ((0, 1, 1, 0), (1, 0, 0, 1))


@dataclass(frozen=True, slots=True)
class Design:
    """The units of a comparison in the order of their blocks, the sizes of the blocks, and a description.

    A unit is a run, or all runs of a session. `trend`: units are in the order of time, and a steady change over them
    is removed. `problem` is the reason why there are not enough of the requested sessions. `runs_min` is the minimum
    number of runs per side that can decide anything in this design; 0 if the design sets none.
    """

    units: list[list[SideRun]]
    sizes: list[int]
    words: str
    trend: bool = False
    is_sessions: bool = False
    problem: str = ""
    runs_min: int = 0


def design_of(
    base: Side, new: Side, asked: Asked, order: Order, blocks: Sequence[Sequence[SideRun]] | None = None
) -> Design:
    """Decide how two sides are compared.

    `blocks` are groups of runs within which the labels were randomised, if they are known. Sides that did not take
    turns are compared by session if there are enough sessions. Raise UsageError if `asked` requires blocks or pairs
    that the runs do not form completely, or more pairs than there are.
    """
    everyone = [*base.runs, *new.runs]
    plain = Design([[run] for run in everyone], [len(everyone)], "labels of all runs")
    if blocks is not None and asked == "together":
        return _together(blocks)
    if blocks is not None:
        return _in_blocks(
            [run for block in blocks for run in block], [len(block) for block in blocks], "blocks"
        )
    if asked == "labels":
        return plain
    pairs = pairs_together(base, new)
    if asked == "together" and pairs is None:
        raise UsageError(
            "--design together: these are not complete pairs of runs that sent at the same instants",
            hint="make such runs with `replay ab --together`, or use --design auto",
        )
    if pairs is not None and asked in ("auto", "together"):
        return _together(pairs)
    if asked in ("blocks", "pairs"):
        return _as_given(base, new, asked)
    if asked == "sessions":
        return _by_session(base, new, order, as_given=True) or replace(plain, problem=_too_few(base, new))
    if order.is_sequential:
        return _by_session(base, new, order, as_given=False) or plain
    found = _interleaved(base, new)
    return plain if found is None else _in_blocks(found, [BLOCK] * (len(found) // BLOCK), "blocks")


def _together(pairs: Sequence[Sequence[SideRun]]) -> Design:
    """Return the design of pairs of runs that sent at the same instants."""
    runs = [run for pair in pairs for run in pair]
    return Design([[run] for run in runs], [2] * len(pairs), "together", runs_min=RESTARTS_MIN)


def _in_blocks(runs: list[SideRun], sizes: list[int], what: str) -> Design:
    return Design([[run] for run in runs], sizes, f"labels within {len(sizes)} {what}")


def _as_given(base: Side, new: Side, asked: str) -> Design:
    """Return the design of blocks or pairs of runs in the order of the command line."""
    size = 2 if asked == "blocks" else 1
    parts = len(base.runs) // size
    if len(base.runs) != len(new.runs) or len(base.runs) % size:
        raise UsageError(
            f"--design {asked}: {len(base.runs)} and {len(new.runs)} runs do not form complete {asked}"
            f" with {size} of each side"
        )
    if asked == "pairs" and parts < PAIRS_MIN:
        raise UsageError(
            f"--design pairs: {parts} pairs are too few",
            hint=f"give at least {PAIRS_MIN}, or use --design labels",
        )
    runs = [
        run for at in range(parts) for side in (base, new) for run in side.runs[at * size : (at + 1) * size]
    ]
    return _in_blocks(runs, [2 * size] * parts, asked)


def _by_session(base: Side, new: Side, order: Order, *, as_given: bool) -> Design | None:
    """Return the design with sessions as units; None if a side has too few sessions.

    Sessions are separated at the pauses between runs or, with `as_given`, also by the paths of the command line.
    """
    sides = _sessions(base, new, as_given=as_given)
    if sides is None:
        return None
    words = f"{len(sides[0])} and {len(sides[1])} sessions"
    if not order.is_sequential:
        return Design(
            [*sides[0], *sides[1]], [len(sides[0]) + len(sides[1])], f"labels of {words}", is_sessions=True
        )
    ordered = [*sides[0], *sides[1]] if order.first == base.label else [*sides[1], *sides[0]]
    words += ", with a steady drift from session to session removed"
    return Design(ordered, [len(ordered)], words, trend=True, is_sessions=True)


def _sessions(base: Side, new: Side, *, as_given: bool) -> list[list[list[SideRun]]] | None:
    timed = [found for side in (base, new) if (found := sessions_by_time(side)) is not None]
    options = [timed] if len(timed) == 2 else []
    if as_given:
        options.append([sessions_as_given(base), sessions_as_given(new)])
    for sides in options:
        if min(map(len, sides)) >= SESSIONS_MIN:
            return [sorted(side, key=_start) for side in sides]
    return None


def _start(session: list[SideRun]) -> int:
    """Return the earliest recorded start of a session's runs, or 0 if none of them records it."""
    return min((run.started_ns for run in session if run.started_ns is not None), default=0)


def _too_few(base: Side, new: Side) -> str:
    counts = [len(sessions_as_given(side)) for side in (base, new)]
    return f"--design sessions: {counts[0]} and {counts[1]} sessions are too few ({SESSIONS_MIN} per side are needed)"


def _interleaved(base: Side, new: Side) -> list[SideRun] | None:
    """Return the runs in the order of their starts, if they form at least BLOCKS_MIN blocks of ABBA or BAAB.

    Otherwise, or if the start of a run is unknown or equals that of another run, return None.
    """
    timed = [(run.started_ns, side is new, run) for side in (base, new) for run in side.runs]
    if any(start is None for start, _, _ in timed) or len(timed) % BLOCK or len(timed) < BLOCK * BLOCKS_MIN:
        return None
    timed.sort(key=lambda item: item[0] or 0)
    if any(a[0] == b[0] for a, b in pairwise(timed)):
        return None
    orders = [
        tuple(int(is_new) for _, is_new, _ in timed[at : at + BLOCK]) for at in range(0, len(timed), BLOCK)
    ]
    return [run for _, _, run in timed] if all(order in _ABBA for order in orders) else None
