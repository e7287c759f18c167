"""Reads plain records of a `.gor` file with kernels: ordinary requests whose response is nearby.

All other records are left to the reader of messages in plain Python (`formats.gor`).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import numpy as np

from replay.trace.dictionary import Int64s, StringTable
from replay.trace.importing.cleaning import Cleaner
from replay.trace.importing.registry import Found, Options, Rows
from replay.trace.importing.sources import BLOCK_BYTES
from replay.trace.importing.suspects import packed_names
from replay.trace.requests import Headers
from replay.trace.responses import RecordedResponse, media_type
from replay_native.ground import xxh64
from replay_native.ground.jit import warm
from replay_native.importing import gor as kernels
from replay_native.importing import scan_table as scan
from replay_native.importing import suspects, targets
from replay_native.trace.blocks import hash_pieces

from .gor_messages import HEADER, RECORD_BYTES_MAX, has_no_body
from .records import RecordReader, end_to_end

PARTS_AT_ONCE = 1 << 14
HEADS_MAX, HEADS_BYTES_MAX = 1 << 16, 32 << 20
"""Maximum number of cached header sets, and of their bytes.

A full cache of PlainRecords is cleared. Those of MessageReader accept no more entries.
"""

HOSTS_MAX, HOSTS_BYTES_MAX = 1 << 16, 4 << 20


class MessageReader(RecordReader):
    """Builds headers and responses from recorded messages, without secrets.

    Header sets are cached, because most requests repeat one.
    """

    def __init__(self, found: Found, options: Options) -> None:
        super().__init__(found, options)
        self._header_sets: dict[bytes, Headers] = {}
        self._response_heads: dict[bytes, tuple[Headers, str]] = {}

    def response_of(
        self, head: tuple[Headers, str], body: bytes, size: int, *, bare: bool, digest: int | None = None
    ) -> RecordedResponse | None:
        """Build a response from its cleaned headers, its media type and its recorded body; None if nothing is kept.

        `size` is the length of the whole body (-1: not given, so that a recorded body counts as whole). `bare` means
        that the response has no body, whatever its length header states. `digest` is the digest of the recorded part,
        if known.
        """
        if self._options.responses == "none":
            return None
        headers, kind = head
        if not body and bare:
            size = 0
        is_whole = len(body) == size or (size < 0 and bool(body))
        return self.responses.made_with(
            headers, kind, body if body or is_whole else None, size=size, is_whole=is_whole, digest=digest
        )

    def response_head(self, head: bytes) -> tuple[Headers, str]:
        """Return response headers without secrets, and their media type.

        Header sets are cached.
        """
        known = self._response_heads.get(head)
        if known is None:
            pairs = end_to_end(HEADER.findall(head))
            known = self.kept(pairs), media_type(tuple(pairs))
            if len(self._response_heads) < HEADS_MAX:
                self._response_heads[head] = known
        return known

    def headers_of(self, head: bytes) -> Headers:
        """Return request headers without secrets, and without headers that a replay writes itself.

        Header sets are cached.
        """
        known = self._header_sets.get(head)
        if known is None:
            known = self.kept(end_to_end(HEADER.findall(head)))
            if len(self._header_sets) < HEADS_MAX:
                self._header_sets[head] = known
        return known


class PlainRecords:
    """Reads plain requests and their responses from pieces of a file with kernels, and returns all other records."""

    def __init__(self, reader: MessageReader, found: Found, options: Options) -> None:
        warm(
            ["trace.dictionary", "importing.common_log", "importing.targets", "importing.gor", "trace.blocks"]
        )
        self._reader = reader
        self._key = secrets.randbits(62)
        self._state = np.zeros(scan.STATE_WORDS, dtype=np.int64)
        self._method_words = np.zeros((scan.METHODS_MAX, 2), dtype=np.int64)
        self._methods: list[int] = []
        self._cleaner = Cleaner(found, options)
        self._keys, self._key_ends = packed_names()
        self._keeps_secrets, self._keeps_none = options.keep_secrets, options.responses == "none"
        self._name = np.empty(suspects.PARAMETER_BYTES_MAX, dtype=np.uint8)
        self._parts = np.zeros((kernels.COLUMNS, PARTS_AT_ONCE), dtype=np.int64)
        self._rows = np.zeros_like(self._parts)
        self._head_ends, self._host_ends, self._target_ends = np.zeros((3, PARTS_AT_ONCE + 1), dtype=np.int64)
        self._chosen, self._left = np.zeros((2, PARTS_AT_ONCE), dtype=np.int64)
        self._hosts, self._host_indexes = StringTable(HOSTS_MAX, HOSTS_BYTES_MAX), list[int]()
        self._new_heads()
        self._make_room(2 * BLOCK_BYTES)

    def _new_heads(self) -> None:
        self._heads, self._known_heads = (
            StringTable(HEADS_MAX, HEADS_BYTES_MAX),
            list[tuple[Headers, str]](),
        )
        """Header lines of requests and responses, and for each the cleaned headers and a response's media type."""

    def _make_room(self, size: int) -> None:
        """Allocate buffers for records of `size` bytes."""
        self._buffer, self._head_data, self._host_data = (np.empty(size, dtype=np.uint8) for _ in range(3))
        self._targets = np.empty(4 * size, dtype=np.uint8)

    def begin(self) -> None:
        """Start a new file."""
        self._held = 0
        self._state[scan.LINES] = 0

    def take(self, piece: memoryview) -> Iterator[tuple[Rows | None, list[tuple[int, bytes]]]]:
        """Yield the rows of the complete plain records and the other records with their numbers, in portions."""
        if self._held + len(piece) > len(self._buffer):
            held = self._buffer[: self._held]
            self._make_room(2 * (self._held + len(piece)))
            self._buffer[: len(held)] = held
        self._buffer[self._held : self._held + len(piece)] = piece
        self._held += len(piece)
        self._state[scan.POSITION], count = 0, PARTS_AT_ONCE
        while count == PARTS_AT_ONCE:
            cutting = kernels.Cutting(
                self._key, self._method_words, self._state, self._parts, self._head_data, self._head_ends,
                self._host_data, self._host_ends,
            )  # fmt: skip
            kernels.cut(self._buffer, self._held, cutting)
            count = int(self._state[scan.ROWS])
            if count:
                yield self._portion(count)
        done = int(self._state[scan.POSITION])
        self._held = min(self._held - done, RECORD_BYTES_MAX + 1)
        self._buffer[: self._held] = self._buffer[done : done + self._held].copy()

    def end(self) -> list[tuple[int, bytes]]:
        """Return the remainder after the last separator with its number, in a list; an empty list if it is blank."""
        last, number = self._buffer[: self._held].tobytes(), int(self._state[scan.LINES]) + 1
        return [(number, last)] if last.strip() else []

    def _portion(self, count: int) -> tuple[Rows | None, list[tuple[int, bytes]]]:
        slots = np.zeros(1 << (4 * count - 1).bit_length(), dtype=np.int64)
        paired = kernels.pair(self._parts, count, slots, self._rows, self._chosen, self._left)
        left = []
        for part in self._left[: count - 2 * paired].tolist():
            begin, end, number = self._parts[kernels.PART_BEGIN : kernels.NUMBER + 1, part][
                [0, 1, 3]
            ].tolist()
            left.append((number, self._buffer[begin:end].tobytes()))
        return (self._paired(count, paired) if paired else None), left

    def _paired(self, count: int, paired: int) -> Rows:
        """Return the rows of the requests that were paired with responses."""
        rows, chosen = self._rows[:, :paired], self._chosen[:paired]
        unused = np.zeros(PARTS_AT_ONCE + 1, dtype=np.int64)
        secret = suspects.Secrets(self._keys, self._key_ends, self._keeps_secrets, self._name)
        # Plain requests are not rewritten, so the scratch buffer is unused.
        out = targets.TargetsOut(self._targets, self._targets, self._target_ends, self._host_data[:0], unused)
        targets.write_targets(self._buffer, self._rows, paired, secret, out, unused)
        data, offsets = self._cleaner.targets(
            self._targets, self._target_ends[: paired + 1], rows[scan.NEEDS]
        )
        for words in self._method_words[len(self._methods) : self._state[scan.METHODS]]:
            self._methods.append(self._reader.method_index(words.tobytes().rstrip(b"\0").decode("ascii")))
        heads = self._interned_heads(count)
        headers, header_sets = self._headers(heads[chosen])
        response, responses = self._responses(rows, heads)
        body, bodies = self._bodies(rows, headers, header_sets)
        return Rows(
            at_ns=rows[kernels.AT_NS],
            data=data,
            offsets=offsets,
            method=np.array(self._methods, dtype=np.int64)[rows[scan.METHOD]],
            host=self._host(count)[chosen],
            client_hash=rows[scan.CLIENT],
            status=rows[scan.STATUS],
            took_ns=rows[kernels.TOOK_NS],
            bytes=rows[scan.BYTES],
            headers=headers,
            header_sets=header_sets,
            body=body,
            bodies=bodies,
            response=response if responses else None,
            responses=responses,
        )

    def _host(self, count: int) -> Int64s:
        """Return the reader's host index for each record; -1 for none."""
        ends = self._host_ends[: count + 1]
        ids, fresh = self._hosts.intern(self._host_data, ends)
        for part in fresh.tolist():
            name = self._host_data[ends[part] : ends[part + 1]].tobytes().decode("latin-1").rpartition("@")[2]
            self._host_indexes.append(self._reader.host_index(name) if name else -1)
        return np.array(self._host_indexes, dtype=np.int64)[ids]

    def _interned_heads(self, count: int) -> Int64s:
        """Return the index of each record's headers among the cached header sets."""
        if self._heads.closed:
            self._new_heads()
        ends = self._head_ends[: count + 1]
        ids, fresh = self._heads.intern(self._head_data, ends)
        for part in fresh.tolist():
            head = b"\r\n" + self._head_data[ends[part] : ends[part + 1]].tobytes()
            is_response = self._parts[kernels.KIND, part] == kernels.RESPONSE
            found = self._reader.response_head(head) if is_response else (self._reader.headers_of(head), "")
            self._known_heads.append(found)
        return ids.astype(np.int64)

    def _headers(self, heads: Int64s) -> tuple[Int64s, list[Headers]]:
        """Return each row's index into the header sets of these rows (-1: none), and the sets."""
        used, places = np.unique(heads, return_inverse=True)
        sets = [self._known_heads[index][0] for index in used.tolist()]
        empty = np.array([not headers for headers in sets])
        return np.where(empty[places], -1, places).astype(np.int64), sets

    def _responses(self, rows: Int64s, heads: Int64s) -> tuple[Int64s, list[RecordedResponse]]:
        """Return each row's index into the responses of these rows (-1: none), and the responses."""
        column, found = np.full(rows.shape[1], -1, dtype=np.int64), list[RecordedResponse]()
        if self._keeps_none:
            return column, found
        parts, known = rows[kernels.PAIRED], dict[tuple[int, ...], int]()
        begins, ends = self._parts[kernels.BODY_BEGIN, parts], self._parts[kernels.BODY_END, parts]
        digests = np.empty(len(parts), np.uint64)
        state, tail = np.zeros(xxh64.STATE_WORDS, np.uint64), np.zeros(32, np.uint8)
        hash_pieces(self._buffer, begins, ends, state, tail, digests)
        keys = zip(
            heads[parts].tolist(), digests.tolist(), (ends - begins).tolist(), rows[scan.BYTES].tolist(),
            rows[scan.METHOD].tolist(), rows[scan.STATUS].tolist(), strict=True,
        )  # fmt: skip
        for row, key in enumerate(keys):
            index = known.get(key)
            if index is None:
                made = self._response(key, self._buffer[begins[row] : ends[row]].tobytes())
                index = known[key] = -1 if made is None else len(found)
                found += [] if made is None else [made]
            column[row] = index
        return column, found

    def _response(self, key: tuple[int, ...], body: bytes) -> RecordedResponse | None:
        head, digest, _, size, method, status = key
        bare = has_no_body(self._reader.methods[self._methods[method]], status)
        return self._reader.response_of(self._known_heads[head], body, size, bare=bare, digest=digest)

    def _bodies(
        self, rows: Int64s, headers: Int64s, header_sets: list[Headers]
    ) -> tuple[Int64s, list[bytes]]:
        """Return each row's index into the bodies of these rows (-1: none), and the bodies."""
        begins, ends = rows[kernels.BODY_BEGIN], rows[kernels.BODY_END]
        column = np.full(rows.shape[1], -1, dtype=np.int64)
        found: dict[bytes, int] = {}
        for row in np.flatnonzero(ends > begins).tolist():
            of = header_sets[headers[row]] if headers[row] >= 0 else ()
            body = self._reader.clean_body(self._buffer[begins[row] : ends[row]].tobytes(), of)
            column[row] = found.setdefault(body, len(found))
        return column, list(found)
