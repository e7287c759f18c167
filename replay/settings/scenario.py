"""What to do with a trace: every knob, with its unit, default and limit.

A knob's name in the file is its flag's name with `_` for `-`. Values carry their unit there ("30s", "500/s");
here durations are int ns, rates a float a second, shares and factors plain floats.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from replay import units
from replay._version import __version__
from replay.errors import InputError, reason_of
from replay.files import read_whole
from replay.ledger.validity import ValidityLimits
from replay.units import SECOND_NS

from .headers import expand
from .kinds import (
    AUTO,
    SEED_MAX,
    Acks,
    Count,
    Duration,
    Factor,
    HeaderNames,
    HostNames,
    Methods,
    MomentText,
    Rate,
    Scale,
    Share,
    Size,
    SloText,
    ZoneText,
    knob_text,
)
from .session_rules import (
    Auth,
    CaptureRule,
    CheckRule,
    SetRule,
    Variable,
)

DEFAULT_MAX_RATE_PER_S = 1_000.0
"""Beyond loopback, the highest rate of a plan without `--max-rate`."""

DEFAULT_MAX_DURATION_NS = 3600 * SECOND_NS
"""Beyond loopback, the longest plan without `--max-duration`."""

BODY_METHODS = ("POST", "PUT", "PATCH")
"""Methods that carry a body: without one, a request would only measure the target's refusal."""


class Window(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """The part of the recording that is replayed."""

    from_: Annotated[
        MomentText | None,
        Meta(
            description="First moment: 18:00, ISO 8601, or +10m from the recording's start",
            examples=["18:00"],
        ),
    ] = msgspec.field(name="from", default=None)
    until: Annotated[
        MomentText | None,
        Meta(description="Moment to end before: 18:00, ISO 8601, or +10m after `from`", examples=["+10m"]),
    ] = None
    tz: Annotated[
        ZoneText | None,
        Meta(
            description="Time zone of `from` and `until`; default: the recording's own",
            examples=["Europe/Berlin"],
        ),
    ] = None


class Breaker(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """The circuit breaker: stops a run that only does harm."""

    on: Annotated[bool, Meta(description="Stop the run when too many requests fail")] = True
    share: Annotated[
        Share, Meta(description="Failed share of the requests that ended (errors, time-outs, 5xx)")
    ] = Share(0.5)
    over_ns: Annotated[Duration, Meta(description="Over this long")] = msgspec.field(
        name="over", default=Duration(10 * SECOND_NS)
    )


FAILURES = ("refused", "reset", "truncated", "malformed", "timeout", "generator", "tls")
"""Outcomes that are no whole answer, as `retry.on` names them."""


class Retry(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Requests that are tried again, as clients do: how a storm of retries is rehearsed (docs/retries.md)."""

    attempts: Annotated[
        int, Meta(description="Most tries of a request; 1: none is tried again", ge=1, le=64)
    ] = 1
    on: Annotated[
        tuple[str, ...],
        Meta(description="What is tried again: 503, 5xx, refused, reset, truncated, timeout ..."),
    ] = ("429", "502", "503", "504", "refused", "reset", "truncated", "timeout")
    methods: Annotated[
        Literal["idempotent", "all"], Meta(description="idempotent: GET, HEAD, OPTIONS, TRACE, PUT, DELETE")
    ] = "idempotent"
    backoff_ns: Annotated[
        Duration, Meta(description="Before the second try; then twice as long each time")
    ] = msgspec.field(name="backoff", default=Duration(100_000_000))
    backoff_max_ns: Annotated[Duration, Meta(description="Longest back-off")] = msgspec.field(
        name="backoff_max", default=Duration(10 * SECOND_NS)
    )
    jitter: Annotated[
        Share, Meta(description="Random part of a back-off that is taken away; 100%: full jitter")
    ] = Share(1.0)
    budget: Annotated[
        Share | None,
        Meta(description="Most retries as a share of the requests; default: without limit", examples=["10%"]),
    ] = None
    budget_burst: Annotated[
        int, Meta(description="Retries that a lane's budget saves up at most", ge=1, le=1_000_000)
    ] = 10


class Limits(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Bounds on memory and sockets."""

    response_headers_bytes: Annotated[
        Size, Meta(description="Longest header section of an answer; past it: malformed")
    ] = msgspec.field(name="response_headers", default=Size(65_536))
    auto_connections: Annotated[Count, Meta(description='Most connections of `connections = "auto"`')] = (
        Count(1_024)
    )
    answer_bytes: Annotated[
        Size, Meta(description="Most of an answer that captures and checks look at, head and body")
    ] = msgspec.field(name="answer", default=Size(65_536))
    cookies_bytes: Annotated[Size, Meta(description="Most that the cookie jar of a client holds")] = (
        msgspec.field(name="cookies", default=Size(4_096))
    )
    sessions_bytes: Annotated[
        Size, Meta(description="Refuse a plan whose clients' values could come to more, over all lanes")
    ] = msgspec.field(name="sessions", default=Size(2 << 30))
    histograms_bytes: Annotated[Size, Meta(description="Memory for histograms by route, a lane")] = (
        msgspec.field(name="histograms", default=Size(256 << 20))
    )


BODY_FILE_BYTES_MAX = 64 << 20
"""The largest file that a [[body]] rule may name."""


class BodyRule(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A body for the requests of a route that the recording holds without one."""

    route: Annotated[str, Meta(description="Route as `replay inspect` names it; * stands for anything")]
    file: Annotated[
        str | None, Meta(description="File with the body, beside this scenario, of 64 MiB at most")
    ] = None
    template: Annotated[str | None, Meta(description="The body itself")] = None
    content_type: Annotated[str, Meta(description="Content-Type of the request")] = "application/json"
    fill: Annotated[
        bool, Meta(description="Fill in {uuid} {email} {client} {n}; false sends it as it is")
    ] = True

    def read(self) -> bytes:
        """The body before filling in. InputError where the file cannot be read."""
        if self.template is not None:
            return self.template.encode()
        try:
            return read_whole(self.file or "", BODY_FILE_BYTES_MAX)
        except OSError as error:
            raise InputError(
                f"the body of {self.route}: {self.file}: {reason_of(error)}",
                hint="give the file of this [[body]] rule",
            ) from None


class TlsKnobs(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """An https target: TLS 1.2 and 1.3, verified."""

    ca: Annotated[
        str,
        Meta(
            description="Certificates to trust, a PEM file or a folder; default: the system's",
            examples=["ca.pem"],
        ),
    ] = ""
    cert: Annotated[
        str, Meta(description="Client certificate with its chain, a PEM file", examples=["client.pem"])
    ] = ""
    key: Annotated[
        str, Meta(description="Its private key; default: in the same file", examples=["client.key"])
    ] = ""
    server_name: Annotated[
        str,
        Meta(
            description="Name that is asked for (SNI) and verified; default: the target's",
            examples=["staging.example"],
        ),
    ] = ""
    insecure: Annotated[bool, Meta(description="Verify nothing; the plan and the report say so")] = False
    resume: Annotated[
        bool, Meta(description="New connections resume a session; false: every handshake is a full one")
    ] = True


class Kafka(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A Kafka target: the producer's settings under aiokafka's names, and what becomes of a request as a record."""

    acks: Annotated[Acks, Meta(description="1: the leader has it; all: every replica in sync has it")] = Acks(
        "1"
    )
    enable_idempotence: Annotated[
        bool, Meta(description="Nothing twice, whatever is sent again; acks = all")
    ] = False
    compression_type: Annotated[
        Literal["none", "gzip", "snappy", "lz4", "zstd"], Meta(description="Of record batches")
    ] = "none"
    max_batch_size: Annotated[Size, Meta(description="Largest record batch; a larger record goes alone")] = (
        Size(1_000_000)
    )
    tick_ns: Annotated[Duration, Meta(description="What is due within it is sent together")] = msgspec.field(
        name="tick", default=Duration(1_000_000)
    )
    security_protocol: Annotated[
        Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"],
        Meta(description="Of the brokers' listener"),
    ] = "PLAINTEXT"
    ssl_cafile: Annotated[
        str, Meta(description="Certificates to trust; default: the system's", examples=["ca.pem"])
    ] = ""
    sasl_mechanism: Annotated[
        Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"], Meta(description="Of SASL_PLAINTEXT and SASL_SSL")
    ] = "PLAIN"
    sasl_plain_username: Annotated[
        str, Meta(description="User; $NAME is taken from the environment", examples=["$KAFKA_USER"])
    ] = ""
    sasl_plain_password: Annotated[
        str, Meta(description="Password; $NAME is of the environment", examples=["$KAFKA_PASSWORD"])
    ] = ""
    timestamps: Annotated[
        Literal["due", "recorded"],
        Meta(description="CreateTime: the due time on the wall clock, or the recorded one"),
    ] = "due"
    partitions: Annotated[
        Literal["auto", "recorded", "key"],
        Meta(description="auto: the recorded ones where the topic has them all, else by key (murmur2)"),
    ] = "auto"
    topic_map: Annotated[
        dict[str, str],
        Meta(description="Recorded topic to the topic it goes to", examples=[{"orders": "orders-staging"}]),
    ] = {}
    key: Annotated[
        str,
        Meta(
            description="Key of a request as a record, of {client} {method} {path} {path[1]} {n} {uuid}; empty: none"
        ),
    ] = "{client}"
    value: Annotated[
        str, Meta(description="Its value; {path} is escaped for JSON, {at_ms} is when it was recorded")
    ] = '{"at_ms":{at_ms},"client":{client},"method":"{method}","path":"{path}","n":{n}}'
    consume: Annotated[
        bool,
        Meta(description="Consume what was produced, in a group of its own: due to consumed is end_to_end"),
    ] = False
    answers: Annotated[
        str,
        Meta(
            description="Topic of a pipeline's answers: due to answer consumed is `answer`", examples=["paid"]
        ),
    ] = ""
    answers_by: Annotated[
        str,
        Meta(
            description="What an answer has of its record: key, or the name of a header; X-Replay is put on each record"
        ),
    ] = "key"


class Also(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A further target on the same timeline; what is not said here is the scenario's own."""

    target: Annotated[str, Meta(description="Where to send as well: http://... or kafka://...")]
    only: Annotated[
        tuple[str, ...], Meta(description="Routes that go there; default: all of the recording")
    ] = ()
    without: Annotated[tuple[str, ...], Meta(description="Routes that do not")] = ()
    methods: Annotated[
        Methods | None, Meta(description="Methods that go there; Kafka needs those that write")
    ] = None
    key: Annotated[str | None, Meta(description="Kafka: the key of a request as a record")] = None
    value: Annotated[str | None, Meta(description="Kafka: its value")] = None


class Scenario(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """All of it. Immutable; `replay.settings.file.load` makes one from a file and flags."""

    target: Annotated[
        str, Meta(description="Where to send: http[s]://HOST[:PORT][/BASE/PATH], or kafka://HOST:PORT/TOPIC")
    ] = ""
    trace: Annotated[str, Meta(description="The trace (or a log) to replay, beside this file")] = ""
    host: Annotated[
        str, Meta(description="Host header; default: the target's", examples=["staging.example"])
    ] = ""
    headers: Annotated[
        dict[str, str], Meta(description="Headers of every request; $NAME is taken from the environment")
    ] = {}
    send_headers: Annotated[
        HeaderNames,
        Meta(
            description="Recorded headers to send again, by name; all: those that say nothing of who asked whom",
            examples=["user-agent,accept"],
        ),
    ] = HeaderNames()
    rewrite_host: Annotated[
        HostNames,
        Meta(
            description="Recorded hosts by their new names: sent as Host, and in the URLs of headers that are sent",
            examples=[["www.example=staging.example", "*.shop.example=*.shop.staging.example"]],
        ),
    ] = HostNames()
    client_ip_header: Annotated[
        str,
        Meta(
            description="Header with an address for each recorded client, always the same one",
            examples=["X-Forwarded-For"],
        ),
    ] = ""
    client_ip_range: Annotated[
        Literal["10.0.0.0/8", "198.18.0.0/15", "2001:db8::/32"],
        Meta(
            description="Where those addresses are taken from: private, for benchmarks, or for documentation"
        ),
    ] = "10.0.0.0/8"
    window: Window = Window()
    speed: Annotated[Factor, Meta(description="2, 2x or 200%: twice as fast as recorded")] = Factor(1.0)
    only: Annotated[
        tuple[str, ...],
        Meta(
            description="Routes or actions that are replayed; * stands for anything", examples=[["GET /v1/*"]]
        ),
    ] = ()
    without: Annotated[
        tuple[str, ...],
        Meta(
            description="Routes or actions that are left out; * stands for anything",
            examples=[["GET /health"]],
        ),
    ] = ()
    sample: Annotated[
        Share | None, Meta(description="Replay only this share of the requests", examples=["25%"])
    ] = None
    sample_by: Annotated[
        Literal["request", "client"], Meta(description="client: a share of the clients, with all they do")
    ] = "request"
    scale: Annotated[
        Scale,
        Meta(
            description="4: four times the requests; ROUTE=5: of these routes (or of an action) alone",
            examples=[["POST /users=5"]],
        ),
    ] = Scale()
    grow: Annotated[
        Literal["requests", "sessions", "repeat"],
        Meta(
            description="What scale makes more of: requests, whole sessions, or requests at the same stamps"
        ),
    ] = "requests"
    peak_per_s: Annotated[
        Rate | None,
        Meta(description="Scale so that the busiest minute of the replay has this rate", examples=["500/s"]),
    ] = msgspec.field(name="peak", default=None)
    compress_to_ns: Annotated[
        Duration | None,
        Meta(description="As fast as it takes to be this long: a day in 10m", examples=["10m"]),
    ] = msgspec.field(name="compress_to", default=None)
    rewrite: Annotated[
        tuple[str, ...],
        Meta(
            description="Other targets: a regular expression, and what takes the place of its matches",
            examples=[["^/v1/ -> /v2/"]],
        ),
    ] = ()
    rate_per_s: Annotated[
        Rate | None,
        Meta(
            description="Constant rate in place of the recorded times: 500/s, 50/1m; max: closed loop",
            examples=["500/s"],
        ),
    ] = msgspec.field(name="rate", default=None)
    duration_ns: Annotated[
        Duration | None,
        Meta(description="End after this long; a constant rate repeats a shorter trace", examples=["10m"]),
    ] = msgspec.field(name="duration", default=None)
    warm_up_ns: Annotated[
        Duration, Meta(description="Requests of the first moments that are not measured")
    ] = msgspec.field(name="warm_up", default=Duration(0))
    methods: Annotated[
        Methods, Meta(description='Methods that are sent; "all" includes those that write')
    ] = Methods(("GET", "HEAD"))
    empty_bodies: Annotated[
        bool, Meta(description="Send POST, PUT and PATCH without a body where no rule gives one")
    ] = False
    body: Annotated[tuple[BodyRule, ...], Meta(description="Bodies by route")] = ()
    variable: Annotated[
        tuple[Variable, ...], Meta(description="Values from a CSV file or a generator, by name")
    ] = ()
    capture: Annotated[
        tuple[CaptureRule, ...],
        Meta(description="Values taken from answers, for later requests of the client"),
    ] = ()
    cookies: Annotated[
        bool, Meta(description="Keep the cookies that answers set, by client, and send them")
    ] = False
    check: Annotated[tuple[CheckRule, ...], Meta(description="What answers must be, by route")] = ()
    set: Annotated[tuple[SetRule, ...], Meta(description="Paths and headers made of values, by route")] = ()
    also: Annotated[
        tuple[Also, ...], Meta(description="Further targets on the same timeline, in the same run")
    ] = ()
    seed: Annotated[
        int,
        Meta(
            description="Of everything random; another one makes other e-mails and UUIDs", ge=0, le=SEED_MAX
        ),
    ] = 1
    connections: Annotated[Count, Meta(description="Most connections, or auto: as many as are needed")] = (
        Count(AUTO)
    )
    connect: Annotated[
        Literal["pool", "per-client", "per-request"],
        Meta(description="Whose connections are: everybody's, each recorded client's own, or each request's"),
    ] = "pool"
    client_connections: Annotated[
        int, Meta(description="Most connections of one client at once (per-client)", ge=1, le=256)
    ] = 6
    idle_timeout_ns: Annotated[
        Duration,
        Meta(description="A client's connection is closed when it was idle for so long (per-client)"),
    ] = msgspec.field(name="idle_timeout", default=Duration(60 * SECOND_NS))
    threads: Annotated[Count, Meta(description="Lanes, a thread each, or auto")] = Count(AUTO)
    resolve: Annotated[
        Literal["ttl", "once", "per-connection"],
        Meta(
            description="When the target's name is looked up again: as its TTL says, never, or for each connection"
        ),
    ] = "ttl"
    resolver: Annotated[
        str,
        Meta(
            description="Name server to ask in place of those of resolv.conf: ADDRESS[:PORT]",
            examples=["127.0.0.1:5353"],
        ),
    ] = ""
    timeout_ns: Annotated[Duration, Meta(description="For the whole response")] = msgspec.field(
        name="timeout", default=Duration(30 * SECOND_NS)
    )
    max_wait_ns: Annotated[
        Duration, Meta(description="For a free connection; past it a request is unsent")
    ] = msgspec.field(name="max_wait", default=Duration(10 * SECOND_NS))
    order: Annotated[
        Literal["due", "client"],
        Meta(description="client: a client's request waits for the answer to the one before it"),
    ] = "due"
    engine: Annotated[
        Literal["auto", "native", "portable"], Meta(description="auto: native lanes where they can run")
    ] = "auto"
    x_replay: Annotated[
        bool, Meta(description="Send X-Replay: RUN-SEQ, to find each request in the target's logs")
    ] = True
    slo: Annotated[
        tuple[SloText, ...],
        Meta(
            description="Objectives, with units: p99<250ms, errors<1% over 10s (in every window); exit 99 if one fails",
            examples=[["p99<250ms", "errors<1% over 10s"]],
        ),
    ] = ()
    allow: Annotated[
        tuple[str, ...],
        Meta(
            description="Hosts beyond loopback that may be a target: names, *.suffix, addresses, networks",
            examples=[["*.staging.example"]],
        ),
    ] = ()
    allow_production: Annotated[
        bool, Meta(description="Allow a target that the recording names as its origin")
    ] = False
    max_rate_per_s: Annotated[
        Rate | None,
        Meta(
            description="Refuse a plan whose busiest second is above; default 1,000/s beyond loopback",
            examples=["2000/s"],
        ),
    ] = msgspec.field(name="max_rate", default=None)
    max_duration_ns: Annotated[
        Duration | None, Meta(description="Refuse a longer plan; default 1h beyond loopback", examples=["2h"])
    ] = msgspec.field(name="max_duration", default=None)
    auth: Auth = Auth()
    tls: TlsKnobs = TlsKnobs()
    kafka: Kafka = Kafka()
    retry: Retry = Retry()
    breaker: Breaker = Breaker()
    limits: Limits = Limits()
    validity: ValidityLimits = ValidityLimits()

    def by_target(self) -> list[Scenario]:
        """The scenario of each target, that of the first one first."""
        first = msgspec.structs.replace(self, also=())
        return [first, *(first.sent_also(rule) for rule in self.also)]

    def sent_also(self, rule: Also) -> Scenario:
        """This scenario for a further target. Values of answers, and an auth header, belong to the first one."""
        given = {name: value for name in ("key", "value") if (value := getattr(rule, name)) is not None}
        return msgspec.structs.replace(
            self,
            target=rule.target,
            host="",
            only=rule.only,
            without=rule.without,
            methods=self.methods if rule.methods is None else rule.methods,
            capture=(),
            cookies=False,
            check=(),
            set=(),
            auth=Auth(),
            kafka=msgspec.structs.replace(self.kafka, **given),
        )

    @property
    def closed_loop(self) -> bool:
        """Whether due times are ignored (`rate = "max"`)."""
        return self.rate_per_s == units.MAX_RATE

    @property
    def ordered(self) -> bool:
        """Whether a client's request waits for the one before it: where asked for, and where answers make later requests."""
        return self.order == "client" or bool(self.capture) or self.cookies

    @property
    def by_client(self) -> bool:
        """Whether lanes know the recorded clients: each then lives on one lane."""
        return self.ordered or self.connect == "per-client"

    def request_headers(self, environ: Mapping[str, str] | None = None) -> list[tuple[str, str]]:
        """Every header of a request but Host and the body's, with $NAME expanded.

        UsageError where a variable is not set, or a header cannot be sent.
        """
        environ = os.environ if environ is None else environ
        expanded = [
            (name, expand(f"the header {name}", value, environ)) for name, value in self.headers.items()
        ]
        given = {name.lower() for name, _ in expanded}
        defaults = [("User-Agent", f"replay/{__version__}"), ("Accept", "*/*")]
        return [pair for pair in defaults if pair[0].lower() not in given] + expanded

    def saved(self) -> dict[str, Any]:
        """As a run folder keeps it, ready for JSON: every knob; of headers and bodies no content."""
        saved: dict[str, Any] = msgspec.to_builtins(self, enc_hook=knob_text)
        saved["headers"] = sorted(self.headers)
        for secret in ("sasl_plain_username", "sasl_plain_password"):
            saved["kafka"][secret] = "given" if saved["kafka"][secret] else ""
        for rule, kept in zip(self.body, saved["body"], strict=True):
            if rule.template is not None:
                kept["template"] = _digest(rule.template)
        for own, kept in zip(self.set, saved["set"], strict=True):
            if own.value is not None:
                kept["value"] = _digest(own.value)
        for check, kept in zip(self.check, saved["check"], strict=True):
            for key in ("contains", "equals"):
                if getattr(check, key) is not None:
                    kept[key] = _digest(getattr(check, key))
        for secret in ("command", "value"):
            saved["auth"][secret] = "given" if saved["auth"]["command"] else ""
        return saved


def _digest(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
