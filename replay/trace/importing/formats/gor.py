"""GoReplay's `.gor` files: raw HTTP messages, each behind `type id timestamp latency`, with a separator between.

Type 1 is a request, stamped at its start (ns); 2 is its response, which gives the status and how long it took
(`replay_native.gor.took_of`). Either may come first: GoReplay writes what it has whole.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator

import numpy as np

from replay.trace.dictionary import Int64s, StringTable
from replay.trace.importing.cleaning import Cleaner
from replay.trace.importing.readers.gor_messages import (
    CHUNKED,
    HEAD,
    HEADER,
    HOST,
    LENGTH,
    REQUEST,
    Answer,
    answer_of,
    dechunked,
    has_no_body,
    message_end,
    parted,
)
from replay.trace.importing.readers.records import Record, RecordReader, end_to_end
from replay.trace.importing.registry import (
    Found,
    Importer,
    Options,
    Probe,
    Rows,
    importer,
)
from replay.trace.importing.sources import BLOCK_BYTES, SourceFile
from replay.trace.importing.suspects import packed_names
from replay.trace.requests import Headers
from replay.trace.responses import RecordedResponse, media_type
from replay_native.ground import xxh64
from replay_native.ground.jit import warm
from replay_native.importing import gor as kernels
from replay_native.importing import scan_table as scan
from replay_native.importing import suspects, targets
from replay_native.trace.blocks import hash_pieces

SEPARATOR = "\n🐵🙈🙉\n".encode()
RECORD_BYTES_MAX = 64 << 20
PENDING_MAX = 1 << 16
"""How many requests and responses may wait for their counterpart. When another one arrives, the oldest is given up."""

PARTS_AT_ONCE = 1 << 14
HEADS_BYTES_MAX = 32 << 20
"""How many header sets are cached; beyond that the cache starts again."""

BROKEN, TOO_LONG, LONE, REPLAYED = (
    "broken record",
    "too long record",
    "response without request",
    "replayed response",
)


def sniff(head: bytes, options: Options) -> float:
    """Whether the head is a record header followed by a message."""
    found = HEAD.match(head.lstrip(b"\n"))
    return 1.0 if found and re.match(rb"[A-Z]+ |HTTP/", head.lstrip(b"\n")[found.end() :]) else 0.0


class GorReader(RecordReader):
    """Reads `.gor` files: kernels read plain records that lie near their responses; `_taken` reads the others."""

    def __init__(self, found: Found, options: Options) -> None:
        super().__init__(found, options)
        warm(
            ["trace.dictionary", "importing.common_log", "importing.targets", "importing.gor", "trace.blocks"]
        )
        self._header_sets: dict[bytes, Headers] = {}
        self._response_heads: dict[bytes, tuple[Headers, str]] = {}
        self._pending: dict[bytes, Record] = {}
        self._early: dict[bytes, Answer] = {}
        self._plain = PlainRecords(self, found, options)

    def probe(self, head: bytes) -> Probe:
        """Return the first timestamp and the resolution, judged by the first message."""
        found = HEAD.match(head.lstrip(b"\n"))
        return Probe(int(found[3]) if found else None, 1)

    def read(self, file: SourceFile) -> Iterator[Rows]:
        """Yield the rows of one file."""
        plain, rejects = self._plain, self._found.rejects
        self._pending.clear()
        self._early.clear()
        plain.begin()
        for piece in file.stream():
            for rows, left in plain.take(piece):
                if rows is not None:
                    rejects.lines += len(rows.at_ns)
                    yield rows
                yield from self.rows(self._records(file, left))
        yield from self.rows(self._records(file, plain.end()))
        yield from self._end_file(file)

    def _end_file(self, file: SourceFile) -> Iterator[Rows]:
        """Requests still waiting at the end of a file: they become rows without a response."""
        yield from self.rows(iter(self._pending.values()))
        self._pending.clear()
        while self._early:
            self._reject_early(file, next(iter(self._early)))

    def _reject_early(self, file: SourceFile, name: bytes) -> None:
        """Drop a response that waits for its request."""
        answer = self._early.pop(name)
        self._found.rejects.lines += 1
        self._found.rejects.add(LONE, file.name, answer.number, answer.shown)

    def _records(self, file: SourceFile, parts: Iterable[tuple[int, bytes]]) -> Iterator[Record]:
        """Yield requests from numbered parts, each once its response came or it stops waiting."""
        pending, rejects = self._pending, self._found.rejects
        for number, part in parts:
            head = HEAD.match(part)
            if head is None or max(int(head[3]), int(head[4] or 0)) >= 1 << 63:
                rejects.lines += 1
                rejects.add(
                    BROKEN if len(part) <= RECORD_BYTES_MAX else TOO_LONG, file.name, number, part[:999]
                )
                continue
            end = message_end(part, head.end())
            behind, part = part[end:], part[:end]
            if behind.strip():
                yield from self._behind(file, number, behind)
            if head[1] == b"1":
                rejects.lines += 1
                record = self._request(int(head[3]), part, head.end())
                why = BROKEN if record is None else self.wrong(record)
                if why or record is None:
                    rejects.add(why, file.name, number, part[head.end() :][:999])
                    continue
                yield from self._placed(head[2], record)
            elif head[1] == b"2" and not self.follows:
                answer = answer_of(number, head, part)
                if head[2] in pending:
                    yield self._answered(pending.pop(head[2]), answer)
                    continue
                if len(self._early) >= PENDING_MAX or head[2] in self._early:
                    self._reject_early(file, head[2] if head[2] in self._early else next(iter(self._early)))
                self._early[head[2]] = answer
            elif head[1] != b"2":
                rejects.lines += 1
                rejects.add(REPLAYED, file.name, number, part[:200])

    def _placed(self, name: bytes, record: Record) -> Iterator[Record]:
        """Return a request that need not wait for its response; otherwise whatever has stopped waiting."""
        pending = self._pending
        if self.follows:
            yield record
        elif name in self._early:
            yield self._answered(record, self._early.pop(name))
        else:
            if len(pending) >= PENDING_MAX or name in pending:
                yield pending.pop(name if name in pending else next(iter(pending)))
            pending[name] = record

    def _answered(self, record: Record, answer: Answer) -> Record:
        record.took_ns = kernels.took_of(answer.at_ns - record.at_ns, answer.latency_ns)
        record.status, record.size = answer.status, answer.size
        body, size = answer.body, answer.size
        if answer.head.strip() or body:
            bare = has_no_body(record.method, record.status)
            record.response = self.response_of(self.response_head(answer.head), body, size, bare=bare)
        return record

    def response_of(
        self, head: tuple[Headers, str], body: bytes, size: int, *, bare: bool, digest: int | None = None
    ) -> RecordedResponse | None:
        """Make a response. `size` is the length of its body (-1: up to the end), of which this was recorded. `bare`:
        it has no body whatever its length says. `digest` is the digest of the recorded part, if known.
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
        """Response headers without secrets, and the media type. Header sets are cached."""
        known = self._response_heads.get(head)
        if known is None:
            pairs = end_to_end(HEADER.findall(head))
            known = self.kept(pairs), media_type(tuple(pairs))
            if len(self._response_heads) < PENDING_MAX:
                self._response_heads[head] = known
        return known

    def _behind(self, file: SourceFile, number: int, behind: bytes) -> Iterator[Record]:
        """Classify what follows a message: a record that only lacks its separator, or unknown data."""
        begins = behind.lstrip(b"\r\n")
        if HEAD.match(begins):
            yield from self._records(file, [(number, begins)])
            return
        self._found.rejects.lines += 1
        self._found.rejects.add(BROKEN, file.name, number, behind[:999])

    def _request(self, at_ns: int, part: bytes, begin: int) -> Record | None:
        line = REQUEST.match(part, begin)
        if line is None or at_ns > (1 << 63) - 1:
            return None
        headers_end, body_begin = parted(
            part, line.end() - 1 - (part[line.end() - 2 : line.end() - 1] == b"\r")
        )
        head, body = part[line.end() - 1 : headers_end], part[body_begin:]
        if body:
            body = self._body(head, body)
        host = HOST.search(head)
        return Record(
            at_ns=at_ns,
            method=line[1].decode("latin-1"),
            target=line[2].strip(b" "),
            host=host[1].lower().decode("latin-1") if host else "",
            headers=self.headers_of(head),
            body=body,
        )

    @staticmethod
    def _body(head: bytes, body: bytes) -> bytes:
        if CHUNKED.search(head):
            return dechunked(body)
        length = LENGTH.search(head)
        return body[: int(length[1])] if length else body

    def headers_of(self, head: bytes) -> Headers:
        """Headers without those that a replay writes itself. Cached, because most requests repeat a set."""
        known = self._header_sets.get(head)
        if known is None:
            known = self.kept(end_to_end(HEADER.findall(head)))
            if len(self._header_sets) < PENDING_MAX:
                self._header_sets[head] = known
        return known


class PlainRecords:
    """Uses kernels to read plain requests with their responses from pieces of a file; the rest is cut into parts."""

    def __init__(self, reader: GorReader, found: Found, options: Options) -> None:
        self._reader, self._found = reader, found
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
        self._hosts, self._host_indexes = StringTable(PENDING_MAX, 4 << 20), list[int]()
        self._new_heads()
        self._make_room(2 * BLOCK_BYTES)

    def _new_heads(self) -> None:
        self._heads, self._known_heads = (
            StringTable(PENDING_MAX, HEADS_BYTES_MAX),
            list[tuple[Headers, str]](),
        )
        """Header lines of requests and responses, with the cleaned headers and the response media type of each."""

    def _make_room(self, size: int) -> None:
        """Allocate buffers for records of `size` bytes."""
        self._buffer, self._head_data, self._host_data = (np.empty(size, dtype=np.uint8) for _ in range(3))
        self._targets = np.empty(4 * size, dtype=np.uint8)

    def begin(self) -> None:
        """Start a new file."""
        self._held = 0
        self._state[scan.LINES] = 0

    def take(self, piece: memoryview) -> Iterator[tuple[Rows | None, list[tuple[int, bytes]]]]:
        """Yield the rows of the complete records, and the remaining numbered parts, in portions."""
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
        """The remainder after the last separator."""
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
        """Rows of the requests paired with responses."""
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
        """The reader's host index for each part; -1 for none."""
        ends = self._host_ends[: count + 1]
        ids, fresh = self._hosts.intern(self._host_data, ends)
        for part in fresh.tolist():
            name = self._host_data[ends[part] : ends[part + 1]].tobytes().decode("latin-1").rpartition("@")[2]
            self._host_indexes.append(self._reader.host_index(name) if name else -1)
        return np.array(self._host_indexes, dtype=np.int64)[ids]

    def _interned_heads(self, count: int) -> Int64s:
        """Index of each part into the cached header sets."""
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
        """Each row's index into the header sets of these rows (-1: none), and the sets."""
        used, places = np.unique(heads, return_inverse=True)
        sets = [self._known_heads[index][0] for index in used.tolist()]
        empty = np.array([not headers for headers in sets])
        return np.where(empty[places], -1, places).astype(np.int64), sets

    def _responses(self, rows: Int64s, heads: Int64s) -> tuple[Int64s, list[RecordedResponse]]:
        """Each row's index into the responses of these rows (-1: none), and the responses."""
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
        """Each row's index into the bodies of these rows (-1: none), and the bodies."""
        begins, ends = rows[kernels.BODY_BEGIN], rows[kernels.BODY_END]
        column = np.full(rows.shape[1], -1, dtype=np.int64)
        found: dict[bytes, int] = {}
        for row in np.flatnonzero(ends > begins).tolist():
            of = header_sets[headers[row]] if headers[row] >= 0 else ()
            body = self._reader.clean_body(self._buffer[begins[row] : ends[row]].tobytes(), of)
            column[row] = found.setdefault(body, len(found))
        return column, list(found)


GOR = importer(
    Importer(
        name="gor", title="a GoReplay file (.gor)", sniff=sniff, reader=GorReader, rank=5, names_clients=False
    )
)
