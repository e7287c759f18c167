"""Two prepared runs as one: each request of the first run and its twin of the second are due at the same instant."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial

import trio

from replay.errors import UsageError
from replay.results.document import RunDocument
from replay_native.ground.jit import warm

from .blocking import owns_signals, run_blocking
from .joined import Meeting, PartnerLostError
from .prepare import Prepared
from .sinks import Sink

KERNELS = ("lane.pair",)
"""The kernel modules that two runs need together, besides those of each run."""

PREPARED_NS = 1_000_000_000
"""The time from the moment at which both runs are ready until the first request is due: twice START_DELAY_NS."""

Out = str | os.PathLike[str]


def run_together(
    prepared: tuple[Prepared, Prepared],
    outs: tuple[Out, Out],
    *,
    sinks: tuple[Sequence[Sink], Sequence[Sink]] = ((), ()),
) -> tuple[RunDocument, RunDocument]:
    """Make both runs at the same instants, each into its own new folder; blocks, in any thread.

    Each lane of the first run shares its thread with that of the second one. If one run ends early, the other one
    is ended as well. Raises UsageError if the lanes cannot be paired, and the errors of `Prepared.run`.
    """
    for one in prepared:
        check_pairable(one)
    warm(KERNELS)
    return run_blocking(partial(_run_both, prepared, outs, sinks, owns_signals()))


def check_pairable(prepared: Prepared) -> None:
    """Raise UsageError if the lanes of a run cannot share a thread with those of another run."""
    scenario = prepared.scenario
    if len(prepared.targets) > 1:
        raise UsageError("--together: the scenario has several targets", hint="leave out [[also]]")
    if scenario.closed_loop:
        raise UsageError(
            "--together: a closed loop has no due times that two builds could share",
            hint="use plain `replay ab`",
        )
    (target,) = prepared.targets
    if target.target.scheme not in ("http", "https"):
        raise UsageError(
            f"--together: {target.target.scheme}:// has no native lanes", hint="use plain `replay ab`"
        )
    why = (
        "the portable engine was chosen (--engine)"
        if scenario.engine == "portable"
        else target.portable_because
    )
    if why:
        raise UsageError(f"--together needs native lanes: {why}", hint="use plain `replay ab`")


async def _run_both(
    prepared: tuple[Prepared, Prepared],
    outs: tuple[Out, Out],
    sinks: tuple[Sequence[Sink], Sequence[Sink]],
    signals: bool,
) -> tuple[RunDocument, RunDocument]:
    meeting = Meeting(PREPARED_NS)
    documents: dict[int, RunDocument] = {}
    errors: list[Exception] = []

    async def one(number: int) -> None:
        why = "the run of the other build failed"
        try:
            document = await prepared[number].run_async(
                outs[number], sinks=sinks[number], signals=signals and not number, joined=meeting.side(number)
            )
            documents[number] = document
            why = ""
        except Exception as error:
            errors.append(error)
            if not meeting.is_started:
                nursery.cancel_scope.cancel()
        finally:
            meeting.leave(number, why)

    async with trio.open_nursery() as outer:
        if signals:
            await outer.start(meeting.watch)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one, 0)
            nursery.start_soon(one, 1)
        outer.cancel_scope.cancel()
    if errors:
        raise next((error for error in errors if not isinstance(error, PartnerLostError)), errors[0])
    return documents[0], documents[1]
