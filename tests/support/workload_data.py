"""Traces that the workload tests transform: small ones of known make, and recorded ones where they are there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from replay.trace import Trace, TraceWriter
from tests.support.places import SHARED_TRACES

SHARED = SHARED_TRACES

START_NS = 1_700_000_000_000_000_000
NS = 1_000_000_000

SESSION = (("GET", b"/v1/profile"), ("GET", b"/v1/training/plans"), ("PUT", b"/v1/training/sessions/7"))
REGISTRATION = (("GET", b"/register"), ("POST", b"/v1/users"), ("GET", b"/v1/profile"))


def azure(path: Path, service: str = "code") -> Trace:
    """The recorded arrivals of an LLM service, in an hour of 2023."""
    source = SHARED / f"azure-llm-{service}-2023-11-16.csv"
    if not source.exists():
        pytest.skip(f"{source.name} is not there")
    stamps = [line.split(",")[0].replace(" ", "T") for line in source.read_text().splitlines()[1:] if line]
    at_ns = np.sort(np.array(stamps, "datetime64[ns]").astype(np.int64))
    with TraceWriter(path) as writer:
        writer.manifest.resolution_ns = 100
        request = writer.add_request("POST", b"/v1/chat")
        writer.add_events(
            at_ns, np.full(len(at_ns), request, np.uint32), (np.arange(len(at_ns)) % 50).astype(np.uint32)
        )
    assert writer.trace is not None
    return writer.trace


def fitness(path: Path, sessions: int = 300, seed: int = 1) -> Trace:
    """Sessions of a fitness app, each a client of its own; one in five is a registration."""
    random = np.random.default_rng(seed)
    with TraceWriter(path) as writer:
        for client, starts_s in enumerate(np.sort(random.uniform(0, 3_600, sessions))):
            steps = REGISTRATION if client % 5 == 0 else SESSION
            pauses = np.cumsum(random.exponential(20, len(steps)))
            at_ns = START_NS + ((starts_s + pauses) * NS).astype(np.int64)
            requests = [writer.add_request(method, target) for method, target in steps]
            writer.add_events(at_ns, np.array(requests, np.uint32), np.full(len(steps), client, np.uint32))
    assert writer.trace is not None
    return writer.trace


def columns(trace: Trace) -> dict[str, np.ndarray]:
    """All events of a trace."""
    batches = list(trace.batches())
    names = ("at_ns", "request", "client", "status", "took_ns", "bytes")
    return {name: np.concatenate([getattr(batch, name) for batch in batches]) for name in names}


def route_rows(trace: Trace) -> dict[str, int]:
    """Rows by route."""
    return {route.route: route.rows for route in trace.manifest.routes}
