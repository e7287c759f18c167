"""The looks of a sequential comparison: three, fixed in advance, that divide alpha among them (Bonferroni)."""

from __future__ import annotations

from typing import NamedTuple


class Look(NamedTuple):
    """A point at which the comparison may end: after this many blocks of four runs, at this alpha."""

    blocks: int
    alpha: float


LOOKS = (Look(3, 0.010), Look(4, 0.015), Look(6, 0.025))
"""Three blocks are the minimum for an alpha of 0.01: they have 216 labellings, of which 2 are the most extreme."""
