"""The Trio nursery of a run: feeds the lanes, reads what they counted once a second, stops them, saves the result."""

from __future__ import annotations

import faulthandler
import os
import secrets
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import trio

from replay.errors import EngineError, Exit, OutputError
from replay.results.document import (
    ClockPair,
    Ending,
    EngineName,
    Note,
    RecordedClock,
    RouteStart,
    RunDocument,
    Started,
    TraceIdentity,
)
from replay.results.folder import RunFolder
from replay.results.host import facts
from replay.results.recorder import Recorder
from replay.results.timeline import Second
from replay.scenario.settings import Scenario
from replay.schedule.plan import Schedule
from replay.units import SECOND_NS
from replay_native import bank
from replay_native.asks import make_asks
from replay_native.bank import Stop
from replay_native.feed import make_feed

from .addresses import AddressTable
from .answering import answer_asks
from .contract import Address, Engine, LaneSpec
from .feeder import Feeder
from .fit import fit_http, retry_of
from .fittings import Fit, Fittings
from .name_watch import NameWatch
from .parts import Part, failed_handshakes, first_seqs, lookup, named_apart
from .priority import lowered
from .watch import CircuitBreaker, Signals, ended, running

START_DELAY_NS = 500_000_000
"""Before the first due time: the run is written down, the first requests are rendered, lanes start and sleep."""

GRACE_S = 1.0
"""What is in flight at an interrupt may still be answered for this long."""

SILENT_S = 2.0
"""A lane that was told to leave and is silent for this long is given up."""

START_POLL_S = 0.005

STUCK = "a lane did not leave when it was told to"

Observer = Callable[[Second], None]
"""Called once a second with what happened in it."""


@dataclass
class _Run:
    """One run in progress."""

    schedule: Schedule
    scenario: Scenario
    folder: RunFolder
    run_id: str
    parts: list[Part]
    routes: list[RouteStart]
    observer: Observer | None
    start_ns: int = 0
    ending: Ending = field(default_factory=Ending)
    notes: list[Note] = field(default_factory=list)
    done: trio.Event = field(default_factory=trio.Event)

    def elapsed_s(self) -> float:
        return (time.monotonic_ns() - self.start_ns) / SECOND_NS

    @property
    def specs(self) -> list[LaneSpec]:
        return [spec for part in self.parts for spec in part.specs]

    def lag(self) -> dict[str, int]:
        return {name: count for part in self.parts for name, count in part.fittings.lag().items()}

    def stop(self, how: int) -> None:
        for part in self.parts:
            for writer in part.feeder.writers:
                writer.stop(how)

    def end_feeding(self) -> None:
        now = time.monotonic_ns()
        for part in self.parts:
            part.feeder.stop_ns = now


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
    TargetError, LimitError, OutputError before anything is sent; EngineError where a lane failed.
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
        state = _prepare(stack, scenario, Path(out), fitted, routes, run_id)
        state.observer = observer
        return await _supervise(state, signals, last)


def _prepare(
    stack: ExitStack, scenario: Scenario, out: Path, fitted: list[tuple[Schedule, Fittings]], routes: list[RouteStart],
    run_id: str,
) -> _Run:  # fmt: skip
    """The run folder, and the memory of every lane."""
    folder = RunFolder.create(out)
    schedules, rules = [schedule for schedule, _ in fitted], len(fitted[0][1].sessions.rules)
    parts: list[Part] = []
    lanes_made, first_route = 0, 0
    for (schedule, fittings), first_seq in zip(fitted, first_seqs(schedules), strict=True):
        specs = []
        for number in range(len(fittings.connections)):
            memory = _lane_memory(folder, lanes_made + number, len(routes), scenario, rules)
            specs.append(_lane_spec(stack, memory, schedule, fittings, number))
        lanes_made += len(specs)
        feeder = Feeder(schedule, fittings.renderer, specs, scenario.closed_loop, first_seq, first_route)
        parts.append(Part(schedule, fittings, specs, feeder, first_seq))
        first_route += len(fittings.routes)
    return _Run(schedules[0], scenario, folder, run_id, parts, routes, None)


def _lane_memory(folder: RunFolder, number: int, routes: int, scenario: Scenario, rules: int) -> bank.Bank:
    try:
        return bank.create(folder.lane(number), routes, int(scenario.limits.histograms_bytes), rules)
    except OSError as error:
        folder.discard()
        raise OutputError(
            f"{folder.lane(number)} cannot be made: {error.strerror}", hint="make room"
        ) from None


def _lane_spec(
    stack: ExitStack, memory: bank.Bank, schedule: Schedule, fittings: Fittings, number: int
) -> LaneSpec:
    """Lane `number` of its target."""
    scenario, lanes = schedule.scenario, len(fittings.connections)
    wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    stack.callback(os.close, wake_fd)
    name = fittings.name
    asking: dict[str, Any] = {}
    if name is not None and name.is_per_connection:
        asking["ask"] = lambda: name.row_for(memory)
        if fittings.engine_name == "native":
            asking["asks"] = make_asks(fittings.connections[number])
            asking["ask_fd"] = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            stack.callback(os.close, asking["ask_fd"])
    return LaneSpec(
        bank=memory,
        feed=make_feed(*fittings.feed),
        wake_fd=wake_fd,
        addresses=fittings.addresses,
        connections=fittings.connections[number],
        timeout_ns=int(scenario.timeout_ns),
        max_wait_ns=int(scenario.max_wait_ns),
        header_limit_bytes=int(scenario.limits.response_headers_bytes),
        closed_loop=scenario.closed_loop,
        tls=fittings.tls,
        number=number,
        connect=scenario.connect,
        client_connections=scenario.client_connections,
        idle_timeout_ns=int(scenario.idle_timeout_ns),
        ordered=scenario.ordered,
        retry=retry_of(scenario),
        clients=-(-schedule.trace.manifest.clients // lanes),
        lanes=lanes,
        sessions=fittings.sessions,
        **asking,
    )


def _started(state: _Run) -> Started:
    """What is known of the run when its first request is due."""
    plan, trace = state.schedule.plan, state.schedule.trace
    return Started(
        start=ClockPair(state.start_ns, time.time_ns() + state.start_ns - time.monotonic_ns()),
        routes=state.routes,
        max_wait_ns=int(state.scenario.max_wait_ns),
        closed_loop=state.scenario.closed_loop,
        engine=_engine_name(state),
        target=", ".join(part.schedule.target.url for part in state.parts),
        targets=[part.started() for part in state.parts],
        run_id=state.run_id,
        trace=TraceIdentity(
            path=plan.trace,
            digest=trace.digest,
            rows=trace.rows,
            first_at_ns=trace.start_ns,
            last_at_ns=trace.end_ns,
            utc_offset_s=plan.utc_offset_s,
        ),
        recorded_clock=RecordedClock(
            start_ns=state.schedule.recorded_origin_ns, speed=plan.speed, utc_offset_s=plan.utc_offset_s
        ),
        rows_in_window=sum(part.schedule.plan.rows_in_window for part in state.parts),
        scenario=state.scenario.saved(),
        plan=_plan_dict(state),
        skipped=_skipped(state),
        slo=[str(text) for text in state.scenario.slo],
        consumed=list(dict.fromkeys(kind for part in state.parts for kind in part.fittings.consumed)),
        limits=state.scenario.validity,
        rules=state.parts[0].fittings.sessions.labels,
        host=facts(),
    )


def _engine_name(state: _Run) -> EngineName:
    names = {part.fittings.engine_name for part in state.parts}
    return names.pop() if len(names) == 1 else "mixed"


def _skipped(state: _Run) -> dict[str, int]:
    """Rows that are not sent, by reason, over all targets."""
    skipped: Counter[str] = Counter()
    for part in state.parts:
        skipped.update(part.schedule.plan.skipped)
    return dict(skipped)


def _plan_dict(state: _Run) -> dict[str, Any]:
    plan: dict[str, Any] = msgspec.to_builtins(state.schedule.plan, enc_hook=int)
    plan.pop("by_route", None)
    return plan


async def _supervise(state: _Run, signals: bool, last: bool) -> RunDocument:
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
            recorder = Recorder(state.folder, [spec.bank for spec in state.specs], _started(state))
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
            state.ending = Ending(how="interrupted", detail="cancelled", at_s=state.elapsed_s())
            _finish(state, recorder, 0.0)
        else:
            state.ending = Ending(how="failed", detail=str(failure), at_s=state.elapsed_s())
            _save_what_can_be(state, recorder)
        raise failure from None
    if state.ending.how in ("whole", "circuit_breaker"):
        state.notes = [note for part in state.parts for note in await failed_handshakes(part)]
    return _finish(state, recorder, cpu_s)


def _first_error(error: BaseException) -> BaseException:
    """The error that matters out of a group: the first that is not a cancellation."""
    while isinstance(error, BaseExceptionGroup):
        others = [e for e in error.exceptions if not isinstance(e, trio.Cancelled)]
        error = (others or list(error.exceptions))[0]
    return error


async def _run_lanes(state: _Run) -> None:
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


async def _step_aside(state: _Run, last: bool) -> None:
    """The lanes come first, once their threads are there: they would inherit the lower priority."""
    while not all(running(spec) for spec in state.specs):
        await trio.sleep(START_POLL_S)
    with lowered(for_good=last):
        await trio.sleep_forever()


async def _tick(state: _Run, recorder: Recorder) -> None:
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


async def _follow_name(state: _Run, part: Part, name: NameWatch) -> None:
    """A target's lanes use what its name says, and are answered where they ask; the run ends where that is not allowed."""

    def use(addresses: tuple[Address, ...]) -> list[Address]:
        full: list[Address] = []
        for spec, writer in zip(part.specs, part.feeder.writers, strict=True):
            full = AddressTable(spec.bank).use(addresses)
            writer.wake()
        return full

    def stop(why: str) -> None:
        if state.ending.how == "whole":
            _end(state, "not_allowed", why)

    name.begin(use, stop, state.elapsed_s)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(name.run)
        for spec, writer in zip(part.specs, part.feeder.writers, strict=True):
            if spec.ask_fd >= 0:
                nursery.start_soon(answer_asks, spec, writer.wake)


def _end(state: _Run, how: str, detail: str) -> None:
    """Tell feeder and lanes to come to an end in order."""
    state.ending = Ending(how=how, detail=detail, at_s=state.elapsed_s())  # type: ignore[arg-type]
    state.end_feeding()
    state.stop(Stop.DRAIN)


async def _obey(state: _Run, received: Signals, recorder: Recorder) -> None:
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
        state.ending = Ending(how="failed", detail=STUCK, at_s=state.elapsed_s())
        _save_what_can_be(state, recorder)
        print(f"replay: {STUCK}; what was measured is in {state.folder.path}", file=sys.stderr, flush=True)
        os._exit(Exit.CRASHED)


async def _end_closed_loop(state: _Run) -> None:
    """A closed loop ends by the clock alone."""
    assert state.scenario.duration_ns is not None
    await trio.sleep(state.scenario.duration_ns / SECOND_NS - state.elapsed_s())
    state.end_feeding()
    state.stop(Stop.DRAIN)


def _finish(state: _Run, recorder: Recorder, cpu_s: float) -> RunDocument:
    """Write the rest of the run folder."""
    lanes_cpu_s = (
        sum(
            int(spec.bank.counters[bank.C.cpu_last_ns] - spec.bank.counters[bank.C.cpu_first_ns])
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


def _save_what_can_be(state: _Run, recorder: Recorder) -> None:
    """After a failure: the run as far as it got. Where even that fails the lanes' memory stays for a recovery."""
    try:
        _finish(state, recorder, 0.0)
    except OutputError:
        recorder.close()


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
