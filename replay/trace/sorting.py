"""Sorts events into events files in constant memory.

A window of rows is buffered and sorted, and the older part of it is written. If only neighboring rows are out of
order, this gives one sorted run. A row that is older than the last one written starts a new run, and the runs are
merged at the end.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from replay_native.ground.jit import warm
from replay_native.trace import order

from .columns import (
    BATCH_ROWS,
    Columns,
    empty_events,
    event_offsets,
    events_file,
    in_time_order,
    is_wide,
    widen,
    write_events,
)
from .manifest import FileSums, Segment

WINDOW_ROWS = 1 << 17
"""Rows that stay buffered for sorting. A row that is late by at most this many rows does not start a new run."""

WINDOWS_HELD = 9
"""Maximum number of buffered windows. When it is reached, all but one are written, as one file of BATCH_ROWS."""

MERGE_ROWS = 1 << 20
"""Approximate total number of rows in memory while runs are merged."""

MERGE_ROWS_OF_RUN_MIN = 1 << 12


def order_of(stamps: npt.NDArray[np.int64]) -> npt.NDArray[np.int64] | None:
    """Return the indexes that sort timestamps stably, or None if they are already sorted.

    If a timestamp and its index fit into one word together, the words are sorted, which is faster.
    """
    if in_time_order(stamps):
        return None
    low_bit = len(stamps).bit_length()
    first_ns = int(stamps.min())
    span_bits = (int(stamps.max()) - first_ns).bit_length()
    if low_bit + span_bits > 63:
        return np.argsort(stamps, kind="stable")
    words = ((stamps - first_ns) << low_bit) | np.arange(len(stamps))
    order.sort_words(
        words.view(np.uint64),
        np.empty(len(words), np.uint64),
        low_bit,
        low_bit + span_bits,
        np.empty(order.DIGITS, np.int64),
    )
    words &= (1 << low_bit) - 1
    return words


def _sorted(columns: Columns) -> Columns:
    """Sort the columns by `at_ns`; events with equal timestamps keep their order."""
    rows = order_of(columns["at_ns"])
    return columns if rows is None else {name: column[rows] for name, column in columns.items()}


def _rows(columns: Columns, begin: int, end: int | None) -> dict[str, npt.NDArray[Any]]:
    return {name: column[begin:end] for name, column in columns.items()}


class _EventFiles:
    """Writes sorted rows to numbered events files of BATCH_ROWS rows each; the last one may be shorter."""

    def __init__(self, folder: Path, prefix: str) -> None:
        self._folder, self._prefix = folder, prefix
        self._buffer = empty_events(BATCH_ROWS)
        self._buffered = 0
        self.segments: list[Segment] = []
        self.sums: list[FileSums] = []

    def append(self, columns: Columns) -> None:
        rows, done = len(columns["at_ns"]), 0
        if is_wide(columns):
            widen(self._buffer)
        while done < rows:
            taken = min(rows - done, BATCH_ROWS - self._buffered)
            if taken == BATCH_ROWS:
                self._write(_rows(columns, done, done + taken))
            else:
                for name, column in columns.items():
                    self._buffer[name][self._buffered : self._buffered + taken] = column[done : done + taken]
                self._buffered += taken
                if self._buffered == BATCH_ROWS:
                    self.flush()
            done += taken

    def flush(self) -> None:
        if self._buffered:
            self._write(_rows(self._buffer, 0, self._buffered))
            self._buffered = 0

    def close(self) -> None:
        """Write the buffered rows, and release the buffer."""
        self.flush()
        self._buffer = empty_events(0)

    def _write(self, columns: Columns) -> None:
        name = f"{self._prefix}{events_file(len(self.segments))}"
        self.sums.append(write_events(self._folder / name, columns))
        stamps = columns["at_ns"]
        self.segments.append(
            Segment(file=name, rows=len(stamps), start_ns=int(stamps[0]), end_ns=int(stamps[-1]))
        )


class _RunReader:
    """Reads the files of one run in chunks of rows, and deletes each file when it is opened.

    With `wide`, the chunks have response columns even if a file has none.
    """

    def __init__(self, paths: list[Path], chunk_rows: int, *, wide: bool = False) -> None:
        self._paths, self._wide = list(reversed(paths)), wide
        self._chunk_rows = chunk_rows
        self._fd = -1
        self._at = self._end = 0
        self._places: dict[str, int] = {}
        self.loaded: Columns = empty_events(0)

    @property
    def exhausted(self) -> bool:
        """Return whether all rows of the run have been loaded."""
        return not self._paths and self._at == self._end

    def fill(self) -> None:
        """Load the next chunk if no loaded rows are left."""
        if len(self.loaded["at_ns"]) or self.exhausted:
            return
        if self._at == self._end:
            path = self._paths.pop()
            self._end, self._places = event_offsets(path)
            self._at, self._fd = 0, os.open(path, os.O_RDONLY)
            path.unlink()
        rows = min(self._chunk_rows, self._end - self._at)
        columns = empty_events(rows, wide=self._wide)
        for name, column in columns.items():
            if name not in self._places:
                column.fill(-1)
                continue
            os.preadv(self._fd, [column.data], self._places[name] + self._at * column.itemsize)
        self._at += rows
        if self._at == self._end:
            os.close(self._fd)
            self._fd = -1
        self.loaded = columns

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def take(self, until_ns: int) -> Columns:
        """Take the loaded rows up to and including `until_ns`."""
        count = int(np.searchsorted(self.loaded["at_ns"], until_ns, side="right"))
        taken = _rows(self.loaded, 0, count)
        self.loaded = _rows(self.loaded, count, None)
        return taken


def _merge(runs: list[_RunReader], output: _EventFiles) -> None:
    """Merge sorted runs into `output`.

    In each step, rows can be written up to the earliest of the runs' last loaded timestamps, because no later row
    can precede them.
    """
    while True:
        for run in runs:
            run.fill()
        runs = [run for run in runs if len(run.loaded["at_ns"])]
        if not runs:
            return
        until_ns = min(int(run.loaded["at_ns"][-1]) for run in runs)
        taken = [run.take(until_ns) for run in runs]
        output.append(_sorted({name: np.concatenate([part[name] for part in taken]) for name in taken[0]}))


def _with_sums(segments: list[Segment], sums: list[FileSums]) -> tuple[list[Segment], dict[str, FileSums]]:
    return segments, {segment.file: found for segment, found in zip(segments, sums, strict=True)}


class EventSorter:
    """Accepts events in any order, and writes `events-*.arrow` in time order.

    Events with equal timestamps keep the order in which they were added.
    """

    def __init__(self, folder: Path) -> None:
        warm(["trace.order"])
        self._folder = folder
        self._window, self._spare = (empty_events(WINDOWS_HELD * WINDOW_ROWS) for _ in range(2))
        self._held = 0
        self._written_until_ns = np.iinfo(np.int64).min
        self._runs = [_EventFiles(folder, "run0-")]

    def add(self, columns: Columns) -> None:
        """Add rows in any order, as columns of equal length."""
        columns = self._of_one_width(columns)
        rows, done = len(columns["at_ns"]), 0
        while done < rows:
            taken = min(rows - done, WINDOWS_HELD * WINDOW_ROWS - self._held)
            for name, window in self._window.items():
                window[self._held : self._held + taken] = columns[name][done : done + taken]
            self._held += taken
            done += taken
            if self._held == WINDOWS_HELD * WINDOW_ROWS:
                self._settle(self._held - WINDOW_ROWS)

    def _of_one_width(self, columns: Columns) -> Columns:
        """Return columns that have response columns if the buffered rows have them.

        If the new rows are the first ones with response columns, the buffered rows get them first.
        """
        if is_wide(columns):
            widen(self._window)
            widen(self._spare)
        elif is_wide(self._window):
            columns = dict(columns)
            widen(columns)
        return columns

    def add_in_order(self, columns: Columns) -> None:
        """Add rows that are in time order and not earlier than those already added; they are written directly."""
        columns = self._of_one_width(columns)
        if self._held:
            self._settle(self._held)
        self._runs[-1].append(columns)
        self._written_until_ns = int(columns["at_ns"][-1])

    def _settle(self, rows: int) -> None:
        """Write the oldest `rows` rows of the window, and keep the rest."""
        ordered = self._ordered()
        if rows and int(ordered["at_ns"][0]) < self._written_until_ns:
            self._runs[-1].close()
            self._runs.append(_EventFiles(self._folder, f"run{len(self._runs)}-"))
        self._runs[-1].append(_rows(ordered, 0, rows))
        if rows:
            self._written_until_ns = int(ordered["at_ns"][rows - 1])
        for name, window in self._window.items():
            window[: self._held - rows] = ordered[name][rows:]
        self._held -= rows

    def _ordered(self) -> Columns:
        """Return the held rows in time order.

        They are sorted into the spare window, because reusing memory is cheaper than having the kernel clear new
        pages.
        """
        held = _rows(self._window, 0, self._held)
        rows = order_of(held["at_ns"])
        if rows is None:
            return held
        for name, column in held.items():
            if (column == column[0]).all():
                # Columns of unknown values are constant, and filling one takes a fifth of the time of moving its rows.
                self._spare[name][: self._held] = column[0]
            else:
                np.take(column, rows, out=self._spare[name][: self._held], mode="clip")
        self._window, self._spare = self._spare, self._window
        return _rows(self._window, 0, self._held)

    def finish(self) -> tuple[list[Segment], dict[str, FileSums]]:
        """Write the held rows, merge the runs if there are several, and return the final files in time order.

        Return also the sums of each of these files.
        """
        self._settle(self._held)
        self._runs[-1].close()
        wide = is_wide(self._window)
        self._window = self._spare = empty_events(0)
        if len(self._runs) == 1:
            (output,) = self._runs
            return _with_sums([self._renamed(segment) for segment in output.segments], output.sums)
        output = _EventFiles(self._folder, "")
        chunk_rows = max(MERGE_ROWS // len(self._runs), MERGE_ROWS_OF_RUN_MIN)
        readers = [
            _RunReader([self._folder / part.file for part in run.segments], chunk_rows, wide=wide)
            for run in self._runs
        ]
        self._runs = []
        try:
            _merge(readers, output)
        finally:
            for reader in readers:
                reader.close()
        output.close()
        return _with_sums(output.segments, output.sums)

    def _renamed(self, segment: Segment) -> Segment:
        name = segment.file.partition("-")[2]
        (self._folder / segment.file).rename(self._folder / name)
        segment.file = name
        return segment
