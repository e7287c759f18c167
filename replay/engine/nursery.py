"""The Trio nursery of a run: feeds the lanes, reads what they counted once a second, stops them, saves the result."""

from __future__ import annotations

import faulthandler
import os
import secrets
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import trio

from replay.errors import (
    EngineError,
    Exit,
    ReplayError,
    Sending,
)
from replay.lane.addresses import AddressTable
from replay.lane.contract import Address, Engine, LaneSpec
from replay.lane.name_watch import NameWatch
from replay.lane.resolve_replies import answer_resolve_requests
from replay.plan.schedule import Schedule
from replay.protocols.adapter import Fit, Fittings
from replay.protocols.http1.adapter import fit_http
from replay.results.document import Ending, RouteStart, RunDocument
from replay.results.recorder import Recorder
from replay.settings.scenario import Scenario
from replay.shown import shown
from replay.units import SECOND_NS
from replay_native.ledger import lane_metrics
from replay_native.ledger.lane_metrics import Stop

from .failure import failure_of
from .prepare import (
    Observer,
    RunState,
    prepare,
    started,
)
from .priority import lowered
from .target_runs import (
    Part,
    failed_handshakes,
    lookup,
    named_apart,
)
from .watch import (
    CircuitBreaker,
    Signals,
    ended,
    running,
)

START_DELAY_NS = 500_000_000
"""Before the first due time: the run is written down, the first requests are rendered, lanes start and sleep."""

GRACE_S = 1.0
"""What is in flight at an interrupt may still be answered for this long."""

SILENT_S = 2.0
"""A lane that was told to leave and is silent for this long is given up."""

START_POLL_S = 0.005

STUCK = "a lane did not leave when it was told to"


async def run(
    schedule: Schedule,
    scenario: Scenario,
    out: str | os.PathLike[str],
    *,
    observer: Observer | None = None,
    signals: bool = False,
    last: bool = False,
    fit: Fit | None = None,
    also: Sequence[Schedule] = (),
) -> RunDocument:
    """Replay a schedule and save the run in the new folder `out`; returns its run.json.

    `fit` makes what a target needs where that is not HTTP. `also` are further schedules on the same timeline: what is due
    at the same recorded moment is due at the same instant.

    With `signals` the process is the run's own: SIGINT and SIGTERM end it in order; with `last` no run follows in it.
    Cancellation abandons it, and saves what was measured.
    TargetError, LimitError, OutputError before anything is sent; EngineError where it failed after that.
    """
    run_id = secrets.token_hex(4)
    with ExitStack() as stack:
        fitted: list[tuple[Schedule, Fittings]] = []
        routes: list[RouteStart] = []
        for one in (schedule, *also):
            fittings = await (fit or fit_http)(one, one.scenario, run_id, len(routes))
            stack.callback(fittings.close)
            fitted.append((one, fittings))
            routes += named_apart(fittings.routes, routes, one.target.authority)
        state = prepare(stack, scenario, Path(out), fitted, routes, run_id)
        state.observer = observer
        try:
            return await _supervise(state, signals, last)
        finally:
            Sending.began = Sending.began or state.sent() > 0


async def _supervise(state: RunState, signals: bool, last: bool) -> RunDocument:
    """Lanes in an inner nursery that nothing cancels; around them whoever may tell them to stop."""
    faulthandler.enable()
    received = Signals()
    state.start_ns = time.monotonic_ns() + START_DELAY_NS
    recorder: Recorder | None = None
    try:
        async with trio.open_nursery() as nursery:
            if signals:
                await nursery.start(received.watch)
            state.start_ns = time.monotonic_ns() + START_DELAY_NS
            recorder = Recorder(state.folder, [spec.metrics for spec in state.specs], started(state))
            cpu_before = time.process_time()
            for part in state.parts:
                nursery.start_soon(part.feeder.run, state.start_ns)
                nursery.start_soon(part.fittings.background)
                if part.fittings.name is not None:
                    nursery.start_soon(_follow_name, state, part, part.fittings.name)
            nursery.start_soon(_tick, state, recorder)
            nursery.start_soon(_obey, state, received, recorder)
            if signals and all(part.fittings.engine_name != "portable" for part in state.parts):
                nursery.start_soon(_step_aside, state, last)
            if state.scenario.closed_loop and state.scenario.duration_ns is not None:
                nursery.start_soon(_end_closed_loop, state)
            await _run_lanes(state)
            cpu_s = time.process_time() - cpu_before
            nursery.cancel_scope.cancel()
    except BaseException as error:
        if recorder is None:
            state.folder.discard()
            raise
        failure = _first_error(error)
        if isinstance(failure, trio.Cancelled | KeyboardInterrupt):
            state.ending = Ending(how="interrupted", detail="cancelled", at_s=state.ended_at_s())
            _save_what_can_be(state, recorder)
            raise failure from None
        raise _failed(state, recorder, failure) from None
    try:
        if state.ending.how in ("whole", "circuit_breaker"):
            state.notes = [note for part in state.parts for note in await failed_handshakes(part)]
        return _finish(state, recorder, cpu_s)
    except (ReplayError, OSError) as error:
        raise _failed(state, recorder, error) from None


def _failed(state: RunState, recorder: Recorder, error: BaseException) -> BaseException:
    """Save what can be saved of a run that failed; what to raise."""
    state.ending = Ending(how="failed", detail=str(error), at_s=state.ended_at_s())
    saved = _save_what_can_be(state, recorder)
    return failure_of(error, state.folder, state.sent(), saved=saved)


def _first_error(error: BaseException) -> BaseException:
    """The error that matters out of a group: the first that is not a cancellation."""
    while isinstance(error, BaseExceptionGroup):
        others = [e for e in error.exceptions if not isinstance(e, trio.Cancelled)]
        error = (others or list(error.exceptions))[0]
    return error


async def _run_lanes(state: RunState) -> None:
    """All lanes to their end. A cancellation from outside tells them to leave at once, and waits for that."""
    failures: list[BaseException] = []

    async def one(engine: Engine, spec: LaneSpec) -> None:
        try:
            await engine(spec)
        except EngineError as error:
            failures.append(error)
            state.stop(Stop.ABANDON)

    async def leave_on_cancel() -> None:
        try:
            await trio.sleep_forever()
        finally:
            if not state.done.is_set():
                state.stop(Stop.ABANDON)

    async with trio.open_nursery() as outer:
        outer.start_soon(leave_on_cancel)
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as inner:
                for part in state.parts:
                    for spec in part.specs:
                        inner.start_soon(one, part.fittings.engine, spec)
        state.done.set()
        outer.cancel_scope.cancel()
    if failures:
        raise failures[0]


async def _step_aside(state: RunState, last: bool) -> None:
    """The lanes come first, once their threads are there: they would inherit the lower priority."""
    while not all(running(spec) for spec in state.specs):
        await trio.sleep(START_POLL_S)
    with lowered(for_good=last):
        await trio.sleep_forever()


async def _tick(state: RunState, recorder: Recorder) -> None:
    """Once a second, on the second: write it down, show it, and look at the circuit breaker."""
    breaker = CircuitBreaker(state.scenario.breaker)
    number = 1
    while True:
        await trio.sleep(max(0.0, number - state.elapsed_s()))
        second = recorder.tick(time.monotonic_ns(), lag=state.lag())
        if state.observer is not None:
            state.observer(second)
        if state.ending.how == "whole" and (why := breaker.open(second)):
            _end(state, "circuit_breaker", why)
        number = int(state.elapsed_s()) + 1


async def _follow_name(state: RunState, part: Part, name: NameWatch) -> None:
    """A target's lanes use what its name says, and are answered where they ask; the run ends where that is not allowed."""

    def use(addresses: tuple[Address, ...]) -> list[Address]:
        full: list[Address] = []
        for spec, writer in zip(part.specs, part.feeder.writers, strict=True):
            full = AddressTable(spec.metrics).use(addresses)
            writer.wake()
        return full

    def stop(why: str) -> None:
        if state.ending.how == "whole":
            _end(state, "not_allowed", why)

    name.begin(use, stop, state.elapsed_s)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(name.run)
        for spec, writer in zip(part.specs, part.feeder.writers, strict=True):
            if spec.resolve_fd >= 0:
                nursery.start_soon(answer_resolve_requests, spec, writer.wake)


def _end(state: RunState, how: str, detail: str) -> None:
    """Tell feeder and lanes to come to an end in order."""
    state.ending = Ending(how=how, detail=detail, at_s=state.ended_at_s())  # type: ignore[arg-type]
    state.end_feeding()
    state.stop(Stop.DRAIN)


async def _obey(state: RunState, received: Signals, recorder: Recorder) -> None:
    """An interrupt: an end in order within the grace, at once at the second one.

    A lane that does not leave even then cannot be cancelled: what was measured is saved, and the process ends.
    """
    await received.first.wait()
    _end(state, "interrupted", received.name)
    with trio.move_on_after(GRACE_S):
        await received.second.wait()
    state.stop(Stop.ABANDON)
    await trio.sleep(SILENT_S)
    if not all(ended(spec) for spec in state.specs):
        failure = _failed(state, recorder, EngineError(STUCK))
        hint = getattr(failure, "hint", "")
        print(shown(f"replay: {failure} ({hint})"), file=sys.stderr, flush=True)
        os._exit(Exit.CRASHED)


async def _end_closed_loop(state: RunState) -> None:
    """A closed loop ends by the clock alone."""
    assert state.scenario.duration_ns is not None
    await trio.sleep(state.scenario.duration_ns / SECOND_NS - state.elapsed_s())
    state.end_feeding()
    state.stop(Stop.DRAIN)


def _finish(state: RunState, recorder: Recorder, cpu_s: float) -> RunDocument:
    """Write the rest of the run folder."""
    lanes_cpu_s = (
        sum(
            int(
                spec.metrics.counters[lane_metrics.C.cpu_last_ns]
                - spec.metrics.counters[lane_metrics.C.cpu_first_ns]
            )
            for spec in state.specs
        )
        / SECOND_NS
    )
    control_cpu_s = max(0.0, cpu_s - lanes_cpu_s)
    return recorder.finish(
        time.monotonic_ns(),
        ending=state.ending,
        control_cpu_s=control_cpu_s,
        lookup=partial(lookup, state.parts),
        lanes_lost=sum(1 for spec in state.specs if not ended(spec)),
        kafka=[part.fittings.figures() for part in state.parts],
        notes=[*(note for part in state.parts for note in part.fittings.notes()), *state.notes],
        names=[figures for part in state.parts if (figures := part.name_figures()) is not None],
    )


def _save_what_can_be(state: RunState, recorder: Recorder) -> bool:
    """The run as far as it got, and whether it was saved. Else the lanes' memory stays for a recovery."""
    try:
        _finish(state, recorder, 0.0)
    except (ReplayError, OSError):
        recorder.close()
        return False
    return True


def run_blocking(
    schedule: Schedule,
    scenario: Scenario,
    out: str | os.PathLike[str],
    observer: Observer | None = None,
    fit: Fit | None = None,
    also: Sequence[Schedule] = (),
    last: bool = False,
) -> RunDocument:
    """`run` for a program that is not under Trio, with SIGINT and SIGTERM ending it in order."""
    return trio.run(
        lambda: run(schedule, scenario, out, observer=observer, signals=True, last=last, fit=fit, also=also)
    )
