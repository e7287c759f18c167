"""`run.json`: what a run says of itself, versioned. `docs/run-format.md` holds the schema made from these
Structs.

Times are int64 nanoseconds (`_ns`) or seconds (`_s`); wall clock is ns since the epoch. Names are kept within
a version.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from replay.errors import InputError
from replay.ledger.accounts import Accounts, AccountsDetail
from replay.ledger.host import Host, RunDelay
from replay.ledger.statuses import StatusFigures
from replay.ledger.validity import Validity, ValidityLimits

FORMAT_VERSION = 1

EngineName = Literal["native", "portable", "kafka", "mixed"]
"""`mixed` where a run has targets of several kinds."""

EndedHow = Literal["whole", "interrupted", "killed", "circuit_breaker", "not_allowed", "failed"]


class ClockPair(msgspec.Struct, frozen=True):
    """One instant on both clocks: CLOCK_MONOTONIC, of every stamp, and ns since the epoch."""

    monotonic_ns: int
    wall_ns: int


class RecordedClock(msgspec.Struct, frozen=True, kw_only=True):
    """How the recorded clock runs: recorded = start_ns + (due - start of the run) * speed. `utc_offset_s` is
    the log's zone.
    """

    start_ns: int
    speed: float
    utc_offset_s: int = 0


class TraceIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """Which recording was replayed. Runs of the same digest can be compared. `rejected` counts, by reason, the lines of the
    log that could not be read, of `lines` in all (blank lines and headers aside); they are in neither rows nor window.
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
    """What the recording says of a route: how many, their status classes, and how long they took (null: not
    recorded).
    """

    count: int
    statuses: dict[str, int] = {}
    p50_ns: int | None = None
    p99_ns: int | None = None


class RouteStart(msgspec.Struct, frozen=True):
    """A route as the plan knows it; `action` is the business action that it belongs to, empty for none."""

    name: str
    recorded: Recorded | None = None
    action: str = ""


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How the run ended; `detail` is a sentence for whoever reads it, `at_s` counts from the start."""

    how: EndedHow = "whole"
    detail: str = ""
    at_s: float = 0.0


class Note(msgspec.Struct, frozen=True):
    """Something worth knowing that is no fault, such as CONNECTION_LIMITED."""

    code: str
    message: str


class TlsPeer(msgspec.Struct, frozen=True, kw_only=True):
    """Who answered by TLS before the run, and how connections are secured. `certificate` lists what the target's is for
    (empty: nothing was verified); `ca` and `client_certificate` are the files given. `asks_certificate`: the target asked
    for a client's.
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
    """One target of a run: its lanes follow those of the targets before it. `tick_ns` is lateness by design; `tls` is
    who answered by TLS, `portable_because` why native lanes can't run.
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
    """What is known when the first request is due: kept as `started.json`, so that a killed run can be
    rebuilt from it. `consumed` names the histograms that a Kafka consumer fills, `rules` the captures and
    checks.
    """

    start: ClockPair
    routes: list[RouteStart]
    max_wait_ns: int
    closed_loop: bool = False
    engine: EngineName = "native"
    target: str = ""
    targets: list[TargetStart] = []
    run_id: str = ""
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


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """One histogram in figures. Those named in `at_least` are lower bounds: they fall among requests never
    sent, or they are an hour, the highest value that a histogram tells apart.

    Percentiles follow Java's rule (`replay.ledger.percentiles`).
    """

    count: int
    min_ns: int
    mean_ns: float
    stdev_ns: float
    p50_ns: int
    p90_ns: int
    p95_ns: int
    p99_ns: int
    p99_9_ns: int
    p99_99_ns: int
    max_ns: int
    at_least: list[str] = []


class Latencies(msgspec.Struct, frozen=True, kw_only=True):
    """Latencies over all routes (docs/lane-contract.md says what each is). A closed loop has `service` and
    `first_byte` alone; handshakes are there where TLS made any; `end_to_end` (due to consumed) and `answer` (due to a
    pipeline's answer consumed) are of Kafka where they were consumed.
    """

    service: Latency
    first_byte: Latency
    response: Latency | UnsetType = UNSET
    response_ok: Latency | UnsetType = UNSET
    lateness: Latency | UnsetType = UNSET
    wait: Latency | UnsetType = UNSET
    wait_queue: Latency | UnsetType = UNSET
    wait_connect: Latency | UnsetType = UNSET
    handshake_full: Latency | UnsetType = UNSET
    handshake_resumed: Latency | UnsetType = UNSET
    end_to_end: Latency | UnsetType = UNSET
    answer: Latency | UnsetType = UNSET
    wait_order: Latency | UnsetType = UNSET


class RuleFigures(msgspec.Struct, frozen=True, kw_only=True):
    """A capture or check: how often it found its value or held, and how often it did not. Of those missed `refused` were
    links that could leave their place on the target.
    """

    rule: str
    good: int
    missed: int
    refused: int = 0


class SessionFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What was taken from answers, and held against them. `checked` answers had `mismatches` among them (without warm-up);
    `answers_cut` were longer than is looked at; `cookies_cut` found no room in their client's jar.
    """

    rules: list[RuleFigures]
    checked: int = 0
    mismatches: int = 0
    answers_cut: int = 0
    cookies_cut: int = 0


class RouteFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One route: requests by outcome, its share of all, latencies over all its outcomes (null: none), and the
    recording's; and the business action that it belongs to. Of an action as a whole `route` is its name. `worse` responses
    have a worse status than recorded.
    """

    route: str
    count: int
    share: float
    outcomes: dict[str, int]
    response: Latency | None = None
    service: Latency | None = None
    recorded: Recorded | None = None
    action: str = ""
    checked: int = 0
    mismatches: int = 0
    worse: int = 0


class Delays(msgspec.Struct, frozen=True, kw_only=True):
    """What the generator delayed itself (docs/lane-contract.md): sums over the lanes, `gap_max_ns` of the worst one. The
    `_net` latencies are those without these delays, `response_arrived` is up to the arrival of the response (null: not
    known).
    """

    sends_postponed: int = 0
    sends_postponed_ns: int = 0
    dials_postponed: int = 0
    dials_postponed_ns: int = 0
    reads_late: int = 0
    reads_late_ns: int = 0
    gaps: int = 0
    gaps_ns: int = 0
    gap_max_ns: int = 0
    lost_ns: int = 0
    unsent_own: int = 0
    response_net: Latency | None = None
    service_net: Latency | None = None
    response_arrived: Latency | None = None


class Generator(msgspec.Struct, frozen=True, kw_only=True):
    """What sending took. CPU seconds count from the first due to the last done, by thread clocks; memory is of the whole
    process.
    """

    engine: EngineName
    lanes: int
    cpu_s: float
    lanes_cpu_s: float
    control_cpu_s: float
    busy_share: float
    underruns: int = 0
    throttled_share: float | None = None
    steal_share: float | None = None
    run_delay: RunDelay | None = None
    delays: Delays | None = None
    peak_rss_bytes: int | None = None


class Connections(msgspec.Struct, frozen=True, kw_only=True):
    """Connections of all lanes. `open_max` and `waiting_max` are sums of the lanes' own maxima."""

    opened: int = 0
    failed: int = 0
    closed_by_target: int = 0
    open_max: int = 0
    waiting_max: int = 0
    cap_bound: int = 0
    idle_closed: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0


class Retries(msgspec.Struct, frozen=True, kw_only=True):
    """What trying again came to. `amplification` is requests at the target for each request of a user (`sent` of the
    accounts); `denied` retries had no budget left.
    """

    at_target: int
    amplification: float
    retries: int
    retried: int
    denied: int


class WindowsHeld(msgspec.Struct, frozen=True, kw_only=True):
    """The windows of an objective `over` so long, in which anything ended: how many there were, how many failed it, and
    when the worst one began (whose figure is the outcome's `value`).
    """

    count: int
    failed: int
    worst_at_s: float


class AddressFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What the lanes did with one address (docs/lane-contract.md, the address table). `drained` connections were closed
    because the target's name no longer had it; `removed`: it had not at the end.
    """

    address: str
    port: int
    connects: int
    connects_failed: int
    requests: int
    errors: int
    drained: int = 0
    removed: bool = False


class AddressChange(msgspec.Struct, frozen=True, kw_only=True):
    """A name's addresses changed in mid-run; `at_s` counts from the start."""

    at_s: float
    added: list[str] = []
    removed: list[str] = []
    refused: list[str] = []


class NameFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What looking the target's name up took, from before the start to the end. `answers` counts queries by what came
    back: NOERROR, NXDOMAIN, SERVFAIL, timeout, unanswered (at the end). `changes` are the first 100 of `changed`;
    `refused` in them are addresses that are not allowed, and were not connected to. `left_out` took no connection before
    the start; `no_room` counts those past the most that lanes keep.
    """

    name: str
    resolve: str
    source: str
    ttl_s: int | None = None
    lookups: int = 0
    lookups_failed: int = 0
    queries: int = 0
    answers: dict[str, int] = {}
    lookup_mean_ns: int = 0
    lookup_max_ns: int = 0
    changed: int = 0
    changes: list[AddressChange] = []
    left_out: list[str] = []
    no_room: int = 0
    failed_at_s: float | None = None
    failure: str = ""


class TlsFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What only TLS has: the peer, and handshakes by how they went. Those that timed out have failed, too."""

    peer: TlsPeer
    handshakes_full: int = 0
    handshakes_resumed: int = 0
    handshakes_failed: int = 0


class SloOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """One service level objective against this run. ns or a share; null where nothing was measured (which
    fails). `windows`: null where it is of the whole run.
    """

    slo: str
    passed: bool
    value: float | None
    limit: float
    unit: Literal["ns", "share"]
    at_least: bool = False
    windows: WindowsHeld | None = None


class KafkaPartition(msgspec.Struct, frozen=True, kw_only=True):
    """One partition written to: records acknowledged, and how far its end moved over the run (null: not asked)."""

    topic: str
    partition: int
    acknowledged: int
    moved: int | None = None


class Consumed(msgspec.Struct, frozen=True, kw_only=True):
    """What was waited for at the consuming end: records that came, and those that did not until the end. These are in
    the histogram with the time they had been waited for, from `at_least_ns` on. `strange` answers were no record's.
    """

    count: int
    missing: int = 0
    at_least_ns: int | None = None
    strange: int = 0


class KafkaFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What only Kafka has. `errors` counts records by the broker's word for why they failed; `late` ones were
    acknowledged after their time-out. `offsets_agree`: acknowledged <= moved <= acknowledged + failed + in flight;
    null where the offsets could not be read. `missing` is how many acknowledged records their partitions' ends do not
    cover: those were lost. `consumed` by histogram (`end_to_end`, `answer`); `lag_max` is the
    consumer's greatest lag by partition, in records; `consumer` is why it ended early. `hosts_refused` are those that
    the cluster led to in mid-run and that are not allowed: nothing was sent there.
    """

    brokers: str
    settings: dict[str, Any] = {}
    partitions: list[KafkaPartition] = []
    errors: dict[str, int] = {}
    late: int = 0
    offsets_agree: bool | None = None
    missing: int = 0
    consumed: dict[str, Consumed] = {}
    lag_max: dict[str, int] = {}
    consumer: str = ""
    hosts_refused: list[str] = []


class TargetFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One target of a run that has several."""

    target: str
    engine: EngineName
    lanes: int
    accounts: Accounts
    latency: Latencies
    kafka: KafkaFigures | None = None
    tls: TlsFigures | None = None


class RunDocument(msgspec.Struct, frozen=True, kw_only=True):
    """The whole of run.json. Where a run has several targets all figures are over all of them, `targets` has those of
    each; `kafka` and `tls` are those of the first that has any.
    """

    format_version: int = FORMAT_VERSION
    replay_version: str
    run_id: str = ""
    started_at: str
    ended_at: str
    start: ClockPair
    duration_s: float
    interrupted: bool
    ending: Ending
    closed_loop: bool
    target: str
    trace: TraceIdentity | None = None
    recorded_clock: RecordedClock | None = None
    rows_in_window: int = 0
    accounts: Accounts
    accounts_detail: AccountsDetail
    validity: Validity
    status_differs: StatusFigures | None = None
    notes: list[Note] = []
    latency: Latencies
    routes: list[RouteFigures]
    actions: list[RouteFigures] = []
    generator: Generator
    connections: Connections
    retries: Retries | None = None
    slo: list[SloOutcome] = []
    kafka: KafkaFigures | None = None
    targets: list[TargetFigures] = []
    addresses: list[AddressFigures] = []
    names: list[NameFigures] = []
    tls: TlsFigures | None = None
    sessions: SessionFigures | None = None
    max_wait_ns: int
    scenario: dict[str, Any] = {}
    plan: dict[str, Any] = {}
    host: Host


def actions_of(named: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """The routes of each business action, from (route, action)."""
    actions: dict[str, list[str]] = {}
    for route, action in named:
        if action:
            actions.setdefault(action, []).append(route)
    return actions


class _Version(msgspec.Struct):
    format_version: int


def refuse_newer(path: Path, data: bytes) -> None:
    """InputError where a newer replay wrote `data`; msgspec.DecodeError where it holds no version."""
    version = msgspec.json.decode(data, type=_Version).format_version
    if version > FORMAT_VERSION:
        raise InputError(
            f"{path} has format version {version}; this replay reads up to {FORMAT_VERSION}",
            hint="install a newer replay",
        )
