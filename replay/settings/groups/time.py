"""Settings about when requests are sent, and how long they may take."""

from typing import Annotated, ClassVar

from replay.errors import UsageError
from replay.units import SECOND_NS

from ..kinds import Duration, Factor, MomentText, ZoneText
from ..naming import NameOf
from ..row import Table, row
from .load import LoadSettings


class Window(Table, kw_only=True, frozen=True):
    """The part of the recording that is replayed."""

    from_: Annotated[
        MomentText | None,
        row(
            "First moment: 18:00, ISO 8601, or +10m from the recording's start",
            "--from",
            default="the recording's start",
            common=True,
            example="18:00",
        ),
    ] = None
    until: Annotated[
        MomentText | None,
        row(
            "Moment before which the replayed part ends: 18:00, ISO 8601, or +10m after the first moment",
            "--until",
            default="the recording's end",
            common=True,
            example="+10m",
        ),
    ] = None
    tz: Annotated[
        ZoneText | None,
        row(
            "Time zone of the first and last moment",
            "--tz",
            default="the recording's",
            example="Europe/Berlin",
        ),
    ] = None


class TimeSettings(LoadSettings, kw_only=True, frozen=True):
    """When requests are sent, and how long they may take."""

    group: ClassVar[str] = "time"

    window: Annotated[Window, row("The part of the recording that is replayed")] = Window()
    speed: Annotated[
        Factor, row("Replay speed: 2, 2x or 200% is twice as fast as recorded", "--speed", common=True)
    ] = Factor(1.0)
    compress_to_ns: Annotated[
        Duration | None,
        row(
            "Change the speed so that the replay takes this long: a day in 10m",
            "--compress-to",
            positive=True,
            example="10m",
        ),
    ] = None
    duration_ns: Annotated[
        Duration | None,
        row(
            "End after this long; a constant rate repeats a shorter trace",
            "-d",
            "--duration",
            positive=True,
            common=True,
            default="to the end of the window",
            example="10m",
        ),
    ] = None
    warm_up_ns: Annotated[
        Duration,
        row("Send the requests of this first part without measuring them", "--warm-up", default="none"),
    ] = Duration(0)
    timeout_ns: Annotated[
        Duration,
        row("Time limit for a complete response", "--timeout", lane=True, positive=True, common=True),
    ] = Duration(30 * SECOND_NS)
    max_wait_ns: Annotated[
        Duration,
        row(
            "How long a request may wait for a connection before it counts as unsent",
            "--max-wait",
            lane=True,
            positive=True,
        ),
    ] = Duration(10 * SECOND_NS)


def check(settings: TimeSettings, name_of: NameOf) -> None:
    """Raise UsageError if two of `speed`, `rate` and `compress_to` are set, or if the warm-up fills the duration."""
    if settings.compress_to_ns is not None and float(settings.speed) != 1:
        raise UsageError(
            f"{name_of('compress_to')}: it cannot be combined with speed", hint="give one of them"
        )
    if settings.rate_per_s is not None and settings.compress_to_ns is not None:
        raise UsageError(
            f"{name_of('compress_to')}: rate replaces the recorded times",
            hint="give either rate or compress_to",
        )
    if settings.rate_per_s is not None and float(settings.speed) != 1:
        raise UsageError(
            f"{name_of('speed')}: rate replaces the recorded times", hint="give either rate or speed"
        )
    if settings.duration_ns is not None and settings.warm_up_ns >= settings.duration_ns:
        raise UsageError(
            f"{name_of('warm_up')}: nothing is left to measure, because the run is not longer than the warm-up"
        )
