"""Spreads coarse timestamps within their resolution: sixty requests "at 18:00:01" did not arrive at one instant."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from replay.trace.columns import in_time_order
from replay_native.ground.jit import warm
from replay_native.importing import jitter as kernels

WINDOW_ROWS = 1 << 17
"""At least this many rows are held back, so that equal timestamps are spread together even if they lie apart."""

SAME_STAMP_ROWS_MAX = 1 << 20
"""If more rows than this share a timestamp, they are spread in parts, each over the whole resolution."""

Columns = dict[str, npt.NDArray[Any]]


class Jitter:
    """Spreads rows uniformly over `resolution_ns` after their `at_ns`, in their order.

    Add the rows of one file, or of files that follow each other in time, then call `flush`. With the same seed and
    stream, the same rows get the same timestamps.
    """

    def __init__(self, seed: int, stream: int, resolution_ns: int) -> None:
        self._random = np.random.Generator(np.random.PCG64([seed, stream]))
        self._resolution_ns = resolution_ns
        self._held: Columns = {}
        self._held_rows = 0
        self._ends = np.empty(kernels.BUCKETS_MAX, dtype=np.int64)
        warm(["importing.jitter"])
        self.latest_ns = np.iinfo(np.int64).min

    def add(self, columns: Columns) -> Iterator[Columns]:
        """Add rows, and yield the older ones that are finished, spread and in order."""
        if not len(columns["at_ns"]):
            return
        self.latest_ns = max(self.latest_ns, int(columns["at_ns"].max()))
        rows, done = len(columns["at_ns"]), 0
        for name in columns.keys() - self._held.keys() if self._held else ():
            self._held[name] = np.full(len(self._held["at_ns"]), -1, columns[name].dtype)
        while done < rows:
            self._make_room(columns)
            taken = min(rows - done, len(self._held["at_ns"]) - self._held_rows)
            for name, held in self._held.items():
                held[self._held_rows : self._held_rows + taken] = columns[name][done : done + taken]
            self._held_rows += taken
            done += taken
            if self._held_rows == len(self._held["at_ns"]) and (older := self._older()):
                yield self._take(older)

    def flush(self) -> Iterator[Columns]:
        """Yield the rows that are still held back."""
        if self._held_rows:
            self._sort()
            yield self._take(self._held_rows)

    def _make_room(self, columns: Columns) -> None:
        """Make space for more rows of these columns.

        The space is doubled if no row could be released.
        """
        room = len(self._held["at_ns"]) if self._held else 0
        if self._held_rows == room:
            more = max(room, 2 * WINDOW_ROWS)
            self._held = {
                name: np.concatenate([self._held.get(name, column[:0]), np.zeros(more, column.dtype)])
                for name, column in columns.items()
            }

    def _older(self) -> int:
        """Sort the held rows, and return how many of them may be released."""
        self._sort()
        stamps = self._held["at_ns"][: self._held_rows]
        older = int(np.searchsorted(stamps, stamps[len(stamps) - WINDOW_ROWS], side="left"))
        return len(stamps) if older == 0 and len(stamps) > SAME_STAMP_ROWS_MAX else older

    def _sort(self) -> None:
        """Sort the held rows by timestamp.

        Rows with equal timestamps keep their order.
        """
        stamps = self._held["at_ns"][: self._held_rows]
        if not in_time_order(stamps):
            order = np.argsort(stamps, kind="stable")
            for column in self._held.values():
                column[: self._held_rows] = column[order]

    def _take(self, rows: int) -> Columns:
        """Release the first rows with spread timestamps."""
        taken = {name: column[:rows].copy() for name, column in self._held.items()}
        for column in self._held.values():
            column[: self._held_rows - rows] = column[rows : self._held_rows].copy()
        self._held_rows -= rows
        return self._spread(taken)

    def _spread(self, columns: Columns) -> Columns:
        """Add a random draw to each timestamp and sort the sums.

        This sorts the draws within each timestamp, so that the rows keep their order.
        """
        stamps = columns["at_ns"]
        draws = self._random.integers(0, self._resolution_ns, len(stamps))
        spread = np.empty_like(stamps)
        kernels.spread(stamps, draws, self._resolution_ns, spread, self._ends)
        # Timestamps after the head of the file may be finer than the resolution found in the head. Spread timestamps then
        # overlap.
        if not in_time_order(spread):
            spread.sort()
        return {**columns, "at_ns": spread}
