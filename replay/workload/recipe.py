"""The description of a generated trace: a TOML recipe, or the equivalent flags."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from replay.settings.kinds import (
    SEED_MAX,
    Duration,
    MomentText,
    Rate,
)

IDS_MAX = 1_000_000
STEPS_MAX = 64


class Curve(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """The rate over time. Give one of ramp, steps, rates with times, or file; rates are per second."""

    ramp: Annotated[tuple[Rate, Rate] | None, Meta(description="Linear change from one rate to another")] = (
        None
    )
    steps: Annotated[tuple[float, ...], Meta(description="Rates in turn, each for the same time")] = ()
    rates: Annotated[
        tuple[float, ...], Meta(description="Rates at `times`, connected by straight lines")
    ] = ()
    times: Annotated[tuple[Duration, ...], Meta(description="Times of the `rates`: 0s, 30m, 1h ...")] = ()
    file: Annotated[str | None, Meta(description="CSV of time and rate, or time and count")] = None
    from_: Annotated[MomentText | None, Meta(description="With a file: time at which to begin")] = (
        msgspec.field(name="from", default=None)
    )
    until: Annotated[MomentText | None, Meta(description="With a file: time at which to end (exclusive)")] = (
        None
    )


class RequestRule(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A request. {id}, {uuid} and {email} in its path and body get `ids` different values.

    {id} is 1 to `ids`; {uuid} and {email} depend on the seed, and are the same for the same id.
    """

    path: str
    method: str = "GET"
    weight: Annotated[float, Meta(ge=0, description="Relative frequency; ignored in a session's step")] = 1.0
    ids: Annotated[int, Meta(ge=1, le=IDS_MAX, description="Number of values of each placeholder")] = 1
    zipf: Annotated[
        float, Meta(ge=0, description="Exponent of the popularity; 0 makes all equally popular")
    ] = 0.0
    body: str | None = None
    content_type: str = "application/json"
    status: Annotated[int, Meta(ge=-1, le=599)] = -1
    bytes: Annotated[int, Meta(ge=-1)] = -1
    took_ns: Duration | None = msgspec.field(name="took", default=None)
    pause_ns: Annotated[
        Duration, Meta(description="For a session's step: mean time since the previous step")
    ] = msgspec.field(name="pause", default=Duration(0))


class SessionRule(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A kind of session: its steps in order, with exponential pauses between them."""

    step: Annotated[tuple[RequestRule, ...], Meta(min_length=1, max_length=STEPS_MAX)]
    weight: Annotated[float, Meta(ge=0)] = 1.0


class Recipe(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A generated trace. With sessions, rates are those of session starts."""

    start: Annotated[
        MomentText | None,
        Meta(
            description="Time of the start; if not given, that of a recorded curve, or 2026-01-05T00:00:00Z"
        ),
    ] = None
    duration_ns: Duration | None = msgspec.field(name="duration", default=None)
    seed: Annotated[int, Meta(ge=0, le=SEED_MAX)] = 1
    rate_per_s: Annotated[Rate | None, Meta(description="Mean rate")] = msgspec.field(
        name="rate", default=None
    )
    shape: str | None = None
    curve: Curve | None = None
    process: Literal["even", "poisson", "gamma"] = "poisson"
    cv: Annotated[
        float,
        Meta(gt=0, le=100, description="For gamma: standard deviation of the gaps divided by their mean"),
    ] = 1.0
    bursts_of: Annotated[
        str | None, Meta(description="A trace with bursts to imitate (by a fitted MMPP2)")
    ] = None
    mix_of: Annotated[str | None, Meta(description="A trace to draw requests from, in its proportions")] = (
        None
    )
    clients: Annotated[
        int, Meta(ge=1, le=1 << 22, description="Number of clients if there are no sessions")
    ] = 1_000
    request: tuple[RequestRule, ...] = ()
    session: tuple[SessionRule, ...] = ()


def beside(recipe: Recipe, path: Path) -> Recipe:
    """Return the recipe with relative paths resolved against the folder of its file."""
    curve = recipe.curve
    if curve is not None and curve.file is not None:
        curve = msgspec.structs.replace(curve, file=str(path.parent / curve.file))
    places = {
        name: None if getattr(recipe, name) is None else str(path.parent / getattr(recipe, name))
        for name in ("bursts_of", "mix_of")
    }
    return msgspec.structs.replace(recipe, curve=curve, **places)
