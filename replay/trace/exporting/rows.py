"""The events of a trace one by one, with requests and recorded responses, for exporters of whole messages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from replay.trace import Batch, RecordedResponse, Request, Trace, with_requests
from replay.trace.manifest import CUT_BODY_MARK

Progress = Callable[[int, int], None]
"""Called with (rows done, rows in all)."""

NO_HOST = "localhost"
"""The host used in the URL if the request has none."""


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


def counted(trace: Trace, progress: Progress) -> Iterator[Batch]:
    """The events in batches whose requests are loaded."""
    done = 0
    for batch in with_requests(trace.batches(), trace.requests):
        yield batch
        done += len(batch)
        progress(done, trace.rows)


def rows(trace: Trace, progress: Progress) -> Iterator[Row]:
    """All events whose requests were recorded with their whole body."""
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
    """Headers with a value: a null value (possible in Kafka records) cannot be sent in a request."""
    found = trace.requests.headers(request.headers) if request.headers >= 0 else ()
    return tuple((name, value) for name, value in found if value is not None)


def body_of(trace: Trace, request: Request) -> bytes:
    """The body of a request; empty if it has none."""
    return trace.requests.body(request.body) if request.body >= 0 else b""


def host_of(trace: Trace, request: Request) -> str:
    """The host of a request; empty if it has none."""
    return trace.requests.hosts[request.host] if request.host >= 0 else ""
