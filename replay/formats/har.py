"""HAR 1.2, as browsers and proxies save it: `startedDateTime` is the start of a request."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from typing import Any

import msgspec

from ..errors import InputError
from ..units import datetime_to_ns
from .records import Record, RecordReader, end_to_end
from .registry import Importer, Options, Probe, Rows, importer
from .sources import SourceFile

_HEAD = re.compile(rb'\s*(?:\xef\xbb\xbf)?\{\s*"log"\s*:\s*\{')
_STARTED = re.compile(rb'"startedDateTime"\s*:\s*"([^"]{1,64})"')
_MS_NS = 1_000_000
HAR_BYTES_MAX = 2 << 30


class _Pair(msgspec.Struct):
    name: str = ""
    value: str = ""


class _Posted(msgspec.Struct):
    text: str = ""
    mimeType: str = ""


class _Request(msgspec.Struct):
    method: str = ""
    url: str = ""
    headers: list[_Pair] = []
    postData: _Posted | None = None


class _Content(msgspec.Struct):
    size: float = -1


class _Response(msgspec.Struct):
    status: float = -1
    content: _Content | None = None


class _Entry(msgspec.Struct):
    startedDateTime: str = ""
    time: float | None = None
    request: _Request = msgspec.field(default_factory=_Request)
    response: _Response | None = None
    timings: dict[str, Any] | None = None


class _Log(msgspec.Struct):
    entries: list[msgspec.Raw]


class _Har(msgspec.Struct):
    log: _Log


def sniff(head: bytes, options: Options) -> float:
    """Whether the head begins a HAR."""
    return 1.0 if _HEAD.match(head) else 0.0


def _instant(text: str) -> int | None:
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        return None
    if not 1970 <= moment.year <= 2261:
        return None
    return datetime_to_ns(moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC))


def _took_ns(entry: _Entry) -> int:
    """`time`, or the sum of the timings that are not -1 (`ssl` is inside `connect`)."""
    total = entry.time
    if total is None or not total >= 0:
        parts = [
            v
            for k, v in (entry.timings or {}).items()
            if k != "ssl" and isinstance(v, int | float) and v >= 0
        ]
        total = sum(parts) if parts else -1.0
    return round(total * _MS_NS) if 0 <= total < 1e12 else -1


_SIZE_MAX = 1 << 53
"""A size that is larger is none: it would not even be exact in JSON."""


class HarReader(RecordReader):
    """Reads HAR files, whole."""

    def probe(self, head: bytes) -> Probe:
        """What the first entry says of the stamps."""
        found = _STARTED.search(head)
        return Probe(_instant(found[1].decode("latin-1")) if found else None, _MS_NS)

    def read(self, file: SourceFile) -> Iterator[Rows]:
        """The rows of one file. InputError where it is not whole."""
        data = bytearray()
        for piece in file.stream():
            data += piece
            if len(data) > HAR_BYTES_MAX:
                raise InputError(f"{file.name} is larger than 2 GiB: too large for a HAR")
        try:
            entries = msgspec.json.decode(bytes(data), type=_Har).log.entries
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InputError(f"{file.name} is not a whole HAR: {error}", hint="save it again") from None
        yield from self.rows(self._records(file, entries))

    def _records(self, file: SourceFile, entries: list[msgspec.Raw]) -> Iterator[Record]:
        rejects = self._found.rejects
        for number, raw in enumerate(entries, 1):
            rejects.lines += 1
            try:
                record = self._record(msgspec.json.decode(raw, type=_Entry, strict=False))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                rejects.add("not this format", file.name, number, bytes(raw)[:400])
                continue
            why = "bad time" if record is None else self.wrong(record)
            if why or record is None:
                rejects.add(why, file.name, number, bytes(raw)[:400])
            else:
                yield record

    def _record(self, entry: _Entry) -> Record | None:
        at_ns = _instant(entry.startedDateTime)
        if at_ns is None:
            return None
        request, response = entry.request, entry.response
        pairs = [
            (pair.name.encode(), pair.value.encode())
            for pair in request.headers
            if not pair.name.startswith(":")
        ]
        posted = request.postData
        if posted and posted.mimeType and not any(name.lower() == b"content-type" for name, _ in pairs):
            pairs.append((b"Content-Type", posted.mimeType.encode()))
        status = int(response.status) if response and 100 <= response.status <= 999 else -1
        size = response.content.size if response and response.content else -1
        return Record(
            at_ns=at_ns,
            method=request.method,
            target=request.url.encode(),
            status=status,
            took_ns=_took_ns(entry),
            size=int(size) if 0 <= size < _SIZE_MAX else -1,
            headers=self.kept(end_to_end(pairs)),
            body=posted.text.encode() if posted else b"",
        )


HAR = importer(
    Importer(name="har", title="a HAR of a browser or proxy", sniff=sniff, reader=HarReader, rank=5)
)
