"""Converts requests from the ring to clean columns.

Kernels convert the requests that they can clean; Python cleans the others.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable

import numpy as np

from replay.trace.dictionary import Int64s, StringTable, flatten
from replay.trace.importing.cleaning import IGNORED_IN_NAMES, PARTS_OF_NAMES, REMEMBERED, WORD_CHARACTERS
from replay.trace.importing.suspects import packed_names
from replay.trace.journal_columns import JournalColumns
from replay_native.ground.jit import warm
from replay_native.importing.suspects import PARAMETER_BYTES_MAX, Secrets
from replay_native.mirror import cleaning as kernels
from replay_native.mirror.cleaning import Columns, Used
from replay_native.mirror.memory import RecordWords, RingWords
from replay_native.mirror.ring import RECORD_BYTES

from .body_limits import BodyLimits
from .exchange import Clients, Exchange
from .framing import request_head
from .known_strings import KnownStrings
from .name_tables import name_tables
from .record_maker import RecordMaker
from .ring import MirrorRing, peer_of

REQUESTS_AT_ONCE = 4_096
ROWS, TEXT_BYTES, LINES, NEW_LINES = 1 << 13, 8 << 20, 1 << 17, 1 << 14
WORDS_BYTES_MAX = 8 << 20

_RECORD = struct.Struct(f"<{RecordWords.WORDS}q")
Record = Callable[[Iterable[Exchange]], int]


class BatchReader:
    """Takes requests out of the ring.

    Requests that the kernels accept are collected in a batch until `taken` is called.
    """

    def __init__(self, ring: MirrorRing, maker: RecordMaker, limits: BodyLimits) -> None:
        warm(["ground.shared", "mirror.cleaning", "trace.dictionary"])
        self._ring, self._maker, self._limits = ring, maker, limits
        self._clients = Clients()
        self._known = KnownStrings(maker, self._clients)
        self._words, self._words_known = StringTable(REMEMBERED, WORDS_BYTES_MAX), set[str]()
        self._is_stale = False
        self._batch = kernels.Batch(
            rows=np.zeros((ROWS, Columns.WORDS), np.int64),
            lines=np.zeros(LINES, np.int32),
            new=np.zeros((NEW_LINES, 3), np.int64),
            text=np.zeros(TEXT_BYTES, np.uint8),
            rest=np.zeros(REQUESTS_AT_ONCE, np.int64),
            seen=np.zeros(kernels.LINES_MAX, np.int64),
            used=np.zeros(Used.WORDS, np.int64),
        )
        word = re.compile(f"[{WORD_CHARACTERS}]")
        self._word_bytes = np.array([word.match(chr(byte)) is not None for byte in range(256)], np.uint8)
        self._names = name_tables(PARTS_OF_NAMES, IGNORED_IN_NAMES)
        keys, key_ends = packed_names()
        keeps = maker.options.keep_secrets
        self._secrets = Secrets(keys, key_ends, keeps, np.zeros(PARAMETER_BYTES_MAX, np.uint8))
        self._name = np.zeros(kernels.NAME_BYTES_MAX + 1, np.uint8)

    def checks(self) -> kernels.Checks:
        """Return the tables against which the kernels check requests."""
        rules = self._maker.options.scrub
        return kernels.Checks(
            known=self._known.table(),
            facts=self._known.facts,
            uses=self._known.uses,
            words=self._words.arrays(0),
            word_bytes=self._word_bytes,
            names=self._names,
            secrets=self._secrets,
            keeps=self._maker.options.keep_secrets,
            leaves_targets=rules.has("query"),
            leaves_bodies=rules.has("json", "form"),
            body_max=-1 if self._limits.by_route else self._limits.bytes_max,
            name=self._name,
        )

    @property
    def is_full(self) -> bool:
        """Return whether `taken` must be called before `take`."""
        used = self._batch.used
        return self._is_stale or bool(
            used[Used.ROWS] > ROWS // 2
            or used[Used.LINES] > LINES // 2
            or used[Used.NEW] > NEW_LINES // 2
            or used[Used.TEXT] > TEXT_BYTES // 2
        )

    @property
    def is_filling(self) -> bool:
        """Return whether an eighth of the ring waits to be taken."""
        return self._ring.waiting_bytes > self._ring.arrays.data.size // 8

    def take(self, record: Record) -> int:
        """Take up to REQUESTS_AT_ONCE requests out of the ring, and return how many were taken.

        The kernels put the requests that they accept into the batch. `record` receives all others.
        """
        used, before = self._batch.used, self._batch.used.copy()
        uses = self._known.uses.copy()
        first, done, limit = self._ring.word(RingWords.TAKEN), set[int](), REQUESTS_AT_ONCE
        while True:
            used[Used.REST] = 0
            count = kernels.take(self._ring.arrays, first, limit, self.checks(), self._batch)
            rest = [at for at in self._batch.rest[: used[Used.REST]].tolist() if at not in done]
            record(self._exchange(at) for at in rest)
            done.update(rest)
            if not self._add_words():
                break
            # A new secret was found. The accepted requests may contain the same value, so the round is repeated.
            used[:], self._known.uses[:], limit = before, uses, count
        for at in done:
            self._remember(at)
        self._is_stale = self._is_stale or self._known.is_full
        self._ring.take(int(used[Used.TAKEN]), count)
        return int(count)

    def _record(self, at: int) -> tuple[tuple[int, ...], int]:
        """Return the words of a request in the ring, and the position of its first byte."""
        begin = at & (self._ring.arrays.data.size - 1)
        words = self._ring.arrays.data[begin : begin + RECORD_BYTES].tobytes()
        return _RECORD.unpack(words), begin + RECORD_BYTES

    def _exchange(self, at: int) -> Exchange:
        record, begin = self._record(at)
        data = self._ring.arrays.data[begin : begin + record[RecordWords.END]].tobytes()
        head = request_head(data)
        assert head is not None
        peer = peer_of(*record[RecordWords.FAMILY :])
        body = data[head.end :]
        return Exchange(
            at_ns=record[RecordWords.AT_NS],
            method=head.method.decode("latin-1"),
            target=head.target,
            host=head.host.decode("latin-1").lower(),
            headers=head.headers,
            client=self._clients.of(peer, head.headers),
            body=body if len(body) <= self._limits.of(head) else None,
            body_bytes=len(body),
        )

    def _remember(self, at: int) -> None:
        """Remember the strings of a request that the kernels rejected, so that they accept similar requests."""
        record, begin = self._record(at)
        data = self._ring.arrays.data
        peer = data[begin - RECORD_BYTES + 8 * RecordWords.FAMILY : begin].tobytes()
        line, *lines = data[begin : begin + record[RecordWords.HEAD_END] - 4].tobytes().split(b"\r\n")
        self._known.add_peer(peer, peer_of(*record[RecordWords.FAMILY :]))
        self._known.add_method(line.partition(b" ")[0])
        for each in lines:
            self._known.add_line(each)

    def _add_words(self) -> bool:
        """Make the kernels also search for the secrets found since the last call, and return whether there are any."""
        known = self._maker.found.known_secrets
        if len(known) == len(self._words_known):
            return False
        new = [word.encode("latin-1") for word in known - self._words_known]
        self._words.intern(*flatten(new))
        self._is_stale = self._known.doubt(known - self._words_known) or self._is_stale
        self._words_known |= known
        return True

    def taken(self) -> tuple[JournalColumns, memoryview, int] | None:
        """Return the rows of the batch, their text, and the latest time in them, and empty the batch.

        Rows and text are valid until the next call of `take`. Returns None if the batch is empty.
        """
        self._known.count_uses()
        used, batch, known = self._batch.used.copy(), self._batch, self._known
        taken = None
        if count := int(used[Used.ROWS]):
            rows, lines = batch.rows[:count], batch.lines[: used[Used.LINES]]
            columns = JournalColumns(
                count=count,
                methods=_used(rows[:, Columns.METHOD], list(known.methods)),
                hosts=_used(rows[:, Columns.HOST], list(known.hosts)),
                clients=_used(rows[:, Columns.CLIENT], list(known.clients)),
                lines=_used(lines, list(known.lines)),
                rows=rows.data,
                line_numbers=lines.data,
                new=batch.new[: used[Used.NEW]].data,
            )
            text = batch.text[: used[Used.TEXT]].data
            taken = columns, text, int(rows[:, Columns.AT_NS].max())
        batch.used[:] = 0
        if self._is_stale:
            known.forget()
            self._is_stale = False
        return taken


def _used(numbers: Int64s, values: list) -> list:
    """Return the values that `numbers` refer to, and renumber `numbers` in place to index the returned list.

    Negative numbers stay unchanged.
    """
    is_number = numbers >= 0
    chosen = np.flatnonzero(np.bincount(numbers[is_number], minlength=len(values)))
    new = np.zeros(len(values) + 1, numbers.dtype)
    new[chosen] = np.arange(len(chosen))
    numbers[is_number] = new[numbers[is_number]]
    return [values[number] for number in chosen.tolist()]
