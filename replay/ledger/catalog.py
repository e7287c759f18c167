"""The catalog: one row for each outcome, unsent reason, counter and histogram that a run records.

Every list of them is derived from these rows: the accounts, run.json, the timeline, the reports, objectives,
`retry.on`, the names of metrics, and the tables in docs/ (`replay.ledger.catalog_tables`). Kernels use the indices in
`replay_native.ledger.catalog`. Both modules must have the same names: otherwise the import of this module fails.
docs/adding.md shows how to add a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from replay_native.ledger import catalog as native


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a request ended.

    If `retryable`, `retry.on` may list it by name (responses are listed by status).
    """

    name: str
    words: str
    retryable: bool = False

    @property
    def index(self) -> int:
        """Its column among the outcomes in a lane's memory."""
        return native.OUTCOMES.index(self.name)

    @property
    def account(self) -> str:
        """The account that it is counted in."""
        return native.ACCOUNTS[self.index]

    @property
    def failed(self) -> bool:
        """Whether a user would have seen the request fail. Objectives count these as `errors`."""
        return self.index >= native.FIRST_FAILED

    @property
    def counter(self) -> str:
        """The name of the lane's counter for it."""
        return f"outcome_{self.name}"


@dataclass(frozen=True, slots=True)
class UnsentReason:
    """Why a request was not sent."""

    name: str
    words: str

    @property
    def counter(self) -> str:
        """The name of the lane's counter of the requests that were not sent for this reason."""
        return f"unsent_{self.name}"

    @property
    def of_target(self) -> bool:
        """Whether the target is to blame, except for the requests in `unsent_own`."""
        return native.COUNTERS.index(self.counter) in native.UNSENT_OF_TARGET


Kind = Literal["count", "level", "most", "longest", "stamp"]
"""How a counter behaves, and how a run combines the counters of its lanes.

A `count` only grows, and a `level` goes up and down; a run has the sum. A `most` is the largest number at one time,
and a run has the sum, which is an upper bound. A `longest` is a longest duration, and a run has the longest of all
lanes. A `stamp` is an instant, which cannot be added up.
"""


@dataclass(frozen=True, slots=True)
class Counter:
    """A counter of a lane.

    With `each_second`, the timeline has its growth per second. `metric` is its name for sinks.
    """

    name: str
    words: str
    kind: Kind = "count"
    each_second: bool = False
    metric: str = ""

    @property
    def unit(self) -> str:
        """The unit of its values; empty for plain numbers."""
        return "ns" if self.name.endswith("_ns") else "bytes" if self.name.startswith("bytes_") else ""


WITH_TLS, WITH_CONSUMER = "where TLS made any", "where a Kafka consumer ran"
"""Values of `Histogram.only` for conditions that a run can check when it starts."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """A histogram over all routes, in nanoseconds at 3 digits; `response` and `service` exist by route as well, at 2.

    `formula` and `of` define what is recorded for which requests; `words` is its meaning. `only` is the condition under
    which run.json has it. With `closed_loop`, a closed loop has it as well. With `each_second`, the logs
    have its growth per second, and the timeline its `figures`. `title` is its row in reports; a histogram without one
    is not shown. With `slo`, objectives and comparisons may use it, by name or `alias`. With `net`, it excludes
    delays of the generator, and is in `generator.delays` of run.json. With `logged_empty`, totals.hlog has it even if
    it is empty. `consumed` says what happened to the records that it counts (`were answered`).
    """

    tag: str
    words: str
    formula: str
    of: str
    only: str = ""
    closed_loop: bool = False
    each_second: bool = False
    figures: tuple[str, ...] = ()
    title: str = ""
    slo: bool = False
    alias: str = ""
    metric: str = ""
    logged_empty: bool = False
    consumed: str = ""
    net: bool = False

    def __post_init__(self) -> None:
        if self.each_second and self.only not in ("", WITH_TLS, WITH_CONSUMER):
            raise ImportError(
                f"{self.tag}: a run cannot know at its start whether it records this histogram: drop each_second"
            )
        if self.figures and not self.each_second:
            raise ImportError(f"{self.tag}: figures of a second need each_second")

    @property
    def name(self) -> str:
        """Its tag without the suffix `.all`: `response`, `wait.order`."""
        return self.tag.removesuffix(".all")

    @property
    def field(self) -> str:
        """Its key in `latency` of run.json."""
        return self.name.replace(".", "_")


OUTCOMES = (
    Outcome("2xx", "a complete response with such a status"),
    Outcome("3xx", "a complete response with such a status; redirects are not followed"),
    Outcome(
        "4xx",
        "a complete response with such a status; not counted as failed, since recordings have 4xx as well",
    ),
    Outcome("5xx", "a complete response with such a status"),
    Outcome("refused", "the connection was refused, or the address could not be reached", retryable=True),
    Outcome("reset", "the peer reset the connection (RST) before the response was complete", retryable=True),
    Outcome("truncated", "the peer closed (FIN) before the response was complete", retryable=True),
    Outcome(
        "malformed",
        "the response is not HTTP/1.x, exceeds a limit, or has a status outside 200-599",
        retryable=True,
    ),
    Outcome(
        "timeout",
        "no complete response `timeout` after `sent`, or no connection `timeout` after connecting began",
        retryable=True,
    ),
    Outcome(
        "generator",
        "the generator failed, never the target: EMFILE, ENFILE, EADDRNOTAVAIL, ENOBUFS, ENOMEM",
        retryable=True,
    ),
    Outcome("unsent", "never attempted; the reasons are below"),
    Outcome("rejected", "a broker answered with an error of its own (Kafka only)"),
    Outcome(
        "tls",
        "the TLS handshake failed (a certificate, an alert, FIN or RST during it), or TLS broke later",
        retryable=True,
    ),
)

UNSENT_REASONS = (
    UnsentReason("max_wait", "it waited `max_wait` to be sent"),
    UnsentReason("interrupted", "it was due but not sent when the run was stopped"),
    UnsentReason("limit", "the wait queue was full, and this was its oldest request"),
    UnsentReason("capture", "it takes a captured value that its client does not have"),
)

AGENT_LOST, ENDED_EARLY = "agent_lost", "ended_early"
"""Why a request of a run over several machines was not sent: before it was due, its agent was lost or its run ended.

No lane counts these requests. Their numbers follow from the plan.
"""

COUNTERS = (
    Counter("planned", "requests that were due", metric="replay_due_total"),
    Counter("sent", "requests that were attempted", metric="replay_sent_total"),
    Counter("ok", "requests with a complete response, of any status"),
    Counter("error", "requests that failed other than by a time-out"),
    Counter("timeout", "requests without a complete response in time"),
    Counter("in_flight", "requests attempted that have not ended", "level"),
    Counter(
        "unsent_own", "of `unsent_max_wait` and `unsent_limit`: requests for which the generator is to blame"
    ),
    Counter("warm_up", "of `planned`: requests of the warm-up, which are in no histogram"),
    Counter("resent", "requests sent again after an idle connection had closed under them"),
    Counter("bytes_sent", "bytes of requests"),
    Counter("bytes_received", "bytes of responses"),
    Counter("connects", "connections opened"),
    Counter("connects_failed", "connections that could not be opened"),
    Counter("handshakes_full", "full TLS handshakes", each_second=True),
    Counter("handshakes_resumed", "TLS handshakes that resumed a session", each_second=True),
    Counter("handshakes_failed", "TLS handshakes that failed, including time-outs", each_second=True),
    Counter("closed_by_target", "connections that the target closed"),
    Counter("open", "open connections", "level"),
    Counter("open_max", "the most connections that were open at once", "most"),
    Counter("waiting", "requests that wait to be sent", "level"),
    Counter("waiting_max", "the most requests that waited at once", "most"),
    Counter(
        "cap_bound",
        "requests that waited, and idle connections that were closed, because the cap on connections was reached",
    ),
    Counter("idle_closed", "connections closed after `idle_timeout`"),
    Counter("attempts", "sends begun, retries and `resent` included"),
    Counter("retries", "sends begun after the first one of a request"),
    Counter("retried", "requests with a retry"),
    Counter("retries_denied", "retries for which no budget or no space in the wait queue was left"),
    Counter("underruns", "requests that were prepared after they were due"),
    Counter("routes_merged", "pairs of route and outcome recorded as `other` because the arena was full"),
    Counter("slots_used", "slots of the arena in use", "level"),
    Counter("informational", "informational responses (1xx), which are skipped"),
    Counter("answers_cut", "responses that were longer than captures and checks read"),
    Counter("cookies_cut", "cookies that did not fit into their client's jar"),
    Counter("sends_postponed", "requests taken up more than 1 ms late"),
    Counter("sends_postponed_ns", "sum of the lateness of these requests"),
    Counter("dials_postponed", "connections that were dialled late"),
    Counter("dials_postponed_ns", "time for which a needed connection was not yet being dialled"),
    Counter("reads_late", "responses that waited unread in the socket"),
    Counter("reads_late_ns", "an upper bound on the sum of these waits"),
    Counter("gaps", "gaps: the lane overslept, or was away from its sockets"),
    Counter("gaps_ns", "sum of the gaps"),
    Counter("gap_max_ns", "the longest gap", "longest"),
    Counter("lost_ns", "time lost: gaps and late dials"),
    Counter("first_due_ns", "when the first request was due", "stamp"),
    Counter("last_done_ns", "when the last request ended", "stamp"),
    Counter("cpu_first_ns", "the thread's CPU clock when the first request was due", "stamp"),
    Counter("cpu_last_ns", "the thread's CPU clock when the lane ended", "stamp"),
    Counter("idle_ns", "time without anything to do; spinning for a due time is idle"),
    Counter("loops", "turns of the lane's loop"),
)

HISTOGRAMS = (
    Histogram(
        "response.all", "how long a user would have waited", "done - due", "every planned request",
        each_second=True, figures=("p50", "p99", "max"), title="response", slo=True, metric="replay_response_seconds",
    ),
    Histogram(
        "response.ok", "the response, of complete responses only", "done - due", "complete responses",
        each_second=True,
    ),
    Histogram(
        "lateness.all", "how late the generator was", "taken - due", "every planned request",
        each_second=True, figures=("p50", "p99"), title="generator lag", slo=True, alias="generator_lag",
        metric="replay_lateness_seconds",
    ),
    Histogram(
        "wait.all", "for a connection, or for the client's previous request", "sent - taken", "requests sent",
        each_second=True, figures=("p99",), title="wait", slo=True,
    ),
    Histogram(
        "wait.order", "part of wait: for the client's previous request", "ready - taken", "requests that waited for it",
        only="where clients are in order", title="wait.order", slo=True, logged_empty=True,
    ),
    Histogram(
        "wait.queue", "part of wait: for a connection to become free", "sent - ready",
        "requests sent on a connection used before",
    ),
    Histogram("wait.connect", "part of wait: for a new connection", "sent - ready", "requests sent on a new connection"),
    Histogram(
        "service.all", "time that the target took", "done - sent", "requests sent",
        closed_loop=True, each_second=True, figures=("p50", "p99"), title="service", slo=True,
        metric="replay_service_seconds",
    ),
    Histogram(
        "first_byte.all", "part of service: until the response began", "first_byte - sent", "requests answered",
        closed_loop=True, slo=True,
    ),
    Histogram(
        "handshake.full", "a full TLS handshake, part of wait", "secured - connected", "handshakes that succeeded",
        only=WITH_TLS, closed_loop=True, each_second=True, title="handshake",
    ),
    Histogram(
        "handshake.resumed", "a TLS handshake that resumed a session", "secured - connected", "handshakes that succeeded",
        only=WITH_TLS, closed_loop=True, each_second=True, title="resumed",
    ),
    Histogram(
        "end_to_end.all", "from due to consumed", "consumed - due", "records consumed (Kafka)",
        only=WITH_CONSUMER, each_second=True, figures=("p50", "p99"), title="end to end", slo=True, consumed="were consumed",
    ),
    Histogram(
        "answer.all", "from due until its answer was consumed", "answer consumed - due", "records answered (Kafka)",
        only=WITH_CONSUMER, each_second=True, figures=("p50", "p99"), title="answer", slo=True, consumed="were answered",
    ),
    Histogram(
        "response.net", "the response without the generator's delays", "response - own - unread", "every planned request",
        only="not of Kafka", net=True,
    ),
    Histogram(
        "response.arrived", "the response until it arrived in the lane's socket", "response - unread",
        "every planned request", only="not of Kafka", net=True,
    ),
    Histogram(
        "service.net", "time that the target took, without the time that the response lay unread", "service - unread",
        "requests sent", only="not of Kafka", net=True, closed_loop=True,
    ),
)  # fmt: skip


PER_ROUTE = native.PER_ROUTE
"""Names of the histograms by route and outcome."""

OK = tuple(outcome.name for outcome in OUTCOMES if outcome.account == "ok")
"""Outcomes with a complete response."""

ERRORS = tuple(outcome.name for outcome in OUTCOMES if outcome.account == "error")
"""Outcomes that the account `error` consists of."""

FAILED = tuple(outcome.name for outcome in OUTCOMES if outcome.failed)
"""Outcomes that a user would have seen fail.

Objectives and comparisons call them errors.
"""

GOOD = tuple(name for name in OK if name not in FAILED and name != "4xx")
"""Outcomes that count as good: complete responses other than 4xx and 5xx.

Reports need not list them.
"""

RETRYABLE = tuple(outcome.name for outcome in OUTCOMES if outcome.retryable)
"""Outcomes that `retry.on` may list."""

CONSUMED = tuple(histogram.name for histogram in HISTOGRAMS if histogram.only == WITH_CONSUMER)
"""Histograms that only a Kafka consumer fills."""

SLO_METRICS = tuple(histogram.name for histogram in HISTOGRAMS if histogram.slo)
"""Latencies that objectives and comparisons may use."""

ALIASES = {histogram.alias: histogram.name for histogram in HISTOGRAMS if histogram.alias}
"""The names of SLO_METRICS by their aliases."""

EACH_SECOND_COUNTERS = tuple(counter.name for counter in COUNTERS if counter.each_second)
"""Counters whose growth per second is in the timeline, besides the accounts."""

GROWING = (
    *(counter.name for counter in COUNTERS if counter.kind == "count"),
    *(row.counter for row in (*UNSENT_REASONS, *OUTCOMES)),
)
"""Counters that only grow, so that their growth per second can be added up."""

PERCENTILES = {"p50": 50.0, "p99": 99.0, "max": 100.0}
"""The percentiles that `Histogram.figures` may list."""

FIGURES = {
    f"{histogram.field}_{figure}_ns": (histogram.tag, list(PERCENTILES).index(figure))
    for histogram in HISTOGRAMS
    for figure in histogram.figures
}
"""By name of a figure in the timeline: the tag of its histogram, and the index of its percentile in PERCENTILES."""


def tag_over_all(name: str) -> str:
    """Return the tag of a histogram over all routes from its name.

    `response` becomes `response.all`; `wait.order` is unchanged.
    """
    return name if "." in name else f"{name}.all"


def each_second(
    *, closed_loop: bool, tls: bool, consumed: Sequence[str], asked: Sequence[str] = ()
) -> list[str]:
    """Return the tags of the histograms that a run logs every second.

    `consumed` are the names from CONSUMED that the run fills. `asked` are the names that objectives by window need.
    """
    filled = {"": True, WITH_TLS: tls}
    return [
        row.tag
        for row in HISTOGRAMS
        if row.closed_loop or not closed_loop
        if row.name in asked or (row.each_second and (row.name in consumed or filled.get(row.only, False)))
    ]


def _check(what: str, rows: Iterable[str], names: Iterable[str]) -> None:
    """Raise ImportError if a table does not have exactly one row for each name that kernels use."""
    rows, names = list(rows), list(names)
    amiss = [*(name for name in names if rows.count(name) != 1), *(row for row in rows if row not in names)]
    if amiss:
        raise ImportError(
            f"the catalog needs exactly one row for each {what} of kernels: see {', '.join(amiss)}"
        )


_check("outcome", (outcome.name for outcome in OUTCOMES), native.OUTCOMES)
_check("histogram", (histogram.tag for histogram in HISTOGRAMS), native.TOTALS)
_check(
    "counter",
    [row.counter for row in (*UNSENT_REASONS, *OUTCOMES)] + [counter.name for counter in COUNTERS],
    native.COUNTERS,
)
