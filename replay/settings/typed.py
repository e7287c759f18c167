"""The settings of a scenario by name, for functions that take `**settings: Unpack[Settings]`.

Made by `python -m replay.settings.derive`; do not edit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, time, timedelta
from typing import Literal, Required, TypedDict


class AlsoSettings(TypedDict, total=False):
    """Further targets on the same timeline, in the same run."""

    target: Required[str]
    only: Sequence[str]
    without: Sequence[str]
    methods: str | Sequence[str] | None
    key: str | None
    value: str | None


class VariableSettings(TypedDict, total=False):
    """Values from a CSV file, a generator or the environment, for each client, each request or each recorded value."""

    name: Required[str]
    file: str | None
    column: str
    generate: Literal["uuid", "email", "word", "like"] | None
    env: str | None
    by: Literal["client", "request", "value"]
    each_run: bool


CaptureRuleSettings = TypedDict(
    "CaptureRuleSettings",
    {
        "header": str | None,
        "cookie": str | None,
        "json": str | None,
        "regex": str | None,
        "route": Required[str],
        "name": Required[str],
        "longest": str | int,
        "as": Literal["text", "path"],
    },
    total=False,
)


class SetRuleSettings(TypedDict, total=False):
    """Paths, headers and fields of requests, set from values such as {name}, {uuid} or {n} (docs/sessions.md)."""

    route: Required[str]
    without: Sequence[str]
    path: str | None
    header: str | None
    json: str | None
    form: str | None
    query: str | None
    value: str | None
    when_recorded: bool


class CheckRuleSettings(TypedDict, total=False):
    """Conditions that responses must meet."""

    header: str | None
    cookie: str | None
    json: str | None
    regex: str | None
    route: Required[str]
    status: str | int | Sequence[str | int] | None
    contains: str | None
    size: str | int | None
    digest: str | None
    equals: str | None


class AuthSettings(TypedDict, total=False):
    """A header whose value a command prints."""

    command: str
    header: str
    value: str
    refresh: str | float | timedelta


class BodyRuleSettings(TypedDict, total=False):
    """Bodies of requests by route, in place of recorded ones."""

    route: Required[str]
    file: str | None
    template: str | None
    content_type: str
    fill: bool


WindowSettings = TypedDict(
    "WindowSettings",
    {
        "from": str | datetime | time | None,
        "until": str | datetime | time | None,
        "tz": str | None,
    },
    total=False,
)


class RetrySettings(TypedDict, total=False):
    """Retries of failed requests, as real clients make them, to rehearse a retry storm (docs/retries.md)."""

    attempts: int
    on: Sequence[str]
    methods: Literal["idempotent", "all"]
    backoff: str | float | timedelta
    backoff_max: str | float | timedelta
    jitter: str | float
    budget: str | float | None
    budget_burst: int


class BreakerSettings(TypedDict, total=False):
    """The circuit breaker: it ends a run when too many requests fail."""

    on: bool
    share: str | float
    over: str | float | timedelta


class LimitsSettings(TypedDict, total=False):
    """Bounds on memory and sockets."""

    response_headers: str | int
    auto_connections: int | str
    answer: str | int
    cookies: str | int
    sessions: str | int
    histograms: str | int


class TlsSettings(TypedDict, total=False):
    """TLS 1.2 or 1.3 for https targets, with verified certificates unless `insecure` is set."""

    ca: str
    cert: str
    key: str
    server_name: str
    insecure: bool
    resume: bool


class KafkaSettings(TypedDict, total=False):
    """A Kafka target: the producer's settings by aiokafka's names, and how a request becomes a record."""

    acks: str | int
    enable_idempotence: bool
    compression_type: Literal["none", "gzip", "snappy", "lz4", "zstd"]
    max_batch_size: str | int
    tick: str | float | timedelta
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
    ssl_cafile: str
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
    sasl_plain_username: str
    sasl_plain_password: str
    timestamps: Literal["due", "recorded"]
    partitions: Literal["auto", "recorded", "key"]
    topic_map: Mapping[str, str]
    key: str
    value: str
    consume: bool
    answers: str
    answers_by: str


class AnswersSettings(TypedDict, total=False):
    """Responses that are kept in the run folder, for `replay diff`."""

    keep: Literal["none", "digest", "sample", "all"] | None
    sample: str | float
    body_limit: str | int
    headers: Sequence[str]
    keep_secrets: bool


class ValidityLimitsSettings(TypedDict, total=False):
    """Every threshold of the verdict."""

    lateness_p50_share_suspect: float
    lateness_p50_share_invalid: float
    lateness_p50_floor_suspect_ns: int
    lateness_p50_floor_invalid_ns: int
    lateness_p90_share_suspect: float
    lateness_p90_share_invalid: float
    lateness_p90_floor_suspect_ns: int
    lateness_p90_floor_invalid_ns: int
    lateness_p99_share_suspect: float
    lateness_p99_floor_suspect_ns: int
    own_p50_share_suspect: float
    own_p50_share_invalid: float
    own_p50_floor_suspect_ns: int
    own_p50_floor_invalid_ns: int
    own_p90_share_suspect: float
    own_p90_share_invalid: float
    own_p90_floor_suspect_ns: int
    own_p90_floor_invalid_ns: int
    own_p99_share_suspect: float
    own_p99_floor_suspect_ns: int
    unread_p99_floor_suspect_ns: int
    unsent_own_share_suspect: float
    unsent_own_share_invalid: float
    lost_share_named: float
    generator_share_suspect: float
    generator_share_invalid: float
    underrun_share_suspect: float
    underrun_share_invalid: float
    throttled_share_suspect: float
    throttled_share_invalid: float
    steal_share_suspect: float
    run_delay_share_suspect: float
    run_delay_share_invalid: float
    run_delay_mean_floor_ns: int
    run_delay_felt_share_suspect: float
    run_delay_felt_share_invalid: float
    busy_share_full: float


class WatchSettings(TypedDict, total=False):
    """Figures of the target's own side, sampled every second."""

    name: Required[str]
    prometheus: str
    query: str
    json: str
    pointer: str
    command: str
    group: str
    brokers: str
    limit: float | None
    members: bool


class IgnoreRuleSettings(TypedDict, total=False):
    """Fields of responses that may differ."""

    route: str
    field: Required[str]


class Settings(TypedDict, total=False):
    """All settings of a scenario except `target` and `trace`."""

    host: str
    headers: Mapping[str, str]
    send_headers: str | Sequence[str]
    rewrite_host: str | Sequence[str]
    client_ip_header: str
    client_ip_range: Literal["10.0.0.0/8", "198.18.0.0/15", "2001:db8::/32"]
    x_replay: bool
    traceparent: bool
    trace_url: str
    resolve: Literal["ttl", "once", "per-connection"]
    resolver: str
    also: Sequence[AlsoSettings]
    variable: Sequence[VariableSettings]
    capture: Sequence[CaptureRuleSettings]
    set: Sequence[SetRuleSettings]
    check: Sequence[CheckRuleSettings]
    cookies: bool
    split_clients: bool
    auth: AuthSettings
    methods: str | Sequence[str]
    only: Sequence[str]
    without: Sequence[str]
    sample: str | float | None
    sample_by: Literal["request", "client"]
    scale: str | float | Sequence[str | float]
    grow: Literal["requests", "sessions", "repeat"]
    peak: str | float | None
    rewrite: Sequence[str]
    rate: str | float | None
    empty_bodies: bool
    body: Sequence[BodyRuleSettings]
    seed: int
    window: WindowSettings
    speed: str | float
    compress_to: str | float | timedelta | None
    duration: str | float | timedelta | None
    warm_up: str | float | timedelta
    timeout: str | float | timedelta
    max_wait: str | float | timedelta
    connections: int | str
    connect: Literal["pool", "per-client", "per-request"]
    client_connections: int
    idle_timeout: str | float | timedelta
    order: Literal["due", "client"]
    threads: int | str
    engine: Literal["auto", "native", "portable"]
    retry: RetrySettings
    allow: Sequence[str]
    allow_production: bool
    max_rate: str | float | None
    max_duration: str | float | timedelta | None
    breaker: BreakerSettings
    limits: LimitsSettings
    tls: TlsSettings
    kafka: KafkaSettings
    answers: AnswersSettings
    live: str
    live_allow: Sequence[str]
    live_cert: str
    live_key: str
    live_linger: str | float | timedelta
    notify: Sequence[str]
    start_at: str | datetime | time | None
    build: str
    name: str
    slo: Sequence[str]
    validity: ValidityLimitsSettings
    watch: Sequence[WatchSettings]
    actions: Mapping[str, Sequence[str]]
    values: Mapping[str, str]
    ignore: Sequence[IgnoreRuleSettings]


class TransformSettings(TypedDict, total=False):
    """The settings that change a trace."""

    only: Sequence[str]
    without: Sequence[str]
    sample: str | float | None
    sample_by: Literal["request", "client"]
    scale: str | float | Sequence[str | float]
    grow: Literal["requests", "sessions", "repeat"]
    peak: str | float | None
    rewrite: Sequence[str]
    seed: int
    window: WindowSettings
    speed: str | float
    compress_to: str | float | timedelta | None


class PeakSettings(TypedDict, total=False):
    """The settings of a search for the peak: all except those that the search sets itself."""

    host: str
    headers: Mapping[str, str]
    send_headers: str | Sequence[str]
    rewrite_host: str | Sequence[str]
    client_ip_header: str
    client_ip_range: Literal["10.0.0.0/8", "198.18.0.0/15", "2001:db8::/32"]
    traceparent: bool
    trace_url: str
    resolve: Literal["ttl", "once", "per-connection"]
    resolver: str
    also: Sequence[AlsoSettings]
    variable: Sequence[VariableSettings]
    capture: Sequence[CaptureRuleSettings]
    set: Sequence[SetRuleSettings]
    check: Sequence[CheckRuleSettings]
    cookies: bool
    split_clients: bool
    auth: AuthSettings
    methods: str | Sequence[str]
    only: Sequence[str]
    without: Sequence[str]
    rewrite: Sequence[str]
    empty_bodies: bool
    body: Sequence[BodyRuleSettings]
    seed: int
    window: WindowSettings
    timeout: str | float | timedelta
    max_wait: str | float | timedelta
    connections: int | str
    connect: Literal["pool", "per-client", "per-request"]
    client_connections: int
    idle_timeout: str | float | timedelta
    order: Literal["due", "client"]
    threads: int | str
    engine: Literal["auto", "native", "portable"]
    retry: RetrySettings
    allow: Sequence[str]
    allow_production: bool
    max_rate: str | float | None
    max_duration: str | float | timedelta | None
    breaker: BreakerSettings
    limits: LimitsSettings
    tls: TlsSettings
    kafka: KafkaSettings
    answers: AnswersSettings
    live: str
    live_allow: Sequence[str]
    live_cert: str
    live_key: str
    live_linger: str | float | timedelta
    notify: Sequence[str]
    start_at: str | datetime | time | None
    build: str
    name: str
    slo: Sequence[str]
    validity: ValidityLimitsSettings
    watch: Sequence[WatchSettings]
    actions: Mapping[str, Sequence[str]]
    values: Mapping[str, str]
    ignore: Sequence[IgnoreRuleSettings]
