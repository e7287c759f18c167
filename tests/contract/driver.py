"""Runs one lane of either engine against a real server, and reads what it wrote down; accounts balance."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import trio

from replay.lane import native as lanes
from replay.lane.contract import Address, LaneSpec, Retry
from replay.lane.feed import FeedWriter
from replay.lane.keeping import NOTHING_KEPT
from replay.lane.resolve_replies import answer_resolve_requests
from replay.ledger.accounts import Accounts, balance
from replay.ledger.histogram import Histogram
from replay.protocols.http1.portable import lane as portable
from replay.protocols.http1.session_spec import SessionSpec
from replay.staging.sink import Sink
from replay_native.feed.resolve import make_resolve_rings
from replay_native.feed.ring import (
    EVALUATED,
    HEAD,
    IDEMPOTENT,
    PATCHES_SHIFT,
    STATUS_SHIFT,
    WARM_UP,
    make_feed,
)
from replay_native.http1.sessions import JAR_SLOT
from replay_native.keeping.responses import Keeping
from replay_native.ledger import lane_metrics
from replay_native.ledger.lane_metrics import (
    COUNTERS,
    OUTCOMES,
    TOTALS,
    Control,
    LaneMetrics,
    State,
    Stop,
)

MS_NS = 1_000_000
SECOND_NS = 1_000_000_000
LEAD_NS = 30 * MS_NS
"""Between pushing the first request and its due time."""

BOUND_S = 30.0
"""A lane that runs for longer is told to leave, and the test fails."""

METHODS_IDEMPOTENT = ("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE")
RunLane = Callable[[LaneSpec], Awaitable[None]]
During = Callable[["Driven", FeedWriter], Awaitable[None]]

ENGINES: dict[str, RunLane] = {"native": lanes.run_lane, "portable": portable.run_lane}
"""Both engines, for suites that hold them to one contract."""


@dataclass(frozen=True)
class Ask:
    """One request to be sent `at_ms` after the start; the value of each slot that it `takes` goes into a header."""

    path: str = "/"
    at_ms: float = 0.0
    method: str = "GET"
    body: bytes = b""
    route: int = 0
    warm_up: bool = False
    client: int = 0
    looked_at: bool = False
    takes: tuple[int, ...] = ()
    recorded_status: int = 0
    traceparent: bytes = b""

    @property
    def flags(self) -> int:
        head = HEAD if self.method == "HEAD" else 0
        idempotent = IDEMPOTENT if self.method in METHODS_IDEMPOTENT else 0
        looked_at = (EVALUATED if self.looked_at else 0) | self.recorded_status << STATUS_SHIFT
        return (
            head
            | idempotent
            | (WARM_UP if self.warm_up else 0)
            | looked_at
            | len(self.takes) << PATCHES_SHIFT
        )

    def render(self, seq: int) -> bytes:
        length = b"Content-Length: %d\r\n" % len(self.body) if self.body else b""
        head = f"{self.method} {self.path} HTTP/1.1\r\nHost: sink\r\nX-Replay: test-{seq}\r\n".encode()
        traced = b"traceparent: %s\r\n" % self.traceparent if self.traceparent else b""
        request, patches = bytearray(head + traced + length), b""
        for slot in self.takes:
            request += b"" if slot == JAR_SLOT else b"X-%d: " % slot
            patches += struct.pack("<ii", len(request), slot)
            request += b"" if slot == JAR_SLOT else b"\r\n"
        return bytes(request) + b"\r\n" + self.body + patches


@dataclass
class Driven:
    """What one lane did."""

    metrics: LaneMetrics
    spec: LaneSpec
    start_ns: int = 0
    took_s: float = 0.0
    accounts: Accounts = field(default_factory=Accounts)

    def __getitem__(self, counter: str) -> int:
        return int(self.metrics.counters[COUNTERS.index(counter)])

    @property
    def outcomes(self) -> dict[str, int]:
        """Outcomes that came, with their counts."""
        counted = {name: self[f"outcome_{name}"] for name in OUTCOMES}
        return {name: count for name, count in counted.items() if count}

    def counts(self, total: str) -> np.ndarray:
        counts: np.ndarray = self.metrics.totals[TOTALS.index(total)]
        return counts

    def count(self, total: str) -> int:
        return int(self.counts(total).sum())

    def percentile_ns(self, total: str, quantile: float) -> int:
        return Histogram(self.counts(total)).percentiles([100 * quantile])[0]

    def count_over(self, total: str, least_ns: int) -> int:
        """How many values are above, to the resolution of the histogram."""
        histogram = Histogram(self.counts(total))
        return int(histogram.counts[histogram.values() > least_ns].sum())

    def samples(self, kind: str, route: int = 0) -> np.ndarray:
        """The kept samples of a route: `slowest` or `failed`."""
        rows: np.ndarray = getattr(self.metrics, kind)[route]
        return rows[: getattr(self.metrics, f"{kind}_counts")[route]].copy()


async def drive(
    run_lane: RunLane,
    path: Path,
    asks: Iterable[Ask],
    port: int = 0,
    *,
    connections: int = 8,
    timeout_s: float = 5.0,
    max_wait_s: float = 5.0,
    closed_loop: bool = False,
    connect: Literal["pool", "per-client", "per-request"] = "pool",
    client_connections: int = 6,
    idle_timeout_s: float = 60.0,
    ordered: bool = False,
    retry: Retry | None = None,
    trace_seed: int = 0,
    clients: int = 64,
    lanes: int = 1,
    header_limit_bytes: int = 65_536,
    routes: int = 2,
    entries: int = 4_096,
    ring_bytes: int = 4 << 20,
    arena_bytes: int = lane_metrics.ARENA_BYTES,
    addresses: tuple[Address, ...] = (),
    lead_ns: int = LEAD_NS,
    during: During | None = None,
    ends: bool = True,
    killed: bool = False,
    number: int = 0,
    find_row: Callable[[], Awaitable[int]] | None = None,
    sessions: SessionSpec | None = None,
    keeping: Keeping = NOTHING_KEPT,
) -> Driven:
    """Push the requests at their times, run the lane to its end, check its accounts.

    `during` runs beside the lane and may stop it; with `ends` False it is what ends the feed. `killed` says
    that the lane was not asked to stop. `find_row` is asked for the address of each connection.
    """
    wake_fd, resolve_fd = (os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(2))
    try:
        spec = LaneSpec(
            metrics=lane_metrics.create(
                path / f"{time.monotonic_ns()}.lane",
                routes,
                arena_bytes,
                len(sessions.rules) if sessions else 0,
            ),
            feed=make_feed(entries, ring_bytes),
            wake_fd=wake_fd,
            addresses=addresses or (Address("127.0.0.1", port),),
            connections=connections,
            timeout_ns=round(timeout_s * SECOND_NS),
            max_wait_ns=round(max_wait_s * SECOND_NS),
            response_headers_bytes=header_limit_bytes,
            closed_loop=closed_loop,
            number=number,
            connect=connect,
            client_connections=client_connections,
            idle_timeout_ns=round(idle_timeout_s * SECOND_NS),
            ordered=ordered,
            retry=retry,
            trace_seed=trace_seed,
            clients=clients,
            lanes=lanes,
            resolve_rings=make_resolve_rings(connections if find_row is not None else 0),
            resolve_fd=resolve_fd,
            ask=find_row,
            sessions=sessions or SessionSpec(),
            keeping=keeping,
        )
        driven = Driven(spec.metrics, spec)
        await _run(run_lane, driven, list(asks), lead_ns, during, ends)
    finally:
        os.close(wake_fd)
        os.close(resolve_fd)
    check(driven, killed)
    return driven


async def _run(
    run_lane: RunLane, driven: Driven, asks: list[Ask], lead_ns: int, during: During | None, ends: bool
) -> None:
    writer = FeedWriter(driven.spec)
    ended = trio.Event()

    async def run() -> None:
        await run_lane(driven.spec)
        ended.set()

    async def feed() -> None:
        for seq, ask in enumerate(asks):
            due_ns = driven.start_ns + round(ask.at_ms * MS_NS)
            while not writer.push_nowait(
                due_ns, seq, ask.render(seq), client=ask.client, route=ask.route, flags=ask.flags
            ):
                writer.publish()
                await trio.sleep(0.005)
        if ends:
            writer.end()
        else:
            writer.publish()

    async with trio.open_nursery() as nursery:
        driven.start_ns = time.monotonic_ns() + lead_ns
        nursery.start_soon(feed)
        if driven.spec.ask is not None:
            nursery.start_soon(answer_resolve_requests, driven.spec, writer.wake)
        if during is not None:
            nursery.start_soon(during, driven, writer)
        nursery.start_soon(run)
        with trio.move_on_after(BOUND_S):
            await ended.wait()
        if not ended.is_set():
            writer.stop(Stop.ABANDON)
        nursery.cancel_scope.deadline = trio.current_time() + 2
    driven.took_s = (time.monotonic_ns() - driven.start_ns) / SECOND_NS
    assert ended.is_set(), "the lane did not end by itself"


def check(driven: Driven, killed: bool) -> None:
    """What holds after every run: accounts, histograms and route counts tell of the same requests."""
    driven.accounts, detail = balance([driven.metrics.counters], killed=killed)
    assert driven.metrics.control[Control.STATE] == State.ENDED
    assert driven["in_flight"] == 0 or killed or driven.metrics.control[Control.STOP]
    measured = driven.metrics.route_counts
    assert int(measured.sum()) + detail.warm_up == driven["planned"] - driven["in_flight"]
    if driven.spec.closed_loop:
        assert not any(
            driven.count(total) for total in TOTALS if total.split(".")[0] in ("response", "lateness", "wait")
        )
    else:
        assert driven.spec.ordered or driven.count("wait.order") == 0
        assert driven.count("wait.order") <= driven.count("wait.all")
        assert driven.count("response.all") == int(measured.sum())
        assert driven.count("lateness.all") == driven["planned"] - detail.warm_up
        assert driven.count("wait.all") == driven.count("wait.queue") + driven.count("wait.connect")
        if not driven["in_flight"]:
            assert driven.count("service.all") == driven.count("wait.all")
    if not detail.warm_up:
        assert driven.count("response.ok") == (0 if driven.spec.closed_loop else driven["ok"])
        by_outcome = {
            name: int(count) for name, count in zip(OUTCOMES, measured.sum(axis=0), strict=True) if count
        }
        assert by_outcome == driven.outcomes
    assert driven["slots_used"] <= driven.metrics.arena.shape[0]


by_tls = pytest.mark.parametrize("transport", ["plain", "tls"], indirect=True)
"""Over TLS as well."""


def stop_after(seconds: float, how: int) -> During:
    async def stop(_driven: Driven, writer: FeedWriter) -> None:
        await trio.sleep(seconds)
        writer.stop(how)

    return stop


FAULTS_IN_ORDER = {
    "": "2xx", "delay_ms=5": "2xx", "close": "2xx", "close_silently": "2xx", "hang_up_reused": "2xx",
    "reset": "reset", "hang_up": "truncated", "garbage": "malformed", "never": "timeout", "status=503": "5xx",
}  # fmt: skip
"""What any mix of clients may ask the sink for, and the outcome it must have."""


def turns(sink: Sink, asks: list[Ask]) -> dict[int, list[int]]:
    """The sequence numbers that arrived, in the order of their arrival, by client."""
    found: dict[int, list[int]] = {}
    for seq in sink.stamps()["seq"].tolist():
        found.setdefault(asks[seq].client, []).append(seq)
    return found
