"""Settings that protect the target and this machine: permissions, limits and the circuit breaker."""

from typing import Annotated, ClassVar

from replay.units import SECOND_NS

from ..kinds import Count, Duration, Rate, Share, Size
from ..naming import NameOf
from ..row import Table, row
from .clients import ClientSettings

DEFAULT_MAX_RATE_PER_S = 1_000.0
"""The highest rate of a plan for a target beyond loopback, unless `--max-rate` is given."""

DEFAULT_MAX_DURATION_NS = 3600 * SECOND_NS
"""The longest plan for a target beyond loopback, unless `--max-duration` is given."""


class Breaker(Table, kw_only=True, frozen=True):
    """The circuit breaker: it ends a run when too many requests fail."""

    on: Annotated[bool, row("End the run when too many requests fail")] = True
    share: Annotated[
        Share,
        row("End the run when more than this share of the finished requests failed (errors, timeouts, 5xx)"),
    ] = Share(0.5)
    over_ns: Annotated[Duration, row("Time span over which the share is taken")] = Duration(10 * SECOND_NS)


class Limits(Table, kw_only=True, frozen=True):
    """Bounds on memory and sockets."""

    response_headers_bytes: Annotated[
        Size,
        row(
            "Longest header section of a response; a longer one counts as malformed",
            lane=True,
            used_by="HTTP",
        ),
    ] = Size(65_536)
    auto_connections: Annotated[Count, row('Most connections of `connections = "auto"`')] = Count(1_024)
    answer_bytes: Annotated[
        Size, row("How much of a response captures and checks read, head and body", used_by="HTTP")
    ] = Size(65_536)
    cookies_bytes: Annotated[Size, row("Largest cookie jar of a client", used_by="HTTP")] = Size(4_096)
    sessions_bytes: Annotated[
        Size,
        row(
            "Refuse a plan if the session values of all clients could need more memory than this",
            used_by="HTTP",
        ),
    ] = Size(2 << 30)
    histograms_bytes: Annotated[Size, row("Most memory of each lane for histograms by route")] = Size(
        256 << 20
    )


class SafetySettings(ClientSettings, kw_only=True, frozen=True):
    """Permissions, limits and the circuit breaker, which protect the target and this machine."""

    group: ClassVar[str] = "safety"

    allow: Annotated[
        tuple[str, ...],
        row(
            "Hosts beyond loopback that may be a target: names, *.name, addresses, networks",
            "--allow",
            metavar="HOST",
            common=True,
            example=["*.staging.example"],
        ),
    ] = ()
    allow_production: Annotated[
        bool, row("Allow a target that is the origin of the recording", "--allow-production")
    ] = False
    max_rate_per_s: Annotated[
        Rate | None,
        row(
            "Refuse a plan with a busier second",
            "--max-rate",
            default="1,000/s beyond loopback",
            example="2000/s",
        ),
    ] = None
    max_duration_ns: Annotated[
        Duration | None,
        row(
            "Refuse a longer plan",
            "--max-duration",
            default="1h beyond loopback",
            positive=True,
            example="2h",
        ),
    ] = None
    breaker: Annotated[Breaker, row("The circuit breaker")] = Breaker()
    limits: Annotated[Limits, row("Bounds on memory and sockets")] = Limits()


def check(settings: SafetySettings, name_of: NameOf) -> None:
    """Do nothing: the settings of this group do not depend on each other."""
