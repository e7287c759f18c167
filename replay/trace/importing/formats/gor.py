"""GoReplay's `.gor` files: raw HTTP messages, each after a line `type id timestamp latency`.

A separator lies between them. Type 1 is a request, with the time of its start (ns). Type 2 is its response, which
gives the status and the duration (`replay_native.importing.gor.took_of`). Either may be first, because GoReplay
writes each message when it is complete.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from replay.trace.importing.readers.gor_messages import (
    CHUNKED,
    HEAD,
    HOST,
    LENGTH,
    RECORD_BYTES_MAX,
    REQUEST,
    Answer,
    answer_of,
    dechunked,
    has_no_body,
    message_end,
    parted,
)
from replay.trace.importing.readers.gor_plain import MessageReader, PlainRecords
from replay.trace.importing.readers.records import Record
from replay.trace.importing.registry import (
    Found,
    Importer,
    Options,
    Probe,
    Rows,
    importer,
)
from replay.trace.importing.sources import SourceFile
from replay_native.importing import gor as kernels

SEPARATOR = "\n🐵🙈🙉\n".encode()
PENDING_MAX = 1 << 16
"""How many requests, and how many responses, may wait for their counterpart.

Beyond that, the oldest stops waiting.
"""

BROKEN, TOO_LONG, LONE, REPLAYED = (
    "broken record",
    "too long record",
    "response without request",
    "replayed response",
)


def sniff(head: bytes, options: Options) -> float:
    """Return 1 if the head begins with a record header and a message, otherwise 0."""
    found = HEAD.match(head.lstrip(b"\n"))
    return 1.0 if found and re.match(rb"[A-Z]+ |HTTP/", head.lstrip(b"\n")[found.end() :]) else 0.0


class GorReader(MessageReader):
    """Reads `.gor` files.

    Kernels read plain records that are near their responses; `_records` reads the others.
    """

    def __init__(self, found: Found, options: Options) -> None:
        super().__init__(found, options)
        self._pending: dict[bytes, Record] = {}
        self._early: dict[bytes, Answer] = {}
        self._plain = PlainRecords(self, found, options)

    def probe(self, head: bytes) -> Probe:
        """Return the time of the record that begins the head (None if there is none), and a resolution of 1 ns."""
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
        """Yield the requests that are still without a response, and reject the responses without a request."""
        yield from self.rows(iter(self._pending.values()))
        self._pending.clear()
        while self._early:
            self._reject_early(file, next(iter(self._early)))

    def _reject_early(self, file: SourceFile, name: bytes) -> None:
        """Reject a response that waits for its request."""
        answer = self._early.pop(name)
        self._found.rejects.lines += 1
        self._found.rejects.add(LONE, file.name, answer.number, answer.shown)

    def _records(self, file: SourceFile, parts: Iterable[tuple[int, bytes]]) -> Iterator[Record]:
        """Yield requests from numbered parts, each when its response is found or when it stops waiting.

        If the file is still growing (`follows`), no request waits.
        """
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
        """Yield a request that need not wait for its response.

        Otherwise hold it back, and yield a request that stops waiting because of it, if any.
        """
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

    def _behind(self, file: SourceFile, number: int, behind: bytes) -> Iterator[Record]:
        """Process the data after a message: a record that lacks its separator, or unknown data, which is rejected."""
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


GOR = importer(
    Importer(
        name="gor", title="a GoReplay file (.gor)", sniff=sniff, reader=GorReader, rank=5, names_clients=False
    )
)
