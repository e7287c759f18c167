"""Writes GoReplay's files: each request as sent, followed by its recorded response."""

from __future__ import annotations

from typing import IO

from replay.trace import Trace
from replay.trace.arrow import printable
from replay.trace.importing.formats.gor import SEPARATOR
from replay.trace.importing.readers.gor_messages import has_no_body

from .rows import Progress, Row, body_of, headers_of, host_of, rows


def _response(method: str, row: Row) -> bytes:
    """Return a recorded response as an HTTP message, with a Content-Length if the length is known.

    The length is that of the body, or the recorded one if the body was not kept whole or a response to this request
    has no body.
    """
    response, status = row.response, max(row.status, 0)
    body = (response.body or b"") if response else b""
    size = row.size if row.size >= 0 or not response else response.size
    if response and response.body is not None and not response.cut and not has_no_body(method, status):
        size = len(body)
    lines = list(response.headers) if response else []
    lines += [(b"Content-Length", b"%d" % size)] if size >= 0 else []
    head = b"".join(b"%s: %s\r\n" % (name, value or b"") for name, value in lines)
    return b"HTTP/1.1 %03d -\r\n" % status + head + b"\r\n" + body


def write_gor(trace: Trace, file: IO[bytes], progress: Progress) -> None:
    """Write a trace as a `.gor` file."""
    methods = trace.requests.methods
    for number, row in enumerate(rows(trace, progress)):
        request, method = row.request, methods[row.request.method]
        head = b"%s %s HTTP/1.1\r\n" % (method.encode(), printable(request.target))
        host, body = host_of(trace, request), body_of(trace, request)
        lines = [(b"Host", host.encode("latin-1"))] if host else []
        lines += headers_of(trace, request)
        lines += [(b"Content-Length", b"%d" % len(body))] if body else []
        head += b"".join(b"%s: %s\r\n" % line for line in lines)
        file.write(b"1 %024x %d 0\n" % (number, row.at_ns) + head + b"\r\n" + body + SEPARATOR)
        if max(row.status, row.took_ns, row.size) >= 0 or row.response:
            ended_ns = row.at_ns + max(row.took_ns, 0)
            stamp = b"2 %024x %d %d\n" % (number, ended_ns, row.took_ns)
            file.write(stamp + _response(method, row) + SEPARATOR)
