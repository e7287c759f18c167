"""Writes HAR 1.2 (HTTP Archive), with the bodies of requests and responses."""

from __future__ import annotations

import base64
import datetime as dt
import urllib.parse
from http import HTTPStatus
from typing import IO, Any

import msgspec

from replay._version import __version__
from replay.trace import Headers, RecordedResponse, Trace
from replay.trace.arrow import printable
from replay.trace.importing.codings import BadCoding, coding_of, decoded
from replay.units import SECOND_NS

from .rows import NO_HOST, Progress, Row, body_of, headers_of, host_of, rows

_MS_NS = 1_000_000
_PHRASES = {status.value: status.phrase for status in HTTPStatus}


def _text(value: bytes | None) -> str:
    """Decode a header as UTF-8, or as Latin-1 if it is not UTF-8."""
    try:
        return (value or b"").decode()
    except UnicodeDecodeError:
        return (value or b"").decode("latin-1")


def _pairs(headers: Headers) -> list[dict[str, str]]:
    return [{"name": _text(name), "value": _text(value)} for name, value in headers]


def _content_type(headers: Headers) -> str:
    return next((_text(value) for name, value in headers if name.lower() == b"content-type"), "")


def _body(body: bytes) -> dict[str, str]:
    """Return a body as text, or in base64 if it is not UTF-8."""
    try:
        return {"text": body.decode()}
    except UnicodeDecodeError:
        return {"text": base64.b64encode(body).decode(), "encoding": "base64"}


def _request(trace: Trace, row: Row) -> dict[str, Any]:
    request = row.request
    headers, body = headers_of(trace, request), body_of(trace, request)
    target = printable(request.target).decode()
    query = urllib.parse.urlsplit(target).query
    found: dict[str, Any] = {
        "method": trace.requests.methods[request.method],
        "url": f"http://{host_of(trace, request) or NO_HOST}{target}",
        "httpVersion": "HTTP/1.1",
        "cookies": [],
        "headers": _pairs(headers),
        "queryString": [
            {"name": name, "value": value}
            for name, value in urllib.parse.parse_qsl(query, keep_blank_values=True, max_num_fields=None)
        ],
        "headersSize": -1,
        "bodySize": len(body),
    }
    if body:
        found["postData"] = {"mimeType": _content_type(headers), **_body(body)}
    return found


def _content(row: Row, response: RecordedResponse) -> dict[str, Any]:
    """Return the body of a response without its content coding, as HAR requires.

    A body that cannot be decoded stays as recorded.
    """
    found: dict[str, Any] = {
        "size": response.size if response.size >= 0 else row.size,
        "mimeType": _content_type(response.headers) or response.type,
    }
    if response.body is None:
        return found
    try:
        body = decoded(response.body, coding_of(response.headers))
    except BadCoding:
        body = response.body
    found |= _body(body)
    if response.cut:
        return found | {"comment": "only the beginning was recorded"}
    return found | {"size": len(body)}


def _response(row: Row) -> dict[str, Any]:
    response = row.response or RecordedResponse(size=row.size)
    return {
        "status": row.status,
        "statusText": _PHRASES.get(row.status, ""),
        "httpVersion": "HTTP/1.1",
        "cookies": [],
        "headers": _pairs(response.headers),
        "content": _content(row, response),
        "redirectURL": next(
            (_text(value) for name, value in response.headers if name.lower() == b"location"), ""
        ),
        "headersSize": -1,
        "bodySize": response.size,
    }


def _timings(row: Row) -> dict[str, float]:
    """Return the durations of sending, waiting and receiving, in ms; -1 if unknown."""
    if row.first_byte_ns < 0:
        return {"send": 0 if row.took_ns >= 0 else -1, "wait": -1, "receive": -1}
    receive_ns = max(row.took_ns - row.first_byte_ns, 0) if row.took_ns >= 0 else -_MS_NS
    return {"send": 0, "wait": row.first_byte_ns / _MS_NS, "receive": receive_ns / _MS_NS}


def _started(at_ns: int) -> str:
    seconds, rest_ns = divmod(at_ns, SECOND_NS)
    return f"{dt.datetime.fromtimestamp(seconds, dt.UTC):%Y-%m-%dT%H:%M:%S}.{rest_ns:09d}Z"


def _entry(trace: Trace, row: Row) -> dict[str, Any]:
    return {
        "startedDateTime": _started(row.at_ns),
        "time": row.took_ns / _MS_NS if row.took_ns >= 0 else -1,
        "request": _request(trace, row),
        "response": _response(row),
        "cache": {},
        "timings": _timings(row),
    }


def write_har(trace: Trace, file: IO[bytes], progress: Progress) -> None:
    """Write a trace as a HAR file, one entry at a time."""
    encoder = msgspec.json.Encoder()
    creator = {"name": "replay", "version": __version__}
    file.write(b'{"log": {"version": "1.2", "creator": ' + encoder.encode(creator) + b', "entries": [')
    separator = b"\n"
    for row in rows(trace, progress):
        file.write(separator + encoder.encode(_entry(trace, row)))
        separator = b",\n"
    file.write(b"\n]}}\n")
