"""Fastify's log (pino), where a request has two lines: `incoming request` and `request completed`.

The first has `req`, the second `res`. They are paired by `reqId` and `pid`. `time` (ms) of the first is the start;
`responseTime` of the second (ms) is the duration (fastify.dev, reference/logging). If an id repeats before its
request completed, the process is assumed to have restarted, and the earlier request gets no status.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator

import msgspec

from replay.trace.importing.readers.lines import sniffed_lines
from replay.trace.importing.readers.records import Record, RecordReader
from replay.trace.importing.registry import (
    Found,
    Importer,
    Options,
    Probe,
    Rows,
    importer,
)
from replay.trace.importing.rejects import BLANK, DETAIL, NO_START
from replay.trace.importing.sources import SourceFile

_MS_NS = 1_000_000
_OPEN_MAX = 100_000


class _Asked(msgspec.Struct):
    method: str
    url: str
    host: str = ""
    hostname: str = ""
    remoteAddress: str = ""


class _Answered(msgspec.Struct):
    statusCode: int = -1


class _Line(msgspec.Struct):
    time: float
    level: int | str
    reqId: str | int = ""
    pid: int = -1
    req: _Asked | None = None
    res: _Answered | None = None
    responseTime: float = -1.0


_DECODER = msgspec.json.Decoder(_Line)


def _decoded(line: bytes) -> _Line | None:
    try:
        return _DECODER.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def sniff(head: bytes, options: Options) -> float:
    """Return the share of the first lines that pino may have written.

    It is 0 if none of them is an incoming request, if the first does not begin with a brace, or with `--columns`.
    """
    if options.columns:
        return 0.0
    lines = sniffed_lines(head)
    if not lines or not lines[0].startswith(b"{"):
        return 0.0
    found = [_decoded(line) for line in lines]
    if not any(line and line.req and line.res is None and line.reqId for line in found):
        return 0.0
    return sum(line is not None for line in found) / len(lines)


class FastifyReader(RecordReader):
    """Reads Fastify's logs.

    Each valid `incoming request` line gives a row.
    """

    def __init__(self, found: Found, options: Options) -> None:
        super().__init__(found, options)
        self._waiting: dict[tuple[int, str | int], Record] = {}

    def probe(self, head: bytes) -> Probe:
        """Return the time of the first request in the head (None if there is none), and the resolution of 1 ms."""
        for line in sniffed_lines(head):
            found = _decoded(line)
            if found is not None and found.req is not None:
                return Probe(round(found.time * _MS_NS), _MS_NS)
        return Probe(None, _MS_NS)

    def read(self, file: SourceFile) -> Iterator[Rows]:
        """Yield the rows of one file."""
        yield from self.rows(self._records(file))

    def _records(self, file: SourceFile) -> Iterator[Record]:
        rejects = self._found.rejects
        self._waiting.clear()
        for number, line in file.lines(rejects):
            found = _decoded(line)
            if found is None:
                why = "not this format" if line.strip() else BLANK
            elif found.req is not None:
                why = yield from self._start(found, found.req)
            elif found.res is not None:
                why = yield from self._end(found, found.res)
            else:
                why = DETAIL
            if why:
                rejects.add(why, file.name, number, line[:999])
        yield from self._waiting.values()
        self._waiting.clear()

    def _start(self, line: _Line, asked: _Asked) -> Generator[Record, None, str]:
        if not 0 <= line.time < 9e12:
            return "bad time"
        record = Record(
            at_ns=round(line.time * 1000) * 1000,
            method=asked.method,
            target=asked.url.encode(),
            host=asked.host or asked.hostname,
            client=asked.remoteAddress.encode(),
        )
        why = self.wrong(record)
        if why:
            return why
        key = (line.pid, line.reqId)
        if key in self._waiting:
            yield self._waiting.pop(key)
        if len(self._waiting) >= _OPEN_MAX:
            yield self._waiting.pop(next(iter(self._waiting)))
        self._waiting[key] = record
        return ""

    def _end(self, line: _Line, answered: _Answered) -> Generator[Record, None, str]:
        record = self._waiting.pop((line.pid, line.reqId), None)
        if record is None:
            return NO_START
        record.status = answered.statusCode if 100 <= answered.statusCode <= 999 else -1
        record.took_ns = round(line.responseTime * _MS_NS) if 0 <= line.responseTime < 1e9 else -1
        yield record
        return DETAIL


FASTIFY = importer(
    Importer(name="fastify", title="a log of Fastify (pino)", sniff=sniff, reader=FastifyReader, rank=2)
)
