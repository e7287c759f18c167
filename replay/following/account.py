"""Counts what became of a followed source's entries."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from replay.units import MS_NS

_STEP = 1.01
"""The ratio between the bounds of two neighboring cells of delays."""

_CELLS = 2_500
SHARE_NAMED = 0.999


class NeededDelays:
    """A histogram of the least delay with which each entry would have been in time.

    The cells are one percent wide, from 1 ms on; shorter delays count as 1 ms.
    """

    def __init__(self) -> None:
        self._counts = np.zeros(_CELLS, np.int64)
        self.max_ns: int | None = None

    def add(self, needed_ns: npt.NDArray[np.int64]) -> None:
        """Count the needed delays of entries, in ns."""
        if not len(needed_ns):
            return
        self.max_ns = max(self.max_ns or 0, int(needed_ns.max()))
        cells = np.ceil(np.log(np.maximum(needed_ns, MS_NS) / MS_NS) / np.log(_STEP)).astype(np.int64)
        np.add.at(self._counts, np.minimum(cells, _CELLS - 1), 1)

    def at(self, share: float = SHARE_NAMED) -> int | None:
        """Return a delay in ns with which this share of the entries would have been in time; None without entries."""
        total = int(self._counts.sum())
        if not total or self.max_ns is None:
            return None
        cell = int(np.searchsorted(np.cumsum(self._counts), np.ceil(share * total)))
        return min(round(MS_NS * _STEP**cell), self.max_ns)


@dataclass(slots=True)
class SourceAccount:
    """Counts of a source's entries.

    Each of the `entries` is `released`, `late`, in `skipped`, or still waiting. `copies` counts the released
    requests that scaling added. `before_start` counts the late entries that were due before the start of the run.
    """

    entries: int = 0
    late: int = 0
    before_start: int = 0
    released: int = 0
    copies: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    needed: NeededDelays = field(default_factory=NeededDelays)
    own_requests: int = 0
