"""GoReplay's `.gor` files: raw HTTP messages, each behind `type id timestamp latency`, with a separator between.

Type 1 is a request, stamped at its start (ns); 2 is its response, which gives the status and how long it took.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from .records import Record, RecordReader
from .registry import Found, Importer, Options, Probe, Rows, importer
from .sources import SourceFile

SEPARATOR = "\n🐵🙈🙉\n".encode()
RECORD_BYTES_MAX = 64 << 20
PENDING_MAX = 1 << 16
"""Requests that wait for their responses; the oldest goes without when one more comes."""

BROKEN, TOO_LONG, LONE, REPLAYED = (
    "broken record",
    "too long record",
    "response without request",
    "replayed response",
)

_HEAD = re.compile(rb"([123]) ([0-9A-Za-z]+) (\d{1,19})(?: (-?\d{1,19}))?\s*\n")
_REQUEST = re.compile(rb"([^ \r\n]{1,32}) ([^\r\n]*?)(?: HTTP/[\d.]+)?\r?\n")
_STATUS = re.compile(rb"HTTP/[\d.]+ (\d{3})")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n]*?)[ \t]*\r?\n")
_LENGTH = re.compile(rb"\nContent-Length:[ \t]*(\d{1,15})[ \t]*\r?\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\nTransfer-Encoding:[ \t]*chunked", re.IGNORECASE)
_HOST = re.compile(rb"\nHost:[ \t]*([^\s]+)", re.IGNORECASE)


def sniff(head: bytes, options: Options) -> float:
    """Whether the head is that of a message and a message follows."""
    found = _HEAD.match(head.lstrip(b"\n"))
    return 1.0 if found and re.match(rb"[A-Z]+ |HTTP/", head.lstrip(b"\n")[found.end() :]) else 0.0


def dechunked(raw: bytes) -> bytes:
    """A body without its chunk sizes (RFC 9112, 7.1); what is left of a broken one is cut off."""
    body, at = b"", 0
    while (end := raw.find(b"\r\n", at)) >= 0:
        size = re.match(rb"[0-9A-Fa-f]{1,8}", raw[at:end])
        if size is None or int(size[0], 16) == 0:
            break
        length = int(size[0], 16)
        body += raw[end + 2 : end + 2 + length]
        at = end + 2 + length + 2
    return body


class GorReader(RecordReader):
    """Reads `.gor` files."""

    def __init__(self, found: Found, options: Options) -> None:
        super().__init__(found, options)
        self._header_sets: dict[bytes, tuple[tuple[bytes, bytes], ...]] = {}

    def probe(self, head: bytes) -> Probe:
        """What the first message says of the stamps."""
        found = _HEAD.match(head.lstrip(b"\n"))
        return Probe(int(found[3]) if found else None, 1)

    def read(self, file: SourceFile) -> Iterator[Rows]:
        """The rows of one file."""
        yield from self.rows(self._records(file))

    def _records(self, file: SourceFile) -> Iterator[Record]:
        """Requests in the order of the file, each as soon as its response came or waits no longer."""
        pending: dict[bytes, Record] = {}
        rejects, number = self._found.rejects, 0
        for part in self._parts(file):
            number += 1
            head = _HEAD.match(part)
            if head is None:
                rejects.lines += 1
                rejects.add(
                    BROKEN if len(part) <= RECORD_BYTES_MAX else TOO_LONG, file.name, number, part[:999]
                )
            elif head[1] == b"1":
                rejects.lines += 1
                record = self._request(int(head[3]), part, head.end())
                why = BROKEN if record is None else self.wrong(record)
                if why or record is None:
                    rejects.add(why, file.name, number, part[head.end() :][:999])
                    continue
                if len(pending) >= PENDING_MAX or head[2] in pending:
                    yield pending.pop(head[2] if head[2] in pending else next(iter(pending)))
                pending[head[2]] = record
            elif head[1] == b"2" and head[2] in pending:
                yield self._answered(pending.pop(head[2]), head, part)
            else:
                rejects.lines += 1
                rejects.add(LONE if head[1] == b"2" else REPLAYED, file.name, number, part[:200])
        yield from pending.values()

    @staticmethod
    def _parts(file: SourceFile) -> Iterator[bytes]:
        held: list[bytes] = []
        length = 0
        for piece in file.stream():
            data = (held[-1][-len(SEPARATOR) :] if held else b"") + bytes(piece)
            if SEPARATOR not in data:
                held.append(bytes(piece))
                length += len(piece)
                if length > RECORD_BYTES_MAX:
                    held, length = [b"".join(held)[: RECORD_BYTES_MAX + 1]], RECORD_BYTES_MAX + 1
                continue
            *whole, rest = b"".join([*held, bytes(piece)]).split(SEPARATOR)
            yield from (part for part in whole if part)
            held, length = [rest], len(rest)
        last = b"".join(held)
        if last.strip():
            yield last

    def _request(self, at_ns: int, part: bytes, begin: int) -> Record | None:
        line = _REQUEST.match(part, begin)
        if line is None or at_ns > (1 << 63) - 1:
            return None
        end = part.find(b"\r\n\r\n", line.end() - 2)
        head = part[line.end() - 2 : end + 2] if end >= 0 else part[line.end() - 2 :]
        body = part[end + 4 :] if end >= 0 else b""
        if body:
            body = self._body(head, body)
        host = _HOST.search(head)
        return Record(
            at_ns=at_ns,
            method=line[1].decode("latin-1"),
            target=line[2],
            host=host[1].decode("latin-1").lower() if host else "",
            headers=self._headers(head),
            body=body,
        )

    @staticmethod
    def _body(head: bytes, body: bytes) -> bytes:
        if _CHUNKED.search(head):
            return dechunked(body)
        length = _LENGTH.search(head)
        return body[: int(length[1])] if length else body

    def _headers(self, head: bytes) -> tuple[tuple[bytes, bytes], ...]:
        """The headers, without what a replay writes itself. Sets are remembered: most requests repeat one."""
        known = self._header_sets.get(head)
        if known is None:
            pairs = (pair for pair in _HEADER.findall(head) if pair[0].lower() not in WRITTEN_ANEW)
            known = self.kept(pairs)
            if len(self._header_sets) < PENDING_MAX:
                self._header_sets[head] = known
        return known

    @staticmethod
    def _answered(record: Record, head: re.Match[bytes], part: bytes) -> Record:
        status = _STATUS.match(part, head.end())
        record.status = int(status[1]) if status else -1
        took_ns = int(head[4] or 0)
        took_ns = took_ns if took_ns else int(head[3]) - record.at_ns
        record.took_ns = took_ns if took_ns >= 0 else -1
        record.status = record.status if record.status >= 100 else -1
        end = part.find(b"\r\n\r\n", head.end())
        length = _LENGTH.search(part, head.end(), end + 2)
        record.size = int(length[1]) if length else len(part) - end - 4 if len(part) > end + 4 else -1
        return record


WRITTEN_ANEW = frozenset({b"host", b"content-length", b"transfer-encoding", b"connection", b"keep-alive"})
"""Headers that say how a message was sent, not what was asked."""

GOR = importer(Importer(name="gor", title="a GoReplay file (.gor)", sniff=sniff, reader=GorReader, rank=5))
