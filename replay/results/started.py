"""The facts known when a run's first request is due (`started.json`).

Times are int64 nanoseconds (`_ns`) or seconds (`_s`); wall clock times are ns since the epoch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from replay.ledger.host import Host
from replay.ledger.validity import ValidityLimits

FORMAT_VERSION = 1

EngineName = Literal["native", "portable", "kafka", "mixed"]
"""The engine of a run or a target. It is `mixed` if a run has targets of several kinds."""


class ClockPair(msgspec.Struct, frozen=True):
    """One instant on both clocks: CLOCK_MONOTONIC, which all stamps use, and the wall clock in ns since the epoch."""

    monotonic_ns: int
    wall_ns: int


class RecordedClock(msgspec.Struct, frozen=True, kw_only=True):
    """How the recorded clock runs: recorded = start_ns + (due - start of the run) * speed.

    `utc_offset_s` is the time zone of the log.
    """

    start_ns: int
    speed: float
    utc_offset_s: int = 0


class TraceIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """The recording that was replayed.

    Runs with the same digest can be compared. `lines` counts the lines of the log, without blank lines and headers.
    `rejected` counts, by reason, the lines that could not be read; they are in neither `rows` nor the window.
    """

    path: str
    digest: str
    rows: int
    first_at_ns: int
    last_at_ns: int
    utc_offset_s: int = 0
    lines: int = 0
    rejected: dict[str, int] = {}


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """The recorded figures of a route: number of requests, status classes, durations (null: not recorded)."""

    count: int
    statuses: dict[str, int] = {}
    p50_ns: int | None = None
    p99_ns: int | None = None


class RouteStart(msgspec.Struct, frozen=True):
    """A route of the plan.

    `action` is its business action, or empty. `traced`: its requests have a traceparent.
    """

    name: str
    recorded: Recorded | None = None
    action: str = ""
    traced: bool = False


class TlsPeer(msgspec.Struct, frozen=True, kw_only=True):
    """The server that answered a TLS handshake before the run, and how connections are secured.

    `certificate` lists the names in the target's certificate (empty: not verified). `ca` and `client_certificate` are
    the given files. `asks_certificate`: the target asked for a client certificate.
    """

    server_name: str
    version: str = ""
    cipher: str = ""
    verified: bool = True
    ca: str = ""
    client_certificate: str = ""
    asks_certificate: bool = False
    certificate: str = ""
    expires: str = ""


class TargetStart(msgspec.Struct, frozen=True, kw_only=True):
    """One target of a run.

    Its lanes follow those of the targets before it. `tick_ns` is the lateness by design, `tls` the TLS peer, and
    `portable_because` the reason why native lanes cannot run.
    """

    target: str
    engine: EngineName = "native"
    lanes: int = 1
    tick_ns: int = 0
    rows_in_window: int = 0
    skipped: dict[str, int] = {}
    tls: TlsPeer | None = None
    portable_because: str = ""


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """The facts known when the first request is due.

    They are stored as `started.json`, from which a killed run is recovered. `consumed` lists the histograms that a
    Kafka consumer fills, `rules` the captures and checks. Two runs that sent at the same instants have the same
    `together` (`replay ab --together`).
    """

    start: ClockPair
    routes: list[RouteStart]
    max_wait_ns: int
    closed_loop: bool = False
    engine: EngineName = "native"
    target: str = ""
    targets: list[TargetStart] = []
    run_id: str = ""
    together: str = ""
    name: str = ""
    build: str = ""
    trace: TraceIdentity | None = None
    recorded_clock: RecordedClock | None = None
    rows_in_window: int = 0
    scenario: dict[str, Any] = {}
    plan: dict[str, Any] = {}
    skipped: dict[str, int] = {}
    slo: list[str] = []
    consumed: list[str] = []
    rules: list[str] = []
    limits: ValidityLimits = ValidityLimits()
    host: Host = Host()
    format_version: int = FORMAT_VERSION


def actions_of(named: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Return the routes of each business action, from (route, action) pairs."""
    actions: dict[str, list[str]] = {}
    for route, action in named:
        if action:
            actions.setdefault(action, []).append(route)
    return actions
