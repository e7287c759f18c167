"""Looking more than once, and still meaning 5%: three looks, fixed beforehand, that share alpha among them (Bonferroni)."""

from __future__ import annotations

from typing import NamedTuple


class Look(NamedTuple):
    """After so many blocks of four runs the comparison may end, at this alpha."""

    blocks: int
    alpha: float


LOOKS = (Look(3, 0.010), Look(4, 0.015), Look(6, 0.025))
"""Three blocks are the fewest that can reach an alpha of 0.01: 2 of 216 labellings."""
