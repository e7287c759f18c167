"""The events of a trace as plain values, for tests to compare."""

from __future__ import annotations

from typing import NamedTuple

from replay.trace import Trace


class Event(NamedTuple):
    """One recorded request."""

    at_ns: int
    method: str
    target: bytes
    host: str = ""
    status: int = -1
    took_ns: int = -1
    bytes: int = -1


def events(trace: Trace) -> list[Event]:
    """Every event, in time order."""
    found = []
    requests = trace.requests
    for batch in trace.batches():
        for at_ns, request, status, took_ns, size in zip(
            batch.at_ns, batch.request, batch.status, batch.took_ns, batch.bytes, strict=True
        ):
            asked = requests.get(int(request))
            host = requests.hosts[asked.host] if asked.host >= 0 else ""
            method = requests.methods[asked.method]
            found.append(Event(int(at_ns), method, asked.target, host, int(status), int(took_ns), int(size)))
    return found
