"""Settings about connections, clients, lanes and retries."""

from typing import Annotated, ClassVar, Literal

from replay import units
from replay.errors import UsageError
from replay.ledger.catalog import RETRYABLE
from replay.units import SECOND_NS

from ..kinds import AUTO, Count, Duration, Share, statuses_of
from ..naming import NameOf
from ..row import Table, row
from .time import TimeSettings

FAILURES = RETRYABLE
"""The outcomes without a complete response that `retry.on` may list."""


class Retry(Table, kw_only=True, frozen=True):
    """Retries of failed requests, as real clients make them, to rehearse a retry storm (docs/retries.md)."""

    attempts: Annotated[
        int, row("Most attempts of a request; 1: no retries", ge=1, le=64, used_by="HTTP")
    ] = 1
    on: Annotated[
        tuple[str, ...],
        row(
            "Statuses and failures after which a request is tried again: 503, 5xx, refused, reset, truncated, timeout ...",
            used_by="HTTP",
        ),
    ] = ("429", "502", "503", "504", "refused", "reset", "truncated", "timeout")
    methods: Annotated[
        Literal["idempotent", "all"],
        row(
            "Methods whose requests are tried again; idempotent: GET, HEAD, OPTIONS, TRACE, PUT, DELETE",
            used_by="HTTP",
        ),
    ] = "idempotent"
    backoff_ns: Annotated[
        Duration, row("Pause before the second attempt; it doubles for each further one", used_by="HTTP")
    ] = Duration(100_000_000)
    backoff_max_ns: Annotated[Duration, row("Longest pause between attempts", used_by="HTTP")] = Duration(
        10 * SECOND_NS
    )
    jitter: Annotated[
        Share, row("Largest share of a pause to subtract at random; 100%: full jitter", used_by="HTTP")
    ] = Share(1.0)
    budget: Annotated[
        Share | None,
        row("Most retries as a share of the requests", default="no limit", used_by="HTTP", example="10%"),
    ] = None
    budget_burst: Annotated[
        int, row("Most retries that the budget of a lane can accumulate", ge=1, le=1_000_000, used_by="HTTP")
    ] = 10


class ClientSettings(TimeSettings, kw_only=True, frozen=True):
    """Connections, clients and lanes."""

    group: ClassVar[str] = "clients"

    connections: Annotated[
        Count, row("Most connections at once; auto: as many as needed", "-c", "--connections", common=True)
    ] = Count(AUTO)
    connect: Annotated[
        Literal["pool", "per-client", "per-request"],
        row(
            "Which requests share a connection: all, those of one recorded client, or none",
            "--connect",
            lane=True,
            used_by="HTTP",
        ),
    ] = "pool"
    client_connections: Annotated[
        int,
        row("Most connections of one client at once (per-client)", ge=1, le=256, lane=True, used_by="HTTP"),
    ] = 6
    idle_timeout_ns: Annotated[
        Duration,
        row(
            "Close a client's connection when it has been idle this long (per-client)",
            lane=True,
            positive=True,
            used_by="HTTP",
        ),
    ] = Duration(60 * SECOND_NS)
    order: Annotated[
        Literal["due", "client"],
        row(
            "client: a request waits for the response to the same client's previous one",
            "--order",
            used_by="HTTP",
        ),
    ] = "due"
    threads: Annotated[Count, row("Lanes, one thread each", "-t", "--threads")] = Count(AUTO)
    engine: Annotated[
        Literal["auto", "native", "portable"],
        row("auto: native lanes where they can run", "--engine", used_by="HTTP"),
    ] = "auto"
    retry: Annotated[Retry, row("Requests that are tried again", used_by="HTTP")] = Retry()

    @property
    def closed_loop(self) -> bool:
        """Whether due times are ignored (`rate = "max"`)."""
        return self.rate_per_s == units.MAX_RATE

    @property
    def ordered(self) -> bool:
        """Whether a request waits for its client's previous one.

        It does if `order` requires it, or if responses change later requests.
        """
        return self.order == "client" or bool(self.capture) or self.cookies

    @property
    def by_client(self) -> bool:
        """Whether lanes know the recorded clients. All requests of a client then run on one lane."""
        return self.ordered or self.connect == "per-client"


def check(settings: ClientSettings, name_of: NameOf) -> None:
    """Raise UsageError if a setting needs recorded clients in a closed loop, or if `retry.on` has an unknown entry."""
    if settings.by_client and settings.closed_loop:
        given = {
            "order": settings.order == "client",
            "capture": settings.capture,
            "cookies": settings.cookies,
        }
        key = next((key for key, is_given in given.items() if is_given), "connect")
        raise UsageError(
            f"{name_of(key)}: a closed loop has no recorded clients: its connections send one request after another",
            hint=f"give a rate that is not max, or leave out {key}",
        )
    for index, name in enumerate(settings.retry.on):
        if not statuses_of(name) and name not in FAILURES:
            raise UsageError(
                f"{name_of(f'retry.on[{index}]')}: {name!r} is neither a status nor an outcome that can be retried",
                hint=f"write a status from 200 to 599, 4xx, 5xx, or {', '.join(FAILURES)}",
            )
