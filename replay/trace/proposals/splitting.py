"""Splits clients into sessions.

People who share an address are distinguished by the values that they send and receive.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from replay.trace import DerivedTraceWriter, Trace

from .events import Event, read_events
from .values import Given, Sent

IsSent = Callable[[int, Sent], bool]
"""A function that returns whether a value sent to a route identifies its session."""

IsGiven = Callable[[int, Given], bool]
"""A function that returns whether a value issued by a route identifies its session."""

_FIRST = {"header": 0, "cookie": 0}
"""The order in which kinds of values are tried: credentials are stronger evidence than requested ids."""


class Splitter:
    """Numbers sessions by first appearance.

    A request belongs to the session of its client that first sent, or last received, one of its values. All requests of
    a client without such values belong to one further session.
    """

    def __init__(self, is_sent: IsSent, is_given: IsGiven) -> None:
        self._is_sent, self._is_given = is_sent, is_given
        self._of_value: dict[tuple[int, str], int] = {}
        self._rest: dict[int, int] = {}
        self.count = 0

    def session(self, event: Event) -> int:
        """Return the number of the session to which the next event belongs."""
        sent = [one for one in event.sent if self._is_sent(event.route, one)]
        sent.sort(key=lambda one: _FIRST.get(one.kind, 1))
        given = [one.value for one in event.given if self._is_given(event.route, one)]
        known = (self._of_value.get((event.client, one.value)) for one in sent)
        session = next((number for number in known if number is not None), None)
        if session is None:
            session = self._new() if sent or given else self._rest_of(event.client)
        for one in sent:
            self._of_value.setdefault((event.client, one.value), session)
        for value in given:
            self._of_value[event.client, value] = session
        return session

    def _new(self) -> int:
        self.count += 1
        return self.count - 1

    def _rest_of(self, client: int) -> int:
        if client not in self._rest:
            self._rest[client] = self._new()
        return self._rest[client]


def split_trace(trace: Trace, out: Path, splitter: Splitter) -> Trace:
    """Write a copy of the trace to `out` in which each session is a client, and return it."""
    with DerivedTraceWriter(out, trace, [{"transform": "split_clients"}]) as writer:
        for batch, events in read_events(trace):
            client = np.fromiter((splitter.session(event) for event in events), np.uint32, len(batch))
            writer.add_batch(batch.taken(lambda column: column, client=client), in_order=True)
    assert writer.trace is not None
    return writer.trace


def sessions_of(events: Iterator[Event], splitter: Splitter) -> Iterator[Event]:
    """Yield the events with their sessions as clients."""
    for event in events:
        yield event._replace(client=splitter.session(event))
