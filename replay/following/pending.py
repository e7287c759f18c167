"""The schedule of a followed source, which sorts arriving entries into due rows.

An entry is in time if it is read at least `lead_ns` before it is due. It then waits, sorted with the others by due
time, until it is released to the feeder, at most SPARE_NS after that limit. An entry that is read later is late at
the source.

Lateness is measured at the last instant at which an entry did not exist yet. If this process itself read the entry
late, the entry is therefore still sent, and the lag is the generator's own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import trio

from replay.plan.due import DUE_ROWS, STATUS_CLASSES, Clock, DueBatch
from replay.plan.numbers import RowNumbers
from replay.results.document import ClockPair
from replay.results.samples import RecordedRow
from replay.trace.importing.readers.jitter import Columns, Jitter
from replay.trace.requests import Headers
from replay.units import MS_NS

from .account import SourceAccount
from .clock import WallClock
from .reading import Chunk, Reading
from .selecting import Entries, Selecting
from .trace import BatchTrace

LEAD_MAX_NS, LEAD_SHARE = 300 * MS_NS, 0.2
"""How long before its due time an entry must be read: LEAD_SHARE of the delay, but at most LEAD_MAX_NS.

During this time, the lanes have rows to send even if this process has to wait for a CPU.
"""

LAG_MIN_NS = 20 * MS_NS
"""The lag of an entry counts as at least this: the time between two polls of the source."""

SPARE_NS = 30 * MS_NS
"""Time between the last instant at which an entry is read in time and its release, for sorting in late arrivals."""

PAUSE_S = 0.01
SETTLE_NS = 200 * MS_NS
"""How long to wait, after the period of a coarse timestamp has passed, for further entries with this timestamp.

Entries with the same timestamp must be spread together.
"""

SPREAD_TOGETHER_NS = 100 * MS_NS
"""Entries with timestamps this coarse or coarser are held for others with the same timestamp (see `_take_complete`)."""

SPREAD_FROM_NS = MS_NS
AHEAD_MAX_NS = 60_000 * MS_NS
"""An entry is skipped if its start is further than this in the future, because its clock must have been wrong."""

BUCKET_NS = 50 * MS_NS
RECENT_BATCHES = 4_096

Int64s = npt.NDArray[np.int64]


class _Recent(NamedTuple):
    """Rows that were released lately, from which the samples of the run are described."""

    first_seq: int
    at_ns: Int64s
    request: npt.NDArray[np.uint32]


def lead_of(delay_ns: int) -> int:
    """Return how long before its due time an entry must be read, in ns."""
    return min(LEAD_MAX_NS, round(delay_ns * LEAD_SHARE))


def needed_of(lags_ns: Int64s) -> Int64s:
    """Return the least delay with which each entry would have been in time.

    `lags_ns` is the time from the start of each entry to the last instant at which it did not exist yet, and counts as
    LAG_MIN_NS at least. The delay minus its own `lead_of` must not be shorter than the lag.
    """
    lags_ns = np.maximum(lags_ns, LAG_MIN_NS)
    return np.minimum((lags_ns / (1 - LEAD_SHARE)).astype(np.int64), lags_ns + LEAD_MAX_NS)


class FollowedRows:
    """The due rows of a source (a `RowSource`)."""

    def __init__(
        self, reading: Reading, selecting: Selecting, clock: WallClock, delay_ns: int, duration_ns: int | None, seed: int,
        *, needs_own: bool = False,
    ) -> None:  # fmt: skip
        self.reading, self._selecting, self._wall = reading, selecting, clock
        self.account = SourceAccount()
        self._delay_ns, self._duration_ns = delay_ns, duration_ns
        self.lead_ns = lead_of(delay_ns)
        self._release_ns = max(self.lead_ns - SPARE_NS, self.lead_ns // 2)
        self.clock = Clock(
            origin_ns=0, from_ns=0, until_ns=1 << 62, window_until_ns=1 << 62, speed=1.0, period_ns=0.0, rows_max=1 << 62,
            repeats=False,
        )  # fmt: skip
        self._start = ClockPair(0, 0)
        self._jitter = (
            Jitter(seed, 0, reading.resolution_ns) if reading.resolution_ns >= SPREAD_FROM_NS else None
        )
        self._held: list[Chunk] = []
        self._buckets: dict[int, list[Entries]] = {}
        self._needs_own = needs_own
        self._stopped = False
        self._seq = 0
        self._recent: deque[_Recent] = deque(maxlen=RECENT_BATCHES)
        self._samples: dict[int, RecordedRow] = {}
        self.last_entry_ns = 0
        self.last_released_ns = 0
        self.first_at_ns, self.last_at_ns = 0, 0
        self.on_rename: Callable[[int, str, str], None] = lambda row, name, action: None
        self.statuses = np.zeros((reading.book.size, len(STATUS_CLASSES)), np.int64)
        self.on_entries: Callable[[Entries], None] = lambda entries: None
        self.on_released: Callable[[Entries], None] = lambda entries: None
        self.on_recorded: Callable[[Entries, dict[str, Int64s]], None] = lambda entries, more: None

    @property
    def table(self) -> Int64s:
        """Return the raw addresses of the requests, for kernels."""
        return self.reading.store.table

    def begin(self, start: ClockPair) -> None:
        """Set the origin of the schedule at the start of the run."""
        self._start = ClockPair(start.monotonic_ns, self._wall.of(start.monotonic_ns))
        self.clock = Clock(
            origin_ns=self._start.wall_ns - self._delay_ns, from_ns=0, until_ns=1 << 62, window_until_ns=1 << 62,
            speed=1.0, period_ns=0.0, rows_max=1 << 62, repeats=False,
        )  # fmt: skip
        self.last_entry_ns = start.monotonic_ns

    def batches(self) -> Iterator[DueBatch]:
        """Return no rows, because none is known before the run."""
        return iter(())

    def end_within(self, grace_ns: int) -> None:
        """Release only rows that are due within this time from now, then end."""
        until_ns = self._elapsed_ns() + grace_ns
        self._duration_ns = until_ns if self._duration_ns is None else min(self._duration_ns, until_ns)

    def settle(self) -> None:
        """Count the entries that were read but not counted yet. They are not sent."""
        self._take_chunks()
        if self._held:
            held, self._held = self._held, []
            self._enter(held)

    def stop(self) -> None:
        """Release no further rows, and stop reading the source."""
        self._stopped = True
        self.reading.stream.stopped.set()

    async def arriving(self) -> AsyncGenerator[DueBatch, None]:
        """Yield due rows in order, until `stop` is called or nothing more is due.

        Nothing more is due when the source has ended and all its rows were released, or when the run's duration has
        passed.
        """
        while not self._stopped:
            ended = self.reading.ended.is_set()
            self._take()
            now_ns = self._elapsed_ns()
            limit_ns = self._duration_ns
            for entries in self._due(
                now_ns + self._release_ns if limit_ns is None else min(now_ns + self._release_ns, limit_ns)
            ):
                batch = self._batch(entries)
                yield batch
                self.reading.store.release(batch.request)
                if self._stopped:
                    return
            over = limit_ns is not None and now_ns >= limit_ns
            if over or (ended and not self.reading.chunks and not self._held and not self._buckets):
                self.stop()
            await trio.sleep(PAUSE_S)

    def _elapsed_ns(self) -> int:
        """Return the time since the start of the run, in ns."""
        return self._wall.now_ns() - self._start.wall_ns

    def _take(self) -> None:
        """Move the entries that were read into the schedule.

        Entries with coarse timestamps are held for others with the same timestamp (see `_take_complete`).
        """
        self._take_chunks()
        if not self._held:
            return
        if self.reading.resolution_ns < SPREAD_TOGETHER_NS:
            held, self._held = self._held, []
            self._enter(held)
            return
        self._take_complete()

    def _take_chunks(self) -> None:
        """Take the new names of routes, and then the chunks that were read, which refer to these names."""
        chunks = self.reading.chunks
        waiting = len(chunks)
        while self.reading.book.renames:
            row, name, action = self.reading.book.renames.popleft()
            self._selecting.renamed(row, name, action)
            self.on_rename(row, name, action)
        for _ in range(waiting):
            self._held.append(chunks.popleft())

    def _take_complete(self) -> None:
        """Move held entries into the schedule when the period of their timestamp is complete.

        Entries that can wait no longer are moved before, and all entries once the source has ended.
        """
        now_ns, resolution_ns = self._wall.now_ns(), self.reading.resolution_ns
        all_there = self.reading.ended.is_set()
        ready: list[Chunk] = []
        left: list[Chunk] = []
        for chunk in self._held:
            complete = chunk.at_ns + resolution_ns + SETTLE_NS <= now_ns
            urgent = self._starts(chunk) + self._delay_ns - self.lead_ns - 2 * SPARE_NS <= now_ns
            picked = complete | urgent | all_there
            if picked.any():
                ready.append(_rows_of(chunk, picked))
            if not picked.all():
                left.append(_rows_of(chunk, ~picked))
        self._held = left
        if ready:
            self._enter(ready)

    def _starts(self, chunk: Chunk) -> Int64s:
        """Return when requests began, according to their timestamps, in ns since the Unix epoch."""
        return chunk.at_ns - np.maximum(chunk.took_ns, 0) if self.reading.reader.subtracts else chunk.at_ns

    def _enter(self, chunks: list[Chunk]) -> None:
        """Spread the timestamps of entries if they are coarse, and put selected entries in time into the schedule."""
        columns = _joined(chunks)
        for part in self._spread(columns):
            if self.reading.reader.subtracts:
                part["start_ns"] = part["at_ns"] - np.maximum(part["took_ns"], 0)
            else:
                part["start_ns"] = part["at_ns"]
            self._judge(part)

    def _spread(self, columns: Columns) -> Iterator[Columns]:
        if self._jitter is None:
            yield columns
            return
        yield from self._jitter.add(columns)
        yield from self._jitter.flush()

    def _judge(self, part: Columns) -> None:
        """Count entries, and put those into the schedule that are in time and selected by the scenario."""
        account = self.account
        entries = Entries(
            part["start_ns"], part["client"], part["request"], part["method"], part["route"], part["status"], part["key"],
            np.zeros(len(part["key"]), bool), part["has_body"],
        )  # fmt: skip
        account.entries += len(entries)
        self.last_entry_ns = self._wall.now_ns() - self._wall.offset_ns
        self.first_at_ns = min(self.first_at_ns or 1 << 62, int(entries.start_ns.min()))
        self.last_at_ns = max(self.last_at_ns, int(entries.start_ns.max()))
        self.on_entries(entries)
        self.on_recorded(entries, part)
        absent_ns = np.maximum(part["absent_ns"] + self._wall.offset_ns, self._start.wall_ns)
        late = needed_of(absent_ns - entries.start_ns) > self._delay_ns
        account.needed.add(needed_of(part["absent_ns"] + self._wall.offset_ns - entries.start_ns))
        early = entries.start_ns > absent_ns + AHEAD_MAX_NS
        account.late += int(np.count_nonzero(late))
        account.before_start += int(np.count_nonzero(entries.start_ns + self._delay_ns < self._start.wall_ns))
        if early.any():
            account.skipped["stamped more than 60 s ahead of this machine's clock"] += int(
                np.count_nonzero(early)
            )
        gone = late | early
        if gone.any():
            self.reading.store.release(entries.request[gone])
        kept = self._selecting.select(entries[~gone], account.skipped)
        known = np.where((kept.status >= 100) & (kept.status < 600), kept.status // 100, 0)
        np.add.at(self.statuses, (kept.route, known), 1)
        kept, copies = self._selecting.scale(kept, account.skipped)
        self._release_unused(entries[~gone], kept)
        self._queue(kept)
        for copy in copies:
            self.reading.store.keep(copy.request)
            self._queue(copy)

    def _release_unused(self, given: Entries, kept: Entries) -> None:
        """Release the requests of entries that are not sent."""
        if len(kept) < len(given):
            unused = np.setdiff1d(given.request, kept.request, assume_unique=True)
            self.reading.store.release(unused)

    def _queue(self, entries: Entries) -> None:
        if not len(entries):
            return
        buckets = (entries.start_ns - self.clock.origin_ns) // BUCKET_NS
        for bucket in np.unique(buckets).tolist():
            self._buckets.setdefault(bucket, []).append(entries[buckets == bucket])

    def _due(self, until_ns: int) -> Iterator[Entries]:
        """Remove the rows that are due up to an instant of the run from the schedule, and yield them in order."""
        for bucket in sorted(bucket for bucket in self._buckets if bucket * BUCKET_NS <= until_ns):
            entries = _concatenated(self._buckets.pop(bucket))
            entries = entries[np.argsort(entries.start_ns, kind="stable")]
            count = int(np.searchsorted(entries.start_ns, until_ns + self.clock.origin_ns, side="right"))
            if count < len(entries):
                self._buckets[bucket] = [entries[count:]]
            for begin in range(0, count, DUE_ROWS):
                yield entries[begin : min(begin + DUE_ROWS, count)]

    def _batch(self, entries: Entries) -> DueBatch:
        first, self._seq = self._seq, self._seq + len(entries)
        copies = int(np.count_nonzero(entries.is_copy))
        self.account.copies += copies
        self.account.released += len(entries) - copies
        self.last_released_ns = int(entries.start_ns[-1])
        self._recent.append(_Recent(first, entries.start_ns, entries.request))
        self.on_released(entries)
        return DueBatch(
            first,
            np.ascontiguousarray(entries.start_ns - self.clock.origin_ns),
            np.ascontiguousarray(entries.request),
            np.ascontiguousarray(entries.client),
            np.ascontiguousarray(entries.route),
            np.ascontiguousarray(entries.method),
            np.ascontiguousarray(entries.status),
            np.ascontiguousarray(entries.start_ns),
            own=self._own(entries.request) if self._needs_own or self.reading.store.messages else None,
        )

    def _own(self, requests: npt.NDArray[np.uint32]) -> BatchTrace:
        """Return the header sets and bodies of a batch, and set the indexes into them in its requests."""
        store, headers, bodies = self.reading.store, list[Headers](), list[bytes]()
        sets: dict[Headers, int] = {}
        for number in requests.tolist():
            found = store.messages.get(number)
            if found is None:
                continue
            if found[0] not in sets:
                sets[found[0]] = len(headers)
                headers.append(found[0])
            if found[1] is not None:
                bodies.append(found[1])
            store.refer(number, sets[found[0]], -1 if found[1] is None else len(bodies) - 1)
        return BatchTrace(self.reading, headers, bodies)

    def remember(self, seqs: set[int]) -> None:
        """Store the recorded rows of the requests that are now samples, and forget those of former samples.

        Only rows of the last RECENT_BATCHES batches can be stored.
        """
        for seq in [seq for seq in self._samples if seq not in seqs]:
            del self._samples[seq]
        wanted = sorted(seqs - self._samples.keys())
        if not wanted or not self._recent:
            return
        firsts = [recent.first_seq for recent in self._recent]
        batches = list(self._recent)
        for seq, place in zip(wanted, np.searchsorted(firsts, wanted, side="right") - 1, strict=True):
            if place < 0:
                continue
            recent, row = batches[place], seq - firsts[place]
            if row < len(recent.at_ns):
                self._name(seq, int(recent.at_ns[row]), int(recent.request[row]))

    def _name(self, seq: int, at_ns: int, request: int) -> None:
        store = self.reading.store
        target, method = store.target(request), store.method(request)
        if target is not None:
            self._samples[seq] = RecordedRow(at_ns, self.reading.methods[method], target.decode("latin-1"))

    def numbers(self, rows_a_pass: int) -> RowNumbers:
        """Return the numbers of the rows: entries are numbered in sending order."""
        return RowNumbers.whole(0, rows_a_pass)

    def recorded(self, wanted: list[int]) -> dict[int, RecordedRow]:
        """Return the recorded rows of sampled requests, as far as they are known."""
        self.remember(set(wanted))
        return {seq: self._samples[seq] for seq in wanted if seq in self._samples}


def _rows_of(chunk: Chunk, rows: npt.NDArray[np.bool_]) -> Chunk:
    if rows.all():
        return chunk
    return Chunk(
        chunk.absent_ns, chunk.at_ns[rows], chunk.took_ns[rows], chunk.status[rows], chunk.size[rows], chunk.client[rows],
        chunk.request[rows], chunk.method[rows], chunk.route[rows], chunk.key[rows], chunk.has_body[rows],
    )  # fmt: skip


_COLUMNS = ("at_ns", "took_ns", "status", "size", "client", "request", "method", "route", "key", "has_body")


def _joined(chunks: list[Chunk]) -> Columns:
    """Concatenate the columns of chunks.

    A column `absent_ns` is added: the last instant at which a row did not exist yet.
    """
    columns: Columns = {name: np.concatenate([getattr(chunk, name) for chunk in chunks]) for name in _COLUMNS}
    columns["absent_ns"] = np.concatenate(
        [np.full(len(chunk.at_ns), chunk.absent_ns, np.int64) for chunk in chunks]
    )
    return columns


def _concatenated(parts: list[Entries]) -> Entries:
    if len(parts) == 1:
        return parts[0]
    return Entries(*(np.concatenate([getattr(part, name) for part in parts]) for name in Entries.__slots__))
