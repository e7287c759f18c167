"""The events of a trace one by one, with their requests and recorded responses, for exporters of whole messages."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from replay.trace import Batch, RecordedResponse, Request, Trace, with_requests

Progress = Callable[[int, int], None]
"""Called with (rows done, rows in all)."""

NO_HOST = "localhost"
"""The host of a URL whose request has none."""

_UNSAFE = re.compile(rb"[^!-~]")


class Row(NamedTuple):
    """One event; -1 is unknown."""

    at_ns: int
    request: Request
    client: int
    status: int
    took_ns: int
    size: int
    response: RecordedResponse | None
    first_byte_ns: int


def printable(target: bytes) -> bytes:
    """A target in which everything that is not printable ASCII is percent-encoded."""
    return _UNSAFE.sub(lambda m: b"%%%02X" % m[0][0], target)


def counted(trace: Trace, progress: Progress) -> Iterator[Batch]:
    """The events in batches whose requests are loaded."""
    done = 0
    for batch in with_requests(trace.batches(), trace.requests):
        yield batch
        done += len(batch)
        progress(done, trace.rows)


def rows(trace: Trace, progress: Progress) -> Iterator[Row]:
    """Every event."""
    get, response_of = trace.requests.get, trace.responses.get
    for batch in counted(trace, progress):
        nothing = [-1] * len(batch)
        columns = zip(
            batch.at_ns.tolist(), batch.request.tolist(), batch.client.tolist(), batch.status.tolist(),
            batch.took_ns.tolist(), batch.bytes.tolist(),
            nothing if batch.response is None else batch.response.tolist(),
            nothing if batch.first_byte_ns is None else batch.first_byte_ns.tolist(), strict=True,
        )  # fmt: skip
        for at_ns, request, client, status, took_ns, size, response, first_byte_ns in columns:
            answered = response_of(response) if response >= 0 else None
            yield Row(at_ns, get(request), client, status, took_ns, size, answered, first_byte_ns)


def headers_of(trace: Trace, request: Request) -> tuple[tuple[bytes, bytes], ...]:
    """Those with a value: a null one, as a record's may be, has no place in a request."""
    found = trace.requests.headers(request.headers) if request.headers >= 0 else ()
    return tuple((name, value) for name, value in found if value is not None)


def body_of(trace: Trace, request: Request) -> bytes:
    """The body of a request; empty where it has none."""
    return trace.requests.body(request.body) if request.body >= 0 else b""


def host_of(trace: Trace, request: Request) -> str:
    """The host of a request; empty where it has none."""
    return trace.requests.hosts[request.host] if request.host >= 0 else ""
