"""Settings about which requests are replayed, how many, and with what bodies."""

from typing import Annotated, ClassVar, Literal

from replay import units
from replay.errors import InputError, UsageError, reason_of
from replay.files import read_whole

from ..kinds import SEED_MAX, Methods, Rate, Scale, Share
from ..naming import NameOf
from ..row import Table, row
from ..target import sendable
from .sessions import SessionSettings

BODY_METHODS = ("POST", "PUT", "PATCH")
"""Methods whose requests need a body. Without one, a request would only measure the target's refusal."""

BODY_FILE_BYTES_MAX = 64 << 20
"""The size of the largest file that a [[body]] rule may use."""


class BodyRule(Table, kw_only=True, frozen=True):
    """Bodies of requests by route, in place of recorded ones."""

    route: Annotated[str, row("Route as `replay inspect` lists it; * matches anything", metavar="ROUTE")]
    file: Annotated[
        str | None, row("File with the body, relative to this scenario; at most 64 MiB", metavar="FILE")
    ] = None
    template: Annotated[str | None, row("The body itself")] = None
    content_type: Annotated[str, row("Content-Type of the request")] = "application/json"
    fill: Annotated[
        bool, row("Replace values such as {uuid} and {n} in the body; false sends it unchanged")
    ] = True

    def read(self) -> bytes:
        """Return the body before placeholders are replaced. InputError if the file cannot be read or is too large."""
        if self.template is not None:
            return self.template.encode()
        try:
            return read_whole(self.file or "", BODY_FILE_BYTES_MAX)
        except OSError as error:
            raise InputError(
                f"the body of {self.route}: {self.file}: {reason_of(error)}",
                hint="give this [[body]] rule a file that can be read",
            ) from None


class LoadSettings(SessionSettings, kw_only=True, frozen=True):
    """Which requests are replayed, how many, and with what bodies."""

    group: ClassVar[str] = "load"

    methods: Annotated[
        Methods, row('Methods to send; "all" includes those that write', "--methods", common=True)
    ] = Methods(("GET", "HEAD"))
    only: Annotated[
        tuple[str, ...],
        row(
            "Keep only these routes or actions; * matches anything",
            "--only",
            metavar="ROUTE",
            example=["GET /v1/*"],
        ),
    ] = ()
    without: Annotated[
        tuple[str, ...],
        row(
            "Leave these routes or actions out; * matches anything",
            "--without",
            metavar="ROUTE",
            example=["GET /health"],
        ),
    ] = ()
    sample: Annotated[
        Share | None,
        row(
            "Keep this share of the requests, or of the clients if sample_by is client: 25%",
            "--sample",
            default="all",
            example="25%",
        ),
    ] = None
    sample_by: Annotated[
        Literal["request", "client"],
        row("What a sample is drawn from: requests, or clients with all their requests", "--sample-by"),
    ] = "request"
    scale: Annotated[
        Scale,
        row(
            "4: four times the requests; ROUTE=5: five times those of a route or action",
            "--scale",
            example=["POST /users=5"],
        ),
    ] = Scale()
    grow: Annotated[
        Literal["requests", "sessions", "repeat"],
        row("What scale multiplies: requests, whole sessions, or requests at the same instants", "--grow"),
    ] = "requests"
    peak_per_s: Annotated[
        Rate | None,
        row("Scale so that the busiest minute of the replay has this rate", "--peak", example="500/s"),
    ] = None
    rewrite: Annotated[
        tuple[str, ...],
        row(
            "Change request targets: a regular expression, and what replaces its matches",
            "--rewrite",
            metavar="'FROM -> TO'",
            example=["^/v1/ -> /v2/"],
        ),
    ] = ()
    rate_per_s: Annotated[
        Rate | None,
        row(
            "Constant rate in place of the recorded times: 500/s, 50/1m; max: closed loop",
            "--rate",
            example="500/s",
        ),
    ] = None
    empty_bodies: Annotated[
        bool,
        row(
            "Send POST, PUT and PATCH without a body if neither the recording nor a rule has one",
            "--empty-bodies",
            used_by="HTTP",
        ),
    ] = False
    body: Annotated[tuple[BodyRule, ...], row("Bodies by route")] = ()
    seed: Annotated[
        int,
        row(
            "Seed of all random draws; another seed generates other e-mails and UUIDs",
            "--seed",
            metavar="N",
            ge=0,
            le=SEED_MAX,
        ),
    ] = 1


def check(settings: LoadSettings, name_of: NameOf) -> None:
    """Raise UsageError for an invalid rule for bodies, and for a peak that is `max` or given beside a rate."""
    for index, rule in enumerate(settings.body):
        if not sendable(rule.content_type.replace(" ", "")):
            raise UsageError(
                f"{name_of(f'body[{index}].content_type')}: {rule.content_type!r} cannot be sent",
                hint='write a media type such as "application/json"',
            )
        if (rule.file is None) == (rule.template is None):
            raise UsageError(f"{name_of(f'body[{index}].route')}: give either file or template, and not both")
    if settings.rate_per_s is not None and settings.peak_per_s is not None:
        raise UsageError(
            f"{name_of('peak')}: rate replaces the recorded peaks", hint="give either rate or peak"
        )
    if settings.peak_per_s == units.MAX_RATE:
        raise UsageError(
            f"{name_of('peak')}: max is not the rate of a peak", hint="write a rate such as 500/s"
        )
