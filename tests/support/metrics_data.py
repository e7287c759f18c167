"""Lanes' memory filled through the real kernels, as a lane would: for tests of what is made from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from replay.engine.recording import Recording
from replay.results.document import (
    ClockPair,
    Recorded,
    RecordedClock,
    RouteStart,
    Started,
)
from replay.results.folder import RunFolder
from replay.results.timeline import Second
from replay_native.feed.ring import STATUS_SHIFT, WARM_UP
from replay_native.ground.jit import warm
from replay_native.ledger import lane_metrics, record
from replay_native.ledger.lane_metrics import (
    OUTCOMES,
    REFUSED,
    C,
    LaneMetrics,
)

MS = 1_000_000
S = 1_000_000_000
START = ClockPair(monotonic_ns=5_000 * S, wall_ns=1_790_000_000 * S + 123_456_789)
CLOCK = RecordedClock(start_ns=1_600_000_000 * S, speed=60.0, utc_offset_s=7_200)
ROUTES = ["GET /users/{id}", "POST /v1/users", "GET /a,b c%"]
MAX_WAIT_NS = 10 * S

warm(["ledger.hdr", "ledger.record"])


def started(routes: list[str] = ROUTES, named: list[RouteStart] | None = None, **more: Any) -> Started:
    recorded = Recorded(count=100, statuses={"2xx": 99, "5xx": 1}, p50_ns=3 * MS, p99_ns=40 * MS)
    given: dict[str, Any] = {
        "start": START,
        "max_wait_ns": MAX_WAIT_NS,
        "recorded_clock": CLOCK,
        "target": "http://127.0.0.1:8080",
    }
    return Started(routes=named or [RouteStart(name, recorded) for name in routes], **(given | more))


@dataclass
class Lane:
    """One lane that is told what becomes of each request."""

    metrics: LaneMetrics
    closed_loop: bool = False
    seq: int = 0
    responses: list[tuple[int, str, int]] = field(default_factory=list)

    def request(
        self,
        route: int = 0,
        outcome: str = "2xx",
        *,
        due_ms: float = 0.0,
        late_ms: float = 0.02,
        wait_ms: float = 0.01,
        service_ms: float = 2.0,
        warm_up: bool = False,
        status: int = 0,
        recorded: int = 0,
    ) -> int:
        """One request from due to done; returns its response in ns. `recorded` is its recorded status."""
        flags = (WARM_UP if warm_up else 0) | recorded << STATUS_SHIFT
        due = START.monotonic_ns + round(due_ms * MS)
        taken = due + round(late_ms * MS)
        sent = taken + round(wait_ms * MS)
        done = sent + round(service_ms * MS)
        code = OUTCOMES.index(outcome)
        first_byte = done - 1 if code < REFUSED else -1
        if self.metrics.counters[C.planned] == 0:
            self.metrics.counters[C.first_due_ns] = due
        record.record_taken(self.metrics, flags, taken - due, self.closed_loop)
        record.record_attempt(self.metrics)
        record.record_sent(self.metrics, flags, sent - taken, 0, False, self.closed_loop)
        status = status or (204 + 100 * code if code < REFUSED else 0)
        request = record.Request(flags, route, self.seq, 7, due, taken)
        ending = record.Ending(code, status, 150, sent, first_byte, done)
        record.record_done(self.metrics, request, ending, self.closed_loop)
        self.seq += 1
        if not warm_up:
            self.responses.append((route, outcome, done - due))
        return done - due

    def unsent(self, route: int = 0, reason: str = "max_wait", *, due_ms: float = 0.0) -> None:
        """One request that is never attempted."""
        due = START.monotonic_ns + round(due_ms * MS)
        record.record_taken(self.metrics, 0, 0, self.closed_loop)
        request = record.Request(0, route, self.seq, 7, due, due)
        record.record_unsent(self.metrics, getattr(C, f"unsent_{reason}"), request, MAX_WAIT_NS)
        self.seq += 1
        self.responses.append((route, "unsent", MAX_WAIT_NS))

    def many(self, count: int, seed: int = 1, **more: Any) -> None:
        """Requests a millisecond apart with lognormal service times."""
        services = np.random.default_rng(seed).lognormal(0.7, 0.6, count)
        for at, service_ms in enumerate(services):
            self.request(at % 3, due_ms=float(at), service_ms=float(service_ms), **more)


@dataclass
class Trial:
    """A run folder in the making, with its lanes."""

    folder: RunFolder
    lanes: list[Lane]
    recorder: Recording

    @property
    def all_metrics(self) -> list[LaneMetrics]:
        return [lane.metrics for lane in self.lanes]


class MadeRecording(Recording):
    """Its figures come from the lanes alone: what this machine does to the threads of a test is no part of them."""

    def tick(self, now_ns: int, **more: Any) -> Second:
        second = super().tick(now_ns, **more)
        if self._ended is not None:
            self._ended = self._ended._replace(load=self._load)
        return second

    def _run_delay(self) -> None:
        return None


def trial(path: Path, lanes: int = 1, arena_bytes: int = lane_metrics.ARENA_BYTES, **more: Any) -> Trial:
    start = started(**more)
    folder = RunFolder.create(path)
    made = []
    for number in range(lanes):
        metrics = lane_metrics.create(folder.lane(number), len(start.routes), arena_bytes, len(start.rules))
        made.append(Lane(metrics, start.closed_loop, seq=number * 1_000_000))
    return Trial(folder, made, MadeRecording(folder, [lane.metrics for lane in made], start))


def at_s(seconds: float) -> int:
    """A reading of the clock, seconds after the start."""
    return START.monotonic_ns + round(seconds * S)
