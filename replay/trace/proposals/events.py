"""Reads the events of a trace with the values that requests sent and that responses issued."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from replay.trace import Batch, Trace

from .values import Given, Sent, given_by, is_common, sent_by

FAILED = 400
"""Responses with this status or a higher one are taken to issue no values."""


class Event(NamedTuple):
    """One event of the trace, with the values that its request sent and that its response issued."""

    client: int
    route: int
    sent: list[Sent]
    given: list[Given]


def read_events(trace: Trace) -> Iterator[tuple[Batch, Iterator[Event]]]:
    """Yield each batch of a trace with an iterator over its events. Common values (`is_common`) are left out."""
    requests = trace.requests

    @lru_cache(1 << 16)
    def sent(index: int) -> tuple[int, list[Sent]]:
        request = requests.get(index)
        headers = requests.headers(request.headers) if request.headers >= 0 else ()
        body = requests.body(request.body) if request.body >= 0 else b""
        values = [
            one
            for one in sent_by(request.target.decode("latin-1"), headers, body)
            if not is_common(one.value)
        ]
        return request.route, values

    @lru_cache(1 << 14)
    def given(index: int) -> list[Given]:
        return [one for one in given_by(trace.responses.get(index)) if not is_common(one.value)]

    def events(batch: Batch) -> Iterator[Event]:
        responses = [-1] * len(batch) if batch.response is None else batch.response.tolist()
        columns = zip(
            batch.request.tolist(), batch.client.tolist(), batch.status.tolist(), responses, strict=True
        )
        for request, client, status, response in columns:
            route, values = sent(request)
            yield Event(client, route, values, given(response) if response >= 0 and status < FAILED else [])

    for batch in trace.batches():
        yield batch, events(batch)
