"""The thread that takes responses out of the lanes' rings and writes them to the run folder.

It may be too slow or fail. The rings then drop what they cannot hold, and responses that could not be written are
counted. The run never waits for the thread.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from replay.engine.priority import CONTROL_NICE
from replay.errors import OutputError
from replay.lane.keeping import make_keeping
from replay.plan.numbers import RowNumbers
from replay.results.answers import FOLDER, AnswersWriter
from replay.results.document import AnswerFigures
from replay.settings.scenario import Answers
from replay_native.keeping.responses import DIGEST, NOTES_MAX, Keeping
from replay_native.keeping.ring import BODIES_LOST, HEADERS_CUT, ROWS_LOST, drain, is_empty, make_drained

from .columns import Columns

ROWS = 16_384
BODY_BYTES = 8 << 20
"""The limits of a batch: `ROWS` rows, and `BODY_BYTES` bytes of bodies."""

FREE_BYTES_MIN = 16 << 20
"""If less disk space than this is free, no more responses are written, because the run's figures need the space."""

TARGET_SHIFT = 24
"""In the column `copy`, the target's number starts at this bit; the bits below have the pass over the trace."""

PAUSE_S = 0.05
"""The time between two polls of empty rings: a quarter of the time in which a fast lane fills a ring."""

GATHER_S = 1.0
"""How long rows are gathered before they are written, unless a batch is full: small batches make a large file."""

LEAVE_S = 30.0
"""How long the end of a run waits for the remaining data in the rings."""


class Source(NamedTuple):
    """The lanes of one target.

    `first_seq` is the first sequence number of its requests. `numbers` finds their rows in the trace. `lanes` has
    the memory of what the lanes keep.
    """

    first_seq: int
    numbers: RowNumbers
    lanes: list[Keeping]


class _Batch:
    """Gathered rows of one target, which are written together."""

    def __init__(self, source: Source, target: int) -> None:
        self.source, self.target = source, target
        self.drained = make_drained(ROWS, ROWS * 64 + NOTES_MAX, BODY_BYTES)
        self.count = 0
        self._begun_s = 0.0

    def drain(self) -> bool:
        """Move rows out of the rings, and return whether to write them now: the batch is full, or GATHER_S old."""
        before = self.count
        for lane in self.source.lanes:
            self.count = int(drain(lane.ring, self.drained, self.count))
            if not is_empty(lane.ring):
                return True
        if before == 0:
            self._begun_s = time.monotonic()
        return self.count > 0 and time.monotonic() - self._begun_s >= GATHER_S


class AnswerKeeper:
    """Writes the responses that the lanes keep."""

    def __init__(self, run: Path, answers: Answers, sources: Sequence[Source]) -> None:
        self._run, self._answers, self._sources = run, answers, list(sources)
        scratch = make_keeping(DIGEST, 1, ring_bytes=64)
        self._columns = Columns(
            scratch, answers.headers, int(answers.body_limit_bytes), keep_secrets=answers.keep_secrets
        )
        self._writer: AnswersWriter | None = None
        self._is_full = False
        self._start_ns = 0
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, name="answers", daemon=True)
        self._private_files = 0

    @property
    def native_id(self) -> int | None:
        """The system's thread id; None before the thread has begun."""
        return self._thread.native_id

    def begin(self, start_ns: int) -> None:
        """Create the folder and start the thread; due times count from `start_ns`.

        Raises OutputError if the folder cannot be created.
        """
        self._start_ns = start_ns
        self._writer = AnswersWriter(self._run)
        (self._run / FOLDER).chmod(0o700)
        self._thread.start()

    def end(self, patience_s: float = LEAVE_S) -> None:
        """Write the remaining rows, after the lanes have ended, and wait up to `patience_s`.

        A second call only waits again, if the rows are not written yet.
        """
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join(patience_s)

    def figures(self) -> AnswerFigures:
        """Return the counts of kept and lost responses."""
        counts = self._columns.counts
        dropped = dict(counts.lost)
        words = [lane.ring.words for source in self._sources for lane in source.lanes]
        for reason, word in (
            ("ring", ROWS_LOST),
            ("ring_bodies", BODIES_LOST),
            ("header_values", HEADERS_CUT),
        ):
            dropped[reason] = sum(int(counted[word]) for counted in words)
        if self._thread.is_alive():
            dropped["late"] = 1
        return AnswerFigures(
            keep=self._answers.keep or "none",
            kept=counts.kept,
            bodies=counts.bodies,
            cut=counts.cut,
            redacted=counts.redacted,
            secrets_kept=self._answers.keep_secrets,
            dropped={reason: count for reason, count in dropped.items() if count},
        )

    def _work(self) -> None:
        thread = threading.get_native_id()
        with contextlib.suppress(OSError):
            os.setpriority(
                os.PRIO_PROCESS, thread, max(os.getpriority(os.PRIO_PROCESS, thread), CONTROL_NICE)
            )
        batches = [_Batch(source, target) for target, source in enumerate(self._sources)]
        while True:
            is_last = self._ending.is_set()
            for batch in batches:
                while batch.drain() or is_last:
                    if not batch.count:
                        break
                    self._write(batch)
            if is_last:
                break
            self._ending.wait(PAUSE_S)
        self._close()

    def _write(self, batch: _Batch) -> None:
        source, target, drained, count = batch.source, batch.target, batch.drained, batch.count
        batch.count = 0
        counts = self._columns.counts
        if self._is_full:
            counts.lose("disk", count)
            return
        before = counts.stored()
        numbers, passes = source.numbers.find(drained.seq[:count] - source.first_seq)
        columns = self._columns.of(drained, count)
        columns["number"] = numbers.astype(np.uint64)
        columns["copy"] = (passes | target << TARGET_SHIFT).astype(np.uint32)
        columns["due_ns"] = drained.due_ns[:count] - self._start_ns
        if self._store(columns):
            counts.kept += count
        else:
            counts.restore(before)
            counts.lose("disk", count)

    def _store(self, columns: dict[str, Any]) -> bool:
        """Write a batch, and return whether that worked.

        After a failure, or with less than FREE_BYTES_MIN of disk space, nothing more is written.
        """
        assert self._writer is not None
        try:
            self._is_full = shutil.disk_usage(self._run).free < FREE_BYTES_MIN
            if not self._is_full:
                self._writer.write(columns)
                self._make_private()
        except (OSError, OutputError):
            self._is_full = True
        return not self._is_full

    def _make_private(self) -> None:
        """Make new files accessible only to their owner, because they contain bodies."""
        names = sorted((self._run / FOLDER).glob("*.arrow"))
        for path in names[self._private_files :]:
            path.chmod(0o600)
        self._private_files = len(names)

    def _close(self) -> None:
        assert self._writer is not None
        with contextlib.suppress(OSError, OutputError):
            self._writer.close()
