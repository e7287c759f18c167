"""Iterates over the events of a trace with their requests and responses, for exporters that write whole messages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from replay.trace import Batch, RecordedResponse, Request, Trace, with_requests
from replay.trace.manifest import CUT_BODY_MARK

Progress = Callable[[int, int], None]
"""A function that reports progress; it gets the number of rows done and the total number."""

NO_HOST = "localhost"
"""The host that an exported URL has if the request has none."""


class Row(NamedTuple):
    """One event with its request and response. In the numeric fields, -1 is unknown."""

    at_ns: int
    request: Request
    client: int
    status: int
    took_ns: int
    size: int
    response: RecordedResponse | None
    first_byte_ns: int


def counted(trace: Trace, progress: Progress) -> Iterator[Batch]:
    """Yield the events in batches whose requests are loaded, and report progress after each batch."""
    done = 0
    for batch in with_requests(trace.batches(), trace.requests):
        yield batch
        done += len(batch)
        progress(done, trace.rows)


def rows(trace: Trace, progress: Progress) -> Iterator[Row]:
    """Yield all events, except those whose request was recorded without its whole body."""
    get, response_of = trace.requests.get, trace.responses.get
    cut = {number for number, method in enumerate(trace.requests.methods) if method.endswith(CUT_BODY_MARK)}
    for batch in counted(trace, progress):
        nothing = [-1] * len(batch)
        columns = zip(
            batch.at_ns.tolist(), batch.request.tolist(), batch.client.tolist(), batch.status.tolist(),
            batch.took_ns.tolist(), batch.bytes.tolist(),
            nothing if batch.response is None else batch.response.tolist(),
            nothing if batch.first_byte_ns is None else batch.first_byte_ns.tolist(), strict=True,
        )  # fmt: skip
        for at_ns, request, client, status, took_ns, size, response, first_byte_ns in columns:
            asked = get(request)
            if asked.method in cut:
                continue
            answered = response_of(response) if response >= 0 else None
            yield Row(at_ns, asked, client, status, took_ns, size, answered, first_byte_ns)


def headers_of(trace: Trace, request: Request) -> tuple[tuple[bytes, bytes], ...]:
    """Return the headers of a request that have a value.

    A null value, which Kafka records may have, cannot be sent in an HTTP request.
    """
    found = trace.requests.headers(request.headers) if request.headers >= 0 else ()
    return tuple((name, value) for name, value in found if value is not None)


def body_of(trace: Trace, request: Request) -> bytes:
    """Return the body of a request, or b"" if it has none."""
    return trace.requests.body(request.body) if request.body >= 0 else b""


def host_of(trace: Trace, request: Request) -> str:
    """Return the host of a request, or "" if it has none."""
    return trace.requests.hosts[request.host] if request.host >= 0 else ""
