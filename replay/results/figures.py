"""The parts of run.json that hold figures: routes, sessions, the generator, connections, names, objectives, Kafka."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from replay.ledger.accounts import Accounts
from replay.ledger.host import RunDelay

from .latencies import Latencies, Latency
from .started import EngineName, Recorded, TlsPeer, TraceIdentity


class RuleFigures(msgspec.Struct, frozen=True, kw_only=True):
    """A capture or check: how often it found its value or passed (`good`), and how often not (`missed`).

    Of those missed, `refused` counts links that a capture refused because a request to them could leave the target.
    """

    rule: str
    good: int
    missed: int
    refused: int = 0


class SessionFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Results of captures and checks on responses.

    Of the `checked` responses, `mismatches` failed a check; both are without the warm-up. `answers_cut` counts
    responses longer than the limit, `cookies_cut` cookies that did not fit into a jar.
    """

    rules: list[RuleFigures]
    checked: int = 0
    mismatches: int = 0
    answers_cut: int = 0
    cookies_cut: int = 0


class SourceFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The source of a followed run.

    Each of its `entries` was replayed, or is counted as `late_at_source` (read after it was due), `not_due` (due
    after the end) or `skipped`, by reason. So planned = entries - late_at_source - not_due - skipped + `copies` (made
    by `scale`). Of the late ones, `before_start` were due before the run could send. With a delay of
    `needed_delay_ns`, 99.9% of the entries would have been in time; with `needed_delay_max_ns`, all of them. `lines`
    and `rejected` count the lines read while following. `rotations` and `truncations` count changes of the file,
    `own_requests` entries that look like requests of this run. `silent_max_s` is the longest time without an entry.
    """

    source: str
    format: str
    delay_ns: int
    delay_reason: str
    entries: int = 0
    late_at_source: int = 0
    before_start: int = 0
    not_due: int = 0
    skipped: dict[str, int] = {}
    copies: int = 0
    needed_delay_ns: int | None = None
    needed_delay_max_ns: int | None = None
    lines: int = 0
    rejected: dict[str, int] = {}
    rotations: int = 0
    truncations: int = 0
    own_requests: int = 0
    silent_max_s: float = 0.0
    ended_by: str = ""
    kept: str = ""
    kept_dropped: int = 0

    def with_planned(self, planned: int) -> SourceFigures:
        """Return a copy in which `not_due` follows from the number of requests that were due before the end.

        All entries that are not otherwise accounted for count as not due.
        """
        others = self.late_at_source + sum(self.skipped.values()) + planned - self.copies
        return msgspec.structs.replace(self, not_due=max(self.entries - others, 0))


class SourceSoFar(msgspec.Struct, frozen=True, kw_only=True):
    """The account of a source that is still being followed.

    It is saved every second, for the case that the run is killed.
    """

    source: SourceFigures
    trace: TraceIdentity


class RouteFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One route, or one business action: its requests by outcome, its latencies, and its recorded figures.

    For an action, `route` is the name of the action. `share` is the share of all requests. Latencies cover all
    outcomes (null: none). `worse` counts responses with a worse status than recorded. `not_of_target` counts failed
    requests for which the target is not to blame: the generator failed to send them, or they were unsent for a reason
    other than the target.
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
    not_of_target: int = 0


class Delays(msgspec.Struct, frozen=True, kw_only=True):
    """Delays of the generator (docs/lane-contract.md), summed over the lanes.

    `gap_max_ns` is the largest gap of all lanes. `response_net` excludes these delays. `service_net` and
    `response_arrived` exclude only the time for which a response lay unread. Each is null if not known.
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
    """The cost of sending.

    The CPU time of the lanes is measured by their threads' clocks, from the first due time until the last request
    ended. Memory is that of the whole process.
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
    """Connections of all lanes.

    `open_max` and `waiting_max` are sums of the maxima of each lane.
    """

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
    """The load that retries added.

    `amplification` is the number of requests at the target per request of a user (`sent` in the accounts). `denied`
    counts retries that the budget did not allow.
    """

    at_target: int
    amplification: float
    retries: int
    retried: int
    denied: int


class WindowsHeld(msgspec.Struct, frozen=True, kw_only=True):
    """The windows of an objective `over` a length of time, without windows in which no request ended.

    `failed` windows missed the objective. `worst_at_s` is the start of the worst window; the `value` of the objective
    is that of this window. `damaged` is true if some windows could not be read, so that the objective is missed.
    """

    count: int
    failed: int
    worst_at_s: float
    damaged: bool = False


class SloOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """A service level objective and its outcome in this run.

    `value` is in ns, or a share; null if nothing was measured, which counts as missed. `windows` is null for an
    objective over the whole run.
    """

    slo: str
    passed: bool
    value: float | None
    limit: float
    unit: Literal["ns", "share"]
    at_least: bool = False
    windows: WindowsHeld | None = None


class AddressFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The requests and connections of the lanes at one address (docs/lane-contract.md, the address table).

    `drained` counts connections that were closed because the target's name no longer had the address. `removed`: the
    name did not have the address at the end.
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
    """A change of the addresses of a name during the run.

    `at_s` counts from the start.
    """

    at_s: float
    added: list[str] = []
    removed: list[str] = []
    refused: list[str] = []


class NameFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Lookups of the name of a target, from before the start to the end.

    `answers` counts queries by reply: NOERROR, NXDOMAIN, SERVFAIL, timeout, unanswered (at the end). `changed` counts
    the changes of the addresses, and `changes` lists the first 100. Their `refused` are addresses that are not
    allowed, to which no connection was made. `left_out` lists addresses that accepted no connection before the start.
    `no_room` counts addresses beyond the number that lanes can hold.
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
    """TLS figures: the peer, and the number of handshakes by kind.

    Handshakes that timed out count as failed.
    """

    peer: TlsPeer
    handshakes_full: int = 0
    handshakes_resumed: int = 0
    handshakes_failed: int = 0


class KafkaPartition(msgspec.Struct, frozen=True, kw_only=True):
    """One partition that was written to.

    `acknowledged` counts records. `moved` is how far the end of the partition moved during the run (null: not
    known).
    """

    topic: str
    partition: int
    acknowledged: int
    moved: int | None = None


class Consumed(msgspec.Struct, frozen=True, kw_only=True):
    """Records that a consumer expected: how many arrived, and how many were missing at the end.

    The histogram contains missing records with the time for which the consumer waited for them; `at_least_ns` is the
    shortest of these times. `strange` counts consumed records that match no record of the run.
    """

    count: int
    missing: int = 0
    at_least_ns: int | None = None
    strange: int = 0


class KafkaFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of a Kafka target.

    `errors` counts failed records by the broker's name for the error. `late` counts records that were acknowledged
    after their time-out. `offsets_agree`: acknowledged <= moved <= acknowledged + failed + in flight over all
    partitions, and `missing` is 0; null if the offsets could not be read. `missing` counts acknowledged records beyond
    the ends of their partitions, which were lost. `consumed` is by histogram (`end_to_end`, `answer`). `lag_max` is
    the greatest lag of the consumer in records, by partition. `consumer` is the reason why the consumer stopped early.
    `hosts_refused` lists hosts that the cluster reported during the run but that are not allowed; nothing was sent to
    them.
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
    """One target of a run with several targets."""

    target: str
    engine: EngineName
    lanes: int
    accounts: Accounts
    latency: Latencies
    kafka: KafkaFigures | None = None
    tls: TlsFigures | None = None


class WatchFigures(msgspec.Struct, frozen=True, kw_only=True):
    """A watched figure from the target's side: how often it was sampled, how often that failed, and the first reason.

    `changed_at_s` is when the figure first differed from its beginning; null if it never did. `limit` is its maximum,
    as set in its `[[watch]]`.
    """

    name: str
    source: str = ""
    samples: int = 0
    failed: int = 0
    reason: str = ""
    changed_at_s: float | None = None
    limit: float | None = None


class AnswerFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Responses that were kept (`answers/`).

    `kept` is their number; `bodies` of them have a body; `cut` bodies were cut at the limit; `redacted` bodies had
    secrets removed. `dropped` counts losses by reason: `ring` (responses that found no space in a lane's ring),
    `ring_bodies` (only their bodies), `disk` (no space, or it could not be written), `too_large` (a compressed body
    beyond what is decoded), `undecodable` (its content coding could not be undone), `header_values` (cut at 1,024
    bytes), `late` (still unwritten when the run ended). The column `route` of the responses is an index in `routes`.
    """

    keep: str
    routes: list[str] = []
    kept: int = 0
    bodies: int = 0
    cut: int = 0
    redacted: int = 0
    secrets_kept: bool = False
    dropped: dict[str, int] = {}
