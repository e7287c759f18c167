"""HAR 1.2, as browsers and proxies save it, in which `startedDateTime` is the start of a request."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import re
import urllib.parse
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec

from replay.errors import InputError
from replay.trace.importing.readers.records import Record, RecordReader, end_to_end
from replay.trace.importing.registry import (
    Found,
    Importer,
    Options,
    Probe,
    Rows,
    importer,
)
from replay.trace.importing.rejects import CACHED, NEVER_SENT
from replay.trace.importing.sources import SourceFile
from replay.trace.responses import RecordedResponse, media_type
from replay.units import datetime_to_ns, parse_zone

_HEAD = re.compile(rb'\s*(?:\xef\xbb\xbf)?\{\s*"log"\s*:\s*\{')
_STARTED = re.compile(rb'"startedDateTime"\s*:\s*"([^"]{1,64})"')
_MS_NS = 1_000_000
_BELOW_US = re.compile(r"[.,]\d{6}(\d{1,3})")
"""Matches the digits of a fraction that `datetime` drops."""

_FRACTION = re.compile(rb"[.,](\d{1,9})")

NO_START = "no start time"

_SENT_ALL_THE_SAME = re.compile(
    r"TIMED_OUT|EMPTY_RESPONSE|CONNECTION_(?:RESET|CLOSED|ABORTED)|HTTP2|QUIC|INVALID_HTTP|INCOMPLETE|MISMATCH|TOO_MANY_REDIRECTS"
)
"""Matches errors of Chrome that occur after a request was sent.

All other errors are taken to occur before.
"""

_BOUNDARY = re.compile(r"boundary=\"?([^\";,]+)", re.IGNORECASE)
_OWN_BOUNDARY = "replay-form-boundary"
_ZONED = re.compile(r"(?:[Zz]|[+-]\d\d:?\d\d)$")
HAR_BYTES_MAX = 2 << 30


class _Pair(msgspec.Struct):
    name: str = ""
    value: str = ""


class _Param(msgspec.Struct):
    name: str = ""
    value: str | None = ""
    fileName: str | None = None
    contentType: str | None = None


class _Posted(msgspec.Struct):
    text: str | None = ""
    mimeType: str = ""
    params: list[_Param] | None = None
    encoding: str | None = None


class _Request(msgspec.Struct):
    method: str = ""
    url: str = ""
    headers: list[_Pair] = []
    postData: _Posted | None = None


class _Content(msgspec.Struct):
    size: float = -1
    text: str | None = None
    encoding: str | None = None
    mimeType: str | None = ""


class _Response(msgspec.Struct):
    status: float = -1
    headers: list[_Pair] = []
    content: _Content | None = None
    bodySize: float = -1


class _Entry(msgspec.Struct):
    startedDateTime: str | None = ""
    time: float | None = None
    request: _Request = msgspec.field(default_factory=_Request)
    response: _Response | None = None
    timings: dict[str, Any] | None = None
    fromCache: Any = msgspec.field(default=None, name="_fromCache")
    fetchType: Any = msgspec.field(default=None, name="_fetchType")
    error: Any = msgspec.field(default=None, name="_error")


class _Log(msgspec.Struct):
    entries: list[msgspec.Raw]


class _Har(msgspec.Struct):
    log: _Log


def sniff(head: bytes, options: Options) -> float:
    """Return 1 if the head begins a HAR, otherwise 0."""
    return 1.0 if _HEAD.match(head) else 0.0


def _instant(text: str, zone: dt.tzinfo) -> int | None:
    """Return the instant of a timestamp in ns, None if it is invalid; `zone` applies if it has no zone itself."""
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        return None
    if not 1970 <= moment.year <= 2261:
        return None
    finer = _BELOW_US.search(text)
    below_us_ns = int(finer[1].ljust(3, "0")) if finer else 0
    return datetime_to_ns(moment if moment.tzinfo else moment.replace(tzinfo=zone)) + below_us_ns


def _took_ns(entry: _Entry) -> int:
    """Return the duration of an entry: `time`, or the sum of the timings (`ssl` is part of `connect`); -1 if unknown.

    An optional timing of -1 counts as absent. Without `time`, the duration is unknown if `send`, `wait` or `receive` is
    -1. It is always unknown if the response has status 0.
    """
    total = entry.time
    if total is None or not total >= 0:
        timings = {
            name: value
            for name, value in (entry.timings or {}).items()
            if name != "ssl" and isinstance(value, int | float)
        }
        missing = any(timings.get(name, 0) < 0 for name in ("send", "wait", "receive"))
        total = -1.0 if missing or not timings else sum(value for value in timings.values() if value >= 0)
    if entry.response is not None and entry.response.status == 0:
        return -1
    return round(total * _MS_NS) if 0 <= total < 1e12 else -1


_SIZE_MAX = 1 << 53
"""Sizes of this many bytes or more are treated as unknown, because JSON numbers are not exact there."""


def _not_sent(entry: _Entry) -> str:
    """Return the reason why an entry never reached a server; empty if it did.

    Firefox writes status 0 for cached and blocked requests.
    """
    if entry.fromCache or str(entry.fetchType or "") in ("Memory Cache", "Disk Cache"):
        return CACHED
    status = entry.response.status if entry.response is not None else -1
    if entry.error:
        return "" if status > 0 or _SENT_ALL_THE_SAME.search(str(entry.error)) else NEVER_SENT
    return NEVER_SENT if status == 0 or entry.request.url.startswith(("data:", "blob:", "about:")) else ""


def _multipart(params: list[_Param], boundary: str) -> bytes:
    """Build a form body as in RFC 7578."""
    lines = []
    for param in params:
        quoted = param.name.replace('"', "%22")
        file = f'; filename="{param.fileName}"' if param.fileName is not None else ""
        lines += [f"--{boundary}", f'Content-Disposition: form-data; name="{quoted}"{file}']
        lines += [f"Content-Type: {param.contentType}"] if param.contentType else []
        lines += ["", param.value or ""]
    return "\r\n".join([*lines, f"--{boundary}--", ""]).encode()


def _posted(posted: _Posted) -> tuple[bytes, str]:
    """Return a request body and its media type, from the text, or from the form params if there is no text.

    Raises binascii.Error if the text is not the base64 that it is declared to be.
    """
    kind = posted.mimeType
    if posted.text or not posted.params:
        text = (posted.text or "").encode("utf-8", "surrogatepass")
        if (posted.encoding or "").lower() == "base64":
            return _decoded(text), kind
        return text, kind
    if kind.lower().startswith("multipart/"):
        found = _BOUNDARY.search(kind)
        boundary = found[1].strip() if found else _OWN_BOUNDARY
        return _multipart(posted.params, boundary), kind if found else f"{kind}; boundary={boundary}"
    pairs = [(param.name, param.value or "") for param in posted.params]
    return urllib.parse.urlencode(pairs).encode(), kind or "application/x-www-form-urlencoded"


def _decoded(text: bytes) -> bytes:
    """Decode base64, which may have line breaks. Raises binascii.Error if it is malformed."""
    return base64.b64decode(b"".join(text.split()), validate=True)


def _size(value: float) -> int:
    return int(value) if 0 <= value < _SIZE_MAX else -1


def _pairs(headers: list[_Pair]) -> list[tuple[bytes, bytes]]:
    """Return headers without the pseudo-headers of HTTP/2."""
    return [
        (pair.name.encode("utf-8", "replace"), pair.value.encode("utf-8", "replace"))
        for pair in headers
        if not pair.name.startswith(":")
    ]


_CHARSET = re.compile(r"charset=\"?([\w.:-]{1,40})", re.IGNORECASE)


def _content_bytes(content: _Content) -> bytes | None:
    """Return a response body without its content coding, as a HAR stores it; None if it is missing.

    Raises binascii.Error if it is not the base64 that it is declared to be.
    """
    if content.text is None or (not content.text and content.size != 0):
        return None
    if (content.encoding or "").lower() == "base64":
        return _decoded(content.text.encode("utf-8", "surrogatepass"))
    named = _CHARSET.search(content.mimeType or "")
    try:
        return content.text.encode(named[1] if named else "utf-8")
    except (LookupError, UnicodeEncodeError):
        return content.text.encode("utf-8", "surrogatepass")


def _first_byte_ns(entry: _Entry) -> int:
    """Return the time to the first byte of the response: `send` plus `wait`; -1 if unknown."""
    parts = [(entry.timings or {}).get(name, -1) for name in ("send", "wait")]
    if not all(isinstance(part, int | float) and 0 <= part < 1e12 for part in parts):
        return -1
    return int(sum(parts) * _MS_NS)


class HarReader(RecordReader):
    """Reads HAR files, each as a whole."""

    def __init__(self, found: Found, options: Options) -> None:
        super().__init__(found, options)
        self._zone = parse_zone(options.time_zone or "UTC")

    def probe(self, head: bytes) -> Probe:
        """Return the start of the first entry (None if there is none), and the resolution.

        The resolution is 1 ms, or finer if the start has more digits.
        """
        found = _STARTED.search(head)
        if found is None:
            return Probe(None, _MS_NS)
        fraction = _FRACTION.search(found[1])
        digits = max(3, len(fraction[1])) if fraction else 3
        return Probe(_instant(found[1].decode("latin-1"), self._zone), 10 ** (9 - digits))

    def read(self, file: SourceFile) -> Iterator[Rows]:
        """Yield the rows of one file.

        Raises InputError if it is incomplete or too large.
        """
        data = bytearray()
        for piece in file.stream():
            data += piece
            if len(data) > HAR_BYTES_MAX:
                raise InputError(
                    f"{file.name} is larger than 2 GiB, the maximum for a HAR: save fewer requests in it"
                )
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
                entry = msgspec.json.decode(raw, type=_Entry, strict=False)
                why = _not_sent(entry) or ("" if entry.startedDateTime else NO_START)
                record = None if why else self._record(entry, entry.startedDateTime or "")
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                rejects.add("not this format", file.name, number, bytes(raw)[:400])
                continue
            except binascii.Error:
                rejects.add("bad body", file.name, number, bytes(raw)[:400])
                continue
            why = why or ("bad time" if record is None else self.wrong(record))
            if why or record is None:
                rejects.add(why, file.name, number, bytes(raw)[:400])
            else:
                yield record

    def _record(self, entry: _Entry, started: str) -> Record | None:
        at_ns = _instant(started, self._zone)
        if at_ns is None:
            return None
        if not _ZONED.search(started):
            self._found.count_moments("zoneless", 1)
        request, response = entry.request, entry.response
        pairs = _pairs(request.headers)
        body, kind = _posted(request.postData) if request.postData else (b"", "")
        if kind and (request.postData and kind != request.postData.mimeType):
            pairs = [pair for pair in pairs if pair[0].lower() != b"content-type"]
        if kind and not any(name.lower() == b"content-type" for name, _ in pairs):
            pairs.append((b"Content-Type", kind.encode()))
        status = int(response.status) if response and 100 <= response.status <= 999 else -1
        answered = response is not None and response.status > 0
        return Record(
            at_ns=at_ns,
            method=request.method,
            target=request.url.encode(),
            status=status,
            took_ns=_took_ns(entry),
            size=_size(response.content.size) if response and response.content else -1,
            headers=self.kept(end_to_end(pairs)),
            body=body,
            response=self._response(response) if response is not None and answered else None,
            first_byte_ns=_first_byte_ns(entry) if answered else -1,
        )

    def _response(self, response: _Response) -> RecordedResponse | None:
        """Build the response of an entry; None if there is nothing to keep.

        A HAR stores bodies without their content coding, so that Content-Encoding is dropped.
        """
        pairs, content = end_to_end(_pairs(response.headers)), response.content or _Content()
        plain = [pair for pair in pairs if pair[0].lower() != b"content-encoding"]
        try:
            body = _content_bytes(content)
        except binascii.Error:
            self._found.count_unknown("response body", 1)
            body = None
        is_coded = len(plain) < len(pairs)
        on_wire = _size(response.bodySize) if is_coded else max(_size(response.bodySize), _size(content.size))
        if is_coded:
            self._found.assume(
                "a HAR has bodies without their content coding: Content-Encoding of responses is left out"
            )
        kind = media_type(((b"Content-Type", (content.mimeType or "").encode("utf-8", "replace")),))
        is_whole = body is None or len(body) >= content.size
        kind = "" if kind == "x-unknown" else kind
        made = self.responses.made(plain, body, size=on_wire, is_whole=is_whole, kind=kind)
        if made is None or body is None or not is_whole:
            return made
        is_exact = not is_coded and _size(content.size) in (-1, len(body))
        return made if is_exact else replace(made, size=on_wire, digest=0)


HAR = importer(
    Importer(
        name="har",
        title="a HAR of a browser or proxy",
        sniff=sniff,
        reader=HarReader,
        rank=5,
        names_clients=False,
    )
)
