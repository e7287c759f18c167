"""Sequential looks: three looks, fixed in advance, that divide alpha among them (Bonferroni)."""

from __future__ import annotations

from typing import NamedTuple


class Look(NamedTuple):
    """The comparison may end after this many blocks of four runs, at this alpha."""

    blocks: int
    alpha: float


LOOKS = (Look(3, 0.010), Look(4, 0.015), Look(6, 0.025))
"""Three blocks are the fewest that can reach an alpha of 0.01: 2 of their 216 labellings are the most extreme."""
