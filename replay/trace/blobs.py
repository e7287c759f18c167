"""Reads dictionaries of header sets, bodies and responses, whose values may have any size, by id."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .blocks import PagedFile
from .columns import BATCH_ROWS, open_paged, schema_of
from .manifest import FileSums
from .packed import PACKED_SCHEMA, PackedBodies

BUDGET_BYTES_MAX = 1 << 30
"""Memory limit of one dictionary of values; an eighth of the machine's memory, if that is less."""


def _budget_bytes() -> int:
    return min(BUDGET_BYTES_MAX, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 8)


def open_file(path: Path, sums: FileSums | None) -> PagedFile:
    """Open a dictionary file that is loaded in parts, within the memory limit of a dictionary."""
    return PagedFile(path, sums, _budget_bytes())


class Blobs:
    """A dictionary file with one column, read by id."""

    def __init__(self, file: PagedFile, *schemas: pa.Schema) -> None:
        self._file = file
        self._batches = list(open_paged(self._file, *schemas))
        self._portion = BATCH_ROWS
        """How many ids `load` tries first: twice as many as the last call loaded."""
        starts = np.cumsum([0, *(batch.num_rows for batch in self._batches)])
        self._starts: list[int] = starts.tolist()
        self._places = np.array([self._place_of(batch) for batch in self._batches], np.int64).reshape(-1, 2)

    def _place_of(self, batch: pa.RecordBatch) -> tuple[int, int]:
        """Return the first byte of a batch in the file, and the byte past its last one."""
        buffers = [buffer for buffer in batch.column(0).buffers() if buffer is not None and buffer.size]
        base = self._file.raw.ctypes.data
        return (
            min((buffer.address for buffer in buffers), default=base) - base,
            max((buffer.address + buffer.size for buffer in buffers), default=base) - base,
        )

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        batch = bisect_right(self._starts, index) - 1
        if not self.whole:
            self._file.load(*self._places[batch].tolist())
        return self._batches[batch].column(0)[index - self._starts[batch]].as_py()

    @property
    def whole(self) -> bool:
        """Return whether the whole file is loaded permanently."""
        return self._file.whole

    def loaded_batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the batches; each stays loaded until the next one is requested."""
        for batch, (begin, end) in zip(self._batches, self._places.tolist(), strict=True):
            self._file.load(begin, end)
            yield batch

    def load(self, ids: npt.NDArray[np.int32]) -> int:
        """Load the values of the first ids, up to the memory limit, and return how many ids were handled.

        At least one value is loaded, even if it exceeds the limit. An id of -1 has no value.
        """
        count = min(len(ids), self._portion)
        batch_of = np.searchsorted(self._starts, ids[:count], side="right") - 1
        while count:
            wanted = np.unique(batch_of[:count])
            places = self._places[wanted[wanted >= 0]]
            if self._file.fit(places[:, 0], places[:, 1], at_any_rate=count == 1):
                break
            count = (count + 1) // 2
        self._portion = 2 * count
        return count


BODIES_SCHEMA = pa.schema([pa.field("body", pa.large_binary(), False)])


class PlainBodies(Blobs):
    """Bodies in the format of trace versions before packing, in which a body is one uncompressed value."""

    def __init__(self, file: PagedFile) -> None:
        super().__init__(file, BODIES_SCHEMA)

    def sizes(self) -> npt.NDArray[np.int64]:
        """Return the length of each body in bytes, by id."""
        found = [np.empty(0, np.int64)]
        for batch in self.loaded_batches():
            ends = np.frombuffer(batch.column(0).buffers()[1], np.int64, batch.num_rows + 1)
            found.append(ends[1:] - ends[:-1])
        return np.concatenate(found)

    def table(self) -> tuple[npt.NDArray[np.int64], int, int]:
        """Return the addresses of the bodies (see `Requests.body_batches`)."""
        rows, total, largest, first = [], 0, 0, 0
        for batch in self.loaded_batches():
            _, starts, data = batch.column(0).buffers()
            offsets = np.frombuffer(starts, np.int64, batch.num_rows + 1)
            rows.append((first, starts.address, data.address if data is not None else 0))
            first += batch.num_rows
            total += int(offsets[-1] - offsets[0])
            largest = max(largest, int(np.diff(offsets).max(initial=0)))
        rows.append((first, 0, 0))
        return np.array(rows, np.int64), total // max(first, 1), largest


def open_bodies(path: Path, sums: FileSums | None) -> PlainBodies | PackedBodies:
    """Open a dictionary of bodies, in the packed or the older format.

    Raises InputError if the file is damaged.
    """
    file = PagedFile(path, sums, 0)
    if schema_of(file).equals(PACKED_SCHEMA):
        return PackedBodies(file)
    file.close()
    return PlainBodies(open_file(path, sums))
