"""Reads a source in a thread, and converts its lines to chunks of entries.

Each chunk has the last instant at which its entries did not exist yet.
"""

from __future__ import annotations

import secrets
import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from replay.errors import EngineError, ReplayError
from replay.trace.dictionary import ClientTable, flatten
from replay.trace.importing.readers.records import RecordReader
from replay.trace.importing.registry import Found, Importer, Options, Reader, Rows
from replay.trace.manifest import NO_REQUEST
from replay.workload.rewrite import Rewrite
from replay_native.ground.jit import warm
from replay_native.trace import dictionary as kernels

from .routes import RouteBook
from .store import RequestStore
from .stream import Stream

METHODS = (
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "PROPPATCH", "MKCOL", "COPY",
    "MOVE", "LOCK", "UNLOCK", "REPORT", "SEARCH", "PURGE", "QUERY", "PRODUCE",
)  # fmt: skip
"""Methods numbered in advance, because the schedule is made before any request. Others count as OTHER_METHOD."""

OTHER_METHOD = "OTHER"
KEY_SEED = np.int64(5_381_417)
QUEUE_ROWS_MAX = 1 << 21
"""How many entries may wait for the control plane. While more of them wait, the source is not read."""

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Entries as columns of equal length, in the order of the source.

    `at_ns` is the timestamp as it was read. `key` is a hash of method and target. `absent_ns` (CLOCK_MONOTONIC) is
    an instant at which none of the entries existed yet.
    """

    absent_ns: int
    at_ns: Int64s
    took_ns: Int64s
    status: npt.NDArray[np.int16]
    size: Int64s
    client: npt.NDArray[np.uint32]
    request: npt.NDArray[np.uint32]
    method: npt.NDArray[np.uint8]
    route: npt.NDArray[np.uint32]
    key: Int64s
    has_body: npt.NDArray[np.bool_]


@dataclass(slots=True)
class History:
    """What the lines from before the run show.

    `peak_1s` is the largest number of entries in a second.
    """

    rows: int = 0
    hosts: Counter[str] | None = None
    first_ns: int = 0
    last_ns: int = 0
    peak_1s: int = 0
    methods: Counter[str] | None = None


class Reading:
    """A thread that reads a source.

    The control plane receives `chunks`. `ready` is set when the lines from before the run have been read, or when
    reading has ended. `ended` is set when reading has ended; if an error was the reason, it is `failure`.
    """

    def __init__(
        self, stream: Stream, importer: Importer, options: Options, book: RouteBook, store: RequestStore, *,
        clients_max: int, rewrite: Rewrite | None = None,
    ) -> None:  # fmt: skip
        self.stream, self.importer = stream, importer
        self.found = Found(key=stream.head or secrets.token_bytes(32))
        self.reader: Reader = importer.reader(self.found, options)
        if isinstance(self.reader, RecordReader):
            self.reader.follows = True
        probe = self.reader.probe(stream.head)
        self.resolution_ns, self.first_ns = probe.resolution_ns, probe.first_ns
        self.book, self.store, self._rewrite = book, store, rewrite
        self.methods = [*METHODS, OTHER_METHOD]
        self.hosts: list[str] = []
        self._clients = ClientTable(clients_max)
        self.chunks: deque[Chunk] = deque()
        self.ended = threading.Event()
        self.ready = threading.Event()
        self.failure: ReplayError | None = None
        self.history = History(hosts=Counter(), methods=Counter())
        self._before: Counter[str] = Counter()
        self._lines_before = 0
        self._keep: Callable[[Rows, Int64s], None] | None = None
        self._thread: threading.Thread | None = None
        stream.on_live = self._go_live
        warm(["trace.dictionary", "trace.routes"])

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="replay-source", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop reading, and wait up to 5 s until the thread has ended."""
        self.stream.stopped.set()
        if self._thread is not None:
            self._thread.join(timeout=5.0)

    @property
    def clients_full(self) -> bool:
        """Return whether there were more clients than numbers, so that some clients share a number."""
        return self._clients.full

    def lines(self) -> int:
        """Return the number of lines read while following, without blank ones, headers and the like (NO_REQUEST)."""
        counts = self._counts()
        return max(
            self.found.rejects.lines - self._lines_before - sum(counts[name] for name in NO_REQUEST), 0
        )

    def rejected(self) -> dict[str, int]:
        """Return how many lines or requests were rejected or lost while following, by reason."""
        counts = self._counts() + Counter(self.stream.lost())
        return {name: count for name, count in counts.items() if count > 0 and name not in NO_REQUEST}

    def _counts(self) -> Counter[str]:
        counts = Counter(self.found.rejects.counts)
        counts.subtract(self._before)
        return counts

    def _run(self) -> None:
        try:
            for rows in self.reader.read(self.stream):
                if self.stream.in_history:
                    self._learn(rows)
                elif len(rows.at_ns):
                    self._take(rows)
        except ReplayError as error:
            self.failure = error
        except Exception as error:  # Any error must end the run and be reported.
            self.failure = EngineError(f"reading {self.stream.name} failed: {type(error).__name__}: {error}")
        finally:
            self.ready.set()
            self.ended.set()

    def _go_live(self) -> None:
        """Note the counts of the lines from before the run, and open the routes for new lines."""
        self._before = Counter(self.found.rejects.counts)
        self._lines_before = self.found.rejects.lines
        self.book.open()
        self.ready.set()

    def _method_ids(self, rows: Rows) -> npt.NDArray[np.uint8]:
        """Return the index of each row's method in `methods`; that of OTHER_METHOD if it is not listed."""
        other = len(self.methods) - 1
        known = [self.methods.index(name) if name in self.methods else other for name in self.reader.methods]
        return np.array([*known, other], np.uint8)[rows.method]

    def _host_ids(self, rows: Rows) -> Int64s:
        """Return the index of each row's host, or -1 for none, and update `hosts`."""
        self.hosts[:] = self.reader.hosts
        return rows.host

    def _targets(self, rows: Rows) -> tuple[npt.NDArray[np.uint8], Int64s]:
        if self._rewrite is None:
            return rows.data, rows.offsets
        data, ends = rows.data.tobytes(), rows.offsets.tolist()
        return flatten([self._rewrite(data[ends[i] : ends[i + 1]]) for i in range(len(ends) - 1)])

    def _add_messages(self, rows: Rows, request: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]:
        """Keep recorded headers and bodies until their requests are sent, and return which bodies are not empty."""
        has_body = np.zeros(len(request), bool)
        if rows.headers is None and rows.body is None:
            return has_body
        sets = [-1] * len(request) if rows.headers is None else rows.headers.tolist()
        bodies = [-1] * len(request) if rows.body is None else rows.body.tolist()
        for place, number in enumerate(request.tolist()):
            headers = rows.header_sets[sets[place]] if sets[place] >= 0 else ()
            body = rows.bodies[bodies[place]] if bodies[place] >= 0 else None
            if headers or body is not None:
                self.store.messages[number] = (headers, body)
                has_body[place] = bool(body)
        return has_body

    def _learn(self, rows: Rows) -> None:
        if not len(rows.at_ns):
            return
        method, history = self._method_ids(rows), self.history
        data, offsets = self._targets(rows)
        self.book.learn_history(data, offsets, method)
        history.first_ns = history.first_ns or int(rows.at_ns.min())
        history.last_ns = max(history.last_ns, int(rows.at_ns.max()))
        history.rows += len(rows.at_ns)
        seconds = rows.at_ns // 1_000_000_000
        history.peak_1s = max(history.peak_1s, int(np.unique(seconds, return_counts=True)[1].max()))
        hosts = self._host_ids(rows)
        assert history.hosts is not None and history.methods is not None
        for number, count in zip(*np.unique(hosts[hosts >= 0], return_counts=True), strict=True):
            history.hosts[self.hosts[number]] += int(count)
        for number, count in zip(*np.unique(method, return_counts=True), strict=True):
            history.methods[self.methods[number]] += int(count)

    def _take(self, rows: Rows) -> None:
        method = self._method_ids(rows)
        data, offsets = self._targets(rows)
        route = self.book.number(data, offsets, method)
        key = np.empty(len(method), np.int64)
        kernels.hash_all(data, offsets, KEY_SEED, key)
        count = len(method)
        request = self.store.add(data, offsets, method, route, self._host_ids(rows))
        unknown = np.full(count, -1, np.int64)
        chunk = Chunk(
            absent_ns=self.stream.caught_up_ns,
            at_ns=rows.at_ns.astype(np.int64),
            took_ns=unknown if rows.took_ns is None else rows.took_ns.astype(np.int64),
            status=rows.status.astype(np.int16),
            size=rows.bytes.astype(np.int64),
            client=self._clients.number(rows.client_hash),
            request=request,
            method=method,
            route=route,
            key=key ^ method,
            has_body=self._add_messages(rows, request),
        )
        self.chunks.append(chunk)
        while (
            sum(len(each.at_ns) for each in self.chunks.copy()) > QUEUE_ROWS_MAX or not self.store.has_room()
        ):
            if self.stream.stopped.wait(0.01):
                return
