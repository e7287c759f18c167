"""The elements of a twin: services, their calls, and their limits. Each setting is declared here once.

A path of keys identifies a setting: `auth.workers`, `auth.calls.payment.timeout`, `dns.quota`. The components read
their limits from these structs each time they need them, so that a setting can change at run time (`limits.py`).
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

from replay.settings.kinds import SEED_MAX, Duration, Factor, Rate, Share
from replay.settings.row import key_of
from replay.units import MS_NS, SECOND_NS

from .times import Times

NONE = Times()
WORKERS_MAX, QUEUE_MAX, REPLICAS_MAX, RETRIES_MAX = 10_000, 1_000_000, 64, 100
BUS, DNS, BALANCER, TWIN = "bus", "dns", "balancer", "twin"
RESERVED = (BUS, DNS, TWIN, "load")
"""The names that a service cannot have, because names of other figures and settings begin with them."""

_Workers = Annotated[int, Meta(ge=1, le=WORKERS_MAX)]
_Queue = Annotated[int, Meta(ge=0, le=QUEUE_MAX)]


def text(words: str) -> Meta:
    """Return the description of a setting, for docs/twin.md."""
    return Meta(description=words)


class _Table(msgspec.Struct, kw_only=True, rename=key_of, forbid_unknown_fields=True):
    """A table of settings. `FIXED` are the settings that cannot change at run time."""

    FIXED: ClassVar[tuple[str, ...]] = ()


class Retry(_Table):
    """How often, and after which waits, a failure is retried."""

    retries: Annotated[
        int, Meta(ge=0, le=RETRIES_MAX, description="Maximum number of retries after a failed try")
    ] = 0
    backoff_ns: Annotated[Duration, text("Wait before the first retry")] = Duration(0)
    growth: Annotated[
        Literal["exponential", "sidekiq"],
        text("How waits grow: by `backoff_factor`, or as in Sidekiq (n**4 + 15 s, scaled to `backoff`)"),
    ] = "exponential"
    backoff_factor: Annotated[Factor, text("Factor from one wait to the next")] = Factor(2)
    backoff_max_ns: Annotated[Duration, text("The longest wait")] = Duration(60 * SECOND_NS)
    jitter: Annotated[Share, text("Maximum share by which each wait is shortened at random")] = Share(0)


class Breaker(_Table):
    """A circuit breaker: it opens at a share of failures, and lets a few probe calls through after a while."""

    failures: Annotated[Share, text("Opens at this share of failed calls within `window`")] = Share(0.5)
    window_ns: Annotated[Duration, text("The period over which `failures` is computed")] = Duration(
        10 * SECOND_NS
    )
    minimum: Annotated[int, Meta(ge=1, description="Never opens on fewer calls than this in `window`")] = 20
    open_ns: Annotated[Duration, text("How long it stays open before it lets probe calls through")] = (
        Duration(5 * SECOND_NS)
    )
    probes: Annotated[
        int, Meta(ge=1, description="Number of consecutive successful probes that close it")
    ] = 3


class Call(Retry):
    """A call to another service over HTTP, or a message onto the bus."""

    FIXED: ClassVar[tuple[str, ...]] = ("to", "request", "topic", "closes_cycle", "name")

    to: Annotated[str, text("The service to call [default: the call's name]")] = ""
    request: Annotated[
        str, text("Method and path, as in 'GET /token' [default: those of the request that is being served]")
    ] = ""
    topic: Annotated[str, text("Publish to this topic of the bus, instead of calling a service")] = ""
    required: Annotated[bool, text("Whether a failed call fails the request that needs it")] = True
    timeout_ns: Annotated[Duration, text("Time limit of one try")] = Duration(SECOND_NS)
    budget: Annotated[
        Share | None, text("Maximum ratio of retries to calls (a token bucket) [default: no limit]")
    ] = None
    budget_burst: Annotated[int, Meta(ge=1, description="Retries that the budget allows in a burst")] = 10
    in_flight: Annotated[
        int, Meta(ge=0, description="Maximum number of concurrent calls; more fail at once. 0: no limit")
    ] = 0
    breaker: Annotated[Breaker | None, text("Circuit breaker [default: none]")] = None
    keep_alive: Annotated[
        bool, text("Whether connections are kept open. Otherwise each try looks up the name and connects")
    ] = True
    name: Annotated[str, text("The host name to look up [default: as `dns.names` writes it]")] = ""
    closes_cycle: Annotated[bool, text("Whether this call intentionally closes a cycle of calls")] = False


class Route(_Table):
    """How a service answers the requests that match."""

    FIXED: ClassVar[tuple[str, ...]] = ("match", "calls")

    match: Annotated[
        str,
        text("Method and beginning of the path ('GET /plans'), or only the path. The longest match is used"),
    ] = "/"
    time: Annotated[Times, text("Time of its own work, without calls and database")] = NONE
    work: Annotated[
        Literal["wait", "cpu"], text("Whether `time` is spent waiting or burning processor time")
    ] = "wait"
    status: Annotated[int, Meta(ge=200, le=599, description="Status of a response that succeeds")] = 200
    bytes_: Annotated[int, Meta(ge=0, le=1 << 20, description="Bytes of the response's body")] = 64
    fails: Annotated[Share, text("Share of requests that fail with 500 at random")] = Share(0)
    calls: Annotated[tuple[str, ...], text("The calls that it makes, by name")] = ()
    order: Annotated[
        Literal["in_order", "at_once"], text("Whether calls are made one after another, or all at once")
    ] = "in_order"
    reads: Annotated[int, Meta(ge=0, le=1_000, description="Database reads, one after another")] = 0
    writes: Annotated[int, Meta(ge=0, le=1_000, description="Database writes, one after another")] = 0
    cached: Annotated[bool, text("Whether the cache answers hits, without `time`, calls or database")] = False
    jobs: Annotated[int, Meta(ge=0, le=1_000, description="Background jobs that a success enqueues")] = 0


class Database(_Table):
    """A primary and read replicas that lag behind, each with its own pool of connections."""

    connections: Annotated[_Workers, text("Connections to the primary, for the whole service")] = 10
    queue: Annotated[
        _Queue,
        text("Maximum number of requests that wait for connections to the primary, and to each read replica"),
    ] = 1_000
    wait_ns: Annotated[Duration, text("How long a request waits for a connection. 0: no limit")] = Duration(
        SECOND_NS
    )
    read: Annotated[Times, text("Time of a read")] = Times("constant", 2 * MS_NS)
    write: Annotated[Times, text("Time of a write")] = Times("constant", 4 * MS_NS)
    replicas: Annotated[int, Meta(ge=0, le=REPLICAS_MAX, description="Read replicas; reads go to them")] = 0
    replica_connections: Annotated[_Workers, text("Connections to each read replica")] = 10
    lag_ns: Annotated[Duration, text("Delay until a replica shows a write")] = Duration(0)
    apply_ns: Annotated[Duration, text("Time that a replica needs for each write, one after another")] = (
        Duration(0)
    )
    stale: Annotated[
        Literal["serve", "primary", "fail"],
        text(
            "What to do when a replica lacks a client's own last write: serve the old state, read "
            "from the primary, or fail with 404"
        ),
    ] = "serve"


class Cache(_Table):
    """A cache in front of the routes that set `cached`."""

    ttl_ns: Annotated[Duration, text("How long an entry is valid. 0: until it is evicted")] = Duration(
        60 * SECOND_NS
    )
    capacity: Annotated[
        int,
        Meta(
            ge=0,
            le=10_000_000,
            description="Maximum number of entries; the least recently used one is evicted",
        ),
    ] = 1_000
    keys: Annotated[
        int,
        Meta(ge=0, le=10_000_000, description="Number of keys, drawn by popularity. 0: the path is the key"),
    ] = 0
    zipf: Annotated[float, Meta(ge=0, le=5, description="Exponent of the keys' popularity")] = 1.0
    start: Annotated[
        Literal["cold", "warm"],
        text(
            "Whether the cache starts empty, or filled with the most popular keys. Setting it at run "
            "time empties or fills it at once"
        ),
    ] = "cold"
    stampede: Annotated[
        Literal["allow", "single_flight"], text("Whether requests that miss the same key all compute it")
    ] = "allow"


class Jobs(Retry):
    """Background jobs as in Sidekiq: workers, retries, a dead set."""

    FIXED: ClassVar[tuple[str, ...]] = ("calls",)

    workers: Annotated[_Workers, text("Concurrent jobs, for the whole service")] = 5
    queue: Annotated[_Queue, text("Maximum number of waiting jobs; more are refused with 503")] = 100_000
    time: Annotated[Times, text("Time of a job's own work, without its calls")] = NONE
    work: Annotated[
        Literal["wait", "cpu"], text("Whether `time` is spent waiting or burning processor time")
    ] = "wait"
    calls: Annotated[tuple[str, ...], text("The calls that a job makes, in order")] = ()
    dead: Annotated[
        int,
        Meta(ge=0, le=QUEUE_MAX, description="Maximum number of jobs in the dead set; the oldest is dropped"),
    ] = 10_000


class Autoscaler(_Table):
    """Changes the number of replicas as Kubernetes' HorizontalPodAutoscaler does."""

    signal: Annotated[
        Literal["busy", "queue"],
        text("The signal: the share of busy workers, or the number of waiting requests per replica"),
    ] = "busy"
    target: Annotated[
        float, Meta(gt=0, le=QUEUE_MAX, description="The signal's target. Of `busy`, 0.6 is 60%")
    ] = 0.6
    period_ns: Annotated[Duration, text("Time between decisions; the signal is averaged over it")] = Duration(
        15 * SECOND_NS
    )
    start_delay_ns: Annotated[Duration, text("Time until a new replica is ready")] = Duration(30 * SECOND_NS)
    min: Annotated[int, Meta(ge=1, le=REPLICAS_MAX, description="Fewest replicas")] = 1
    max: Annotated[int, Meta(ge=1, le=REPLICAS_MAX, description="Most replicas")] = 10
    down_after_ns: Annotated[
        Duration, text("Replicas are removed once no decision within this time needed them")
    ] = Duration(300 * SECOND_NS)
    tolerance: Annotated[Share, text("No change while the signal is this close to its target")] = Share(0.1)


class Service(_Table):
    """A service: workers that serve one request each, behind a bounded queue."""

    FIXED: ClassVar[tuple[str, ...]] = ("port",)

    port: Annotated[int, Meta(ge=0, le=65_535, description="Port on 127.0.0.1. 0: any free port")] = 0
    workers: Annotated[_Workers, text("Concurrent requests, for each replica")] = 8
    queue: Annotated[_Queue, text("Maximum number of waiting requests, for each replica; more get 503")] = 128
    queue_wait_ns: Annotated[Duration, text("A request that waits longer gets 503. 0: no limit")] = Duration(
        0
    )
    discipline: Annotated[
        Literal["fifo", "lifo"], text("Whether the oldest or the newest waiting request is served first")
    ] = "fifo"
    replicas: Annotated[int, Meta(ge=1, le=REPLICAS_MAX, description="Number of replicas at the start")] = 1
    balance: Annotated[
        Literal["least_busy", "round_robin", "random"], text("Which replica gets a request")
    ] = "least_busy"
    routes: Annotated[dict[str, Route], text("Its routes, by name")] = {}
    calls: Annotated[dict[str, Call], text("Its calls, by name")] = {}
    database: Annotated[Database | None, text("Its database [default: none]")] = None
    cache: Annotated[Cache | None, text("Its cache [default: none]")] = None
    jobs: Annotated[Jobs | None, text("Its job queue [default: none]")] = None
    autoscaler: Annotated[Autoscaler | None, text("Its autoscaler [default: none]")] = None


class Balancer(_Table):
    """The load balancer, a service named `balancer` that forwards each request to the service for its path."""

    FIXED: ClassVar[tuple[str, ...]] = ("port", "routes")

    port: Annotated[int, Meta(ge=0, le=65_535, description="Port on 127.0.0.1. 0: any free port")] = 0
    routes: Annotated[
        dict[str, str], text("Beginning of the path (or method and path), and its service")
    ] = {}
    in_flight: Annotated[_Workers, text("Maximum number of concurrent requests")] = 1_000
    queue: Annotated[_Queue, text("Maximum number of waiting requests; more get 503")] = 1_000
    timeout_ns: Annotated[Duration, text("Time limit for a response; then 504")] = Duration(30 * SECOND_NS)


class Dns(_Table):
    """The name server of the twin and how services look up names. Without it, services know each other's address."""

    domain: Annotated[str, text("The domain of the services' names")] = "twin.internal"
    names: Annotated[
        Literal["short", "relative", "absolute"],
        text("How calls write a name: `auth`, `auth.twin.internal`, or with its final dot"),
    ] = "relative"
    ndots: Annotated[
        int, Meta(ge=0, le=15, description="Names with fewer dots are tried with the search list first")
    ] = 5
    search: Annotated[tuple[str, ...], text("The search list")] = (
        "default.svc.cluster.local", "svc.cluster.local", "cluster.local", "twin.internal",
    )  # fmt: skip
    cache_ns: Annotated[Duration, text("How long a service keeps an answer. 0: no cache")] = Duration(0)
    quota: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="Maximum number of queries within any second; more get SERVFAIL. 0: no quota",
        ),
    ] = 0
    timeout_s: Annotated[int, Meta(ge=1, le=30, description="Seconds that one query may take")] = 1
    attempts: Annotated[int, Meta(ge=1, le=5, description="Maximum number of tries of a query")] = 2


class Topic(Retry, kw_only=True):
    """A topic of the bus, and its consumers, which forward each message to a service over HTTP."""

    FIXED: ClassVar[tuple[str, ...]] = ("to", "request")

    to: Annotated[str, text("The service that consumes it")]
    request: Annotated[str, text("The request that a consumer sends for a message")] = "POST /"
    consumers: Annotated[_Workers, text("Messages that are consumed concurrently")] = 4
    capacity: Annotated[_Queue, text("Maximum number of waiting messages; more are refused with 503")] = (
        100_000
    )
    publish: Annotated[Times, text("Time until a message is acknowledged")] = Times("constant", 1 * MS_NS)
    timeout_ns: Annotated[Duration, text("Time limit of one try")] = Duration(10 * SECOND_NS)
    dead: Annotated[
        int, Meta(ge=0, le=QUEUE_MAX, description="Maximum number of messages kept after their last failure")
    ] = 10_000


class Bus(_Table):
    """The message bus: a producer gets an answer once its message is queued."""

    FIXED: ClassVar[tuple[str, ...]] = ("port",)

    port: Annotated[int, Meta(ge=0, le=65_535, description="Port on 127.0.0.1. 0: any free port")] = 0
    topics: Annotated[dict[str, Topic], text("Its topics, by name")] = {}


class Twin(_Table):
    """A whole twin: its services, with the load balancer, name server and message bus that they use."""

    FIXED: ClassVar[tuple[str, ...]] = ("name", "seed", "control_port", "entry", "processes", "load")

    name: Annotated[str, text("The twin's name in lists")] = "twin"
    seed: Annotated[int, Meta(ge=0, le=SEED_MAX, description="Seed for all random draws")] = 1
    control_port: Annotated[
        int,
        Meta(ge=0, le=65_535, description="Port on 127.0.0.1 for figures and live control. 0: any free port"),
    ] = 0
    entry: Annotated[
        str,
        text(
            "The service that receives the requests of users [default: the balancer, else the first service]"
        ),
    ] = ""
    processes: Annotated[
        Literal["one", "each"], text("Whether all services share a process, or each has its own")
    ] = "one"
    load: Annotated[
        dict[str, Rate],
        text(
            "Ordinary load by request ('GET /plans' = '50/s'), used to check before a start that the machine is large enough"
        ),
    ] = {}
    services: Annotated[dict[str, Service], text("The services, by name")] = {}
    balancer: Annotated[Balancer | None, text("The load balancer [default: none]")] = None
    dns: Annotated[Dns | None, text("Name server and resolvers [default: none]")] = None
    bus: Annotated[Bus | None, text("The message bus [default: none]")] = None
