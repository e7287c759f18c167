"""Coarse stamps spread inside their resolution: sixty requests "at 18:00:01" did not come in one instant."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from replay_native import jitter as kernels
from replay_native.jit import warm

WINDOW_ROWS = 1 << 18
"""Rows kept back, so that rows of one stamp that lie apart in the file are spread together."""

SAME_STAMP_ROWS_MAX = 1 << 20
"""Rows of one stamp beyond which they are spread in parts, each over the whole of the resolution."""

Columns = dict[str, npt.NDArray[Any]]


class Jitter:
    """Spreads rows uniformly inside `resolution_ns` behind their `at_ns`, in the order in which they came.

    Feed one file, or files that follow each other in time, then `flush`. Seeded: the same rows get the same
    stamps.
    """

    def __init__(self, seed: int, stream: int, resolution_ns: int) -> None:
        self._random = np.random.Generator(np.random.PCG64([seed, stream]))
        self._resolution_ns = resolution_ns
        self._held: list[Columns] = []
        self._held_rows = 0
        self._ends = np.empty(kernels.BUCKETS_MAX, dtype=np.int64)
        warm(["jitter"])
        self.latest_ns = np.iinfo(np.int64).min

    def add(self, columns: Columns) -> Iterator[Columns]:
        """Take rows; gives those of the older stamps, spread and in order."""
        if not len(columns["at_ns"]):
            return
        self.latest_ns = max(self.latest_ns, int(columns["at_ns"].max()))
        self._held.append(columns)
        self._held_rows += len(columns["at_ns"])
        if self._held_rows < 2 * WINDOW_ROWS:
            return
        ordered = self._take()
        stamps = ordered["at_ns"]
        split = int(np.searchsorted(stamps, stamps[len(stamps) - WINDOW_ROWS], side="left"))
        if split == 0 and len(stamps) > SAME_STAMP_ROWS_MAX:
            split = len(stamps)
        if split < len(stamps):
            self._held = [{name: column[split:] for name, column in ordered.items()}]
            self._held_rows = len(stamps) - split
        if split:
            yield self._spread({name: column[:split] for name, column in ordered.items()})

    def flush(self) -> Iterator[Columns]:
        """Give what is held."""
        if self._held_rows:
            yield self._spread(self._take())

    def _take(self) -> Columns:
        """All that is held, sorted by stamp; rows of one stamp in their order."""
        held, self._held, self._held_rows = self._held, [], 0
        columns = {name: np.concatenate([part[name] for part in held]) for name in held[0]}
        stamps = columns["at_ns"]
        if np.all(stamps[1:] >= stamps[:-1]):
            return columns
        order = np.argsort(stamps, kind="stable")
        return {name: column[order] for name, column in columns.items()}

    def _spread(self, columns: Columns) -> Columns:
        """Sorting stamp + draw sorts the draws inside each stamp, and leaves the rows where they are."""
        stamps = columns["at_ns"]
        draws = self._random.integers(0, self._resolution_ns, len(stamps))
        spread = np.empty_like(stamps)
        kernels.spread(stamps, draws, self._resolution_ns, spread, self._ends)
        if not np.all(spread[1:] >= spread[:-1]):  # stamps finer than the resolution, further on in a file
            spread.sort()
        return {**columns, "at_ns": spread}
