"""Within which groups of runs the labels were interchangeable: all of them, blocks of interleaved runs, or pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from ..errors import UsageError
from .sides import Side, SideRun

Asked = Literal["auto", "labels", "blocks", "pairs"]
BLOCK = 4
BLOCKS_MIN, PAIRS_MIN = 3, 10
"""Fewer blocks cannot reach alpha; fewer pairs have little power (docs/statistics.md)."""

_ABBA = ((0, 1, 1, 0), (1, 0, 0, 1))


@dataclass(frozen=True, slots=True)
class Design:
    """Runs in the order of their blocks, the blocks' sizes, and both in words."""

    order: list[SideRun]
    sizes: list[int]
    words: str


def design_of(base: Side, new: Side, asked: Asked, blocks: Sequence[Sequence[SideRun]] | None) -> Design:
    """How the labels are permuted. UsageError where the runs make no whole blocks or pairs, or too few of them."""
    everyone = [*base.runs, *new.runs]
    plain = Design(everyone, [len(everyone)], "labels of all runs")
    if blocks is not None:
        order = [run for block in blocks for run in block]
        return Design(order, [len(block) for block in blocks], f"labels within {len(blocks)} blocks")
    if asked == "labels":
        return plain
    if asked in ("blocks", "pairs"):
        size = 2 if asked == "blocks" else 1
        parts = len(base.runs) // size
        if len(base.runs) != len(new.runs) or len(base.runs) % size:
            raise UsageError(
                f"--design {asked}: {len(base.runs)} and {len(new.runs)} runs make no whole {asked}"
            )
        if asked == "pairs" and parts < PAIRS_MIN:
            raise UsageError(
                f"--design pairs: {parts} pairs are too few", hint=f"from {PAIRS_MIN} on; or --design labels"
            )
        order = [
            run
            for at in range(parts)
            for side in (base, new)
            for run in side.runs[at * size : (at + 1) * size]
        ]
        return Design(order, [2 * size] * parts, f"labels within {parts} {asked}")
    found = _interleaved(base, new)
    if found is None:
        return plain
    return Design(found, [BLOCK] * (len(found) // BLOCK), f"labels within {len(found) // BLOCK} blocks")


def _interleaved(base: Side, new: Side) -> list[SideRun] | None:
    """The runs in the order of their starts, where that is at least BLOCKS_MIN whole blocks of ABBA or BAAB."""
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
