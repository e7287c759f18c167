"""The Trio nursery of a run.

It feeds the lanes, reads their counters every second, stops the lanes, and saves the result.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import secrets
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import trio

from replay.errors import (
    EngineError,
    Exit,
    ReplayError,
    Sending,
    UsageError,
)
from replay.lane.addresses import AddressTable
from replay.lane.contract import Address, Engine, LaneSpec
from replay.lane.name_watch import NameWatch
from replay.lane.resolve_replies import answer_resolve_requests
from replay.ledger.control_workload import control_ns
from replay.protocols.adapter import ProtocolAdapter
from replay.protocols.protocol import TargetPlan
from replay.results.document import EndedHow, Ending, RouteStart, RunDocument
from replay.settings.scenario import Scenario
from replay.shown import shown
from replay.units import SECOND_NS, format_duration
from replay_native.ledger import lane_metrics
from replay_native.ledger.lane_metrics import Stop

from .answers.keeper import LEAVE_S
from .failure import failure_of
from .joined import JoinedRun
from .live import LiveSource
from .order import Order
from .priority import lowered
from .recording import Recording
from .run_state import RunState, make_state, started
from .sinks import Sink, make_sinks
from .sinks.threads import SinkThreads
from .target_runs import (
    TargetRun,
    lookup,
    named_apart,
)
from .watch import (
    CircuitBreaker,
    EndRequests,
    Signals,
    ended,
    running,
)

START_DELAY_NS = 500_000_000
"""The time until the first request is due, in which the start is saved, requests are rendered, and lanes start."""

GRACE_S = 1.0
"""How long the run waits for responses to requests in flight after an interrupt."""

SILENT_S = 2.0
"""How long a lane may take to react to a stop before the run no longer waits for it."""

START_POLL_S = 0.005

STUCK = "a lane did not end when it was asked to"


async def run_targets(
    plans: Sequence[TargetPlan],
    scenario: Scenario,
    out: str | os.PathLike[str],
    *,
    sinks: Sequence[Sink | str] = (),
    start_at_ns: int | None = None,
    signals: bool = False,
    last: bool = False,
    live: LiveSource | None = None,
    order: Order | None = None,
    joined: JoinedRun | None = None,
) -> RunDocument:
    """Replay against planned targets, save the run in the new folder `out`, and return its run.json.

    All targets share one timeline: requests recorded at the same time are due at the same instant. See
    `Prepared.run` for the options. With `signals` the run owns the process, and SIGINT, SIGTERM and SIGHUP
    stop it cleanly. `live` feeds the schedule of a followed source; a signal ends that source. `order` makes the run a
    share of a larger run. A `joined` run starts together with another one and shares its lanes' threads; its
    caller handles signals.
    """
    run_id = order.run_id if order is not None else secrets.token_hex(4)
    _check_start(start_at_ns)
    control_ns()  # The result is cached. The load would disturb a later measurement.
    others = SinkThreads(make_sinks(sinks))
    with ExitStack() as stack:
        opened: list[tuple[TargetPlan, ProtocolAdapter]] = []
        routes: list[RouteStart] = []
        share = order.share if order is not None else None
        for plan in plans:
            plan.share = share
            adapter = await plan.open(run_id, len(routes))
            stack.callback(adapter.close)
            opened.append((plan, adapter))
            routes += named_apart(adapter.started_routes(), routes, plan.target.authority)
        _check_keeping(scenario, [adapter for _, adapter in opened])
        state = make_state(stack, scenario, Path(out), opened, routes, run_id, share)
        state.start_at_ns, state.live, state.joined = start_at_ns, live, joined
        try:
            if order is not None:
                for target in state.targets:
                    target.feeder.limit = lambda: order.until_ns
                await _await_instant(state, order)
            own = Signals() if joined is None else joined.received
            received = order.requests if order is not None else own
            return await _supervise(state, others, received, signals, last)
        finally:
            Sending.began = Sending.began or state.sent() > 0
            others.close()
            await others.caught_up()


def _check_start(start_at_ns: int | None) -> None:
    """Raise UsageError if the start time is in the past, or so near that the first requests would be late."""
    if start_at_ns is None:
        return
    left_ns = start_at_ns - time.time_ns()
    if left_ns < START_DELAY_NS:
        when = f"was {format_duration(-left_ns)} ago" if left_ns < 0 else f"is in {format_duration(left_ns)}"
        raise UsageError(
            f"the run cannot start at its instant, which {when}",
            hint=f"give an instant at least {format_duration(START_DELAY_NS)} from now",
        )


async def _await_instant(state: RunState, order: Order) -> None:
    """Wait for the start time from the coordinator, and remove the run folder if that fails or is cancelled."""
    try:
        state.begin_ns = await order.instant(state)
    except BaseException:
        state.folder.discard()
        raise


def _check_keeping(scenario: Scenario, adapters: Sequence[ProtocolAdapter]) -> None:
    """Raise UsageError if responses must be kept but no target sends responses that lanes can keep."""
    if scenario.answers.keep in (None, "none") or any(adapter.keeps_responses for adapter in adapters):
        return
    raise UsageError(
        f"answers.keep = {scenario.answers.keep}: no target sends HTTP responses, and only these can be kept",
        hint="leave out --keep-answers, or answers.keep in the scenario file",
    )


async def _common_start_ns(state: RunState) -> int:
    """Return when the first request may be due, which is the same instant for joined runs."""
    return _start_ns(state) if state.joined is None else await state.joined.start_ns()


def _start_ns(state: RunState) -> int:
    """Return when the first request may be due, by CLOCK_MONOTONIC."""
    now_ns = time.monotonic_ns()
    if state.begin_ns is not None:
        return state.begin_ns
    if state.start_at_ns is None:
        return now_ns + START_DELAY_NS
    return now_ns + state.start_at_ns - time.time_ns()


async def _supervise(
    state: RunState, others: SinkThreads, received: EndRequests, signals: bool, last: bool
) -> RunDocument:
    """Run the lanes in an inner nursery that nothing cancels, and around them the tasks that may stop them."""
    _enable_faulthandler()
    state.start_ns = _start_ns(state)
    recording: Recording | None = None
    breaker = CircuitBreaker(state.scenario.breaker, partial(_break_off, state))
    try:
        _check_start(state.start_at_ns)
        async with trio.open_nursery() as nursery:
            if signals and state.joined is None and isinstance(received, Signals):
                await nursery.start(received.watch)
            state.start_ns = await _common_start_ns(state)
            all_metrics = [spec.metrics for spec in state.specs]
            _begin_live(state)
            recording = Recording(state.folder, all_metrics, started(state), [breaker], others)
            _begin_keeping(state)
            cpu_before = time.process_time()
            _start_tasks(nursery, state, recording, received, signals, last)
            await _run_lanes(state)
            cpu_s = time.process_time() - cpu_before
            nursery.cancel_scope.cancel()
    except BaseException as error:
        _end_keeping(state, SILENT_S)
        if recording is None:
            state.folder.discard()
            raise
        failure = _first_error(error)
        if isinstance(failure, trio.Cancelled | KeyboardInterrupt):
            state.ending = Ending(how="interrupted", detail="cancelled", at_s=state.ended_at_s())
            _save_what_can_be(state, recording)
            raise failure from None
        raise _failed(state, recording, failure) from None
    try:
        await trio.to_thread.run_sync(_end_keeping, state)
        if state.ending.how in ("whole", "circuit_breaker"):
            state.notes = [
                note for target in state.targets for note in await target.adapter.afterwards(target.specs)
            ]
        recording.tick(
            time.monotonic_ns(), last=True, watched=state.sampler.take(), events=state.take_events()
        )
        await others.caught_up()
        document = _finish(state, recording, cpu_s)
        await others.caught_up()
        return recording.with_last_notes(document)
    except (ReplayError, OSError) as error:
        raise _failed(state, recording, error) from None


def _start_tasks(
    nursery: trio.Nursery,
    state: RunState,
    recording: Recording,
    received: EndRequests,
    signals: bool,
    last: bool,
) -> None:
    """Start all tasks that run beside the lanes."""
    for target in state.targets:
        nursery.start_soon(target.feeder.run, state.start_ns)
        nursery.start_soon(target.adapter.background)
        if target.adapter.name is not None:
            nursery.start_soon(_follow_name, state, target, target.adapter.name)
    nursery.start_soon(state.sampler.run)
    nursery.start_soon(_tick, state, recording)
    nursery.start_soon(_watch_live, state, recording)
    nursery.start_soon(_obey, state, received, recording)
    if (signals or not isinstance(received, Signals)) and _may_step_aside(state):
        nursery.start_soon(_step_aside, state, last)
    if state.scenario.closed_loop and state.scenario.duration_ns is not None:
        nursery.start_soon(_end_closed_loop, state)


def _begin_keeping(state: RunState) -> None:
    """Start writing the responses that lanes keep."""
    if state.answers is not None:
        state.answers.begin(state.start_ns)


def _end_keeping(state: RunState, patience_s: float = LEAVE_S) -> None:
    """Write the remaining kept responses, after the lanes have ended."""
    if state.answers is not None:
        state.answers.end(patience_s)


def _enable_faulthandler() -> None:
    """Make a crash in a kernel print its location, if standard error is a file, which it is not in a notebook."""
    with contextlib.suppress(AttributeError, OSError, RuntimeError, ValueError):
        faulthandler.enable()


def _failed(state: RunState, recording: Recording, error: BaseException) -> BaseException:
    """Save what can be saved of a failed run, and return the error to raise."""
    state.ending = Ending(how="failed", detail=str(error), at_s=state.ended_at_s())
    saved = _save_what_can_be(state, recording)
    return failure_of(error, state.folder, state.sent(), saved=saved)


def _first_error(error: BaseException) -> BaseException:
    """Return the relevant error of a group: the first that is not a cancellation."""
    while isinstance(error, BaseExceptionGroup):
        others = [e for e in error.exceptions if not isinstance(e, trio.Cancelled)]
        error = (others or list(error.exceptions))[0]
    return error


async def _run_lanes(state: RunState) -> None:
    """Run all lanes to their end. A cancellation from outside stops them at once, and waits for them.

    If a lane fails, the others are stopped, and its error is raised when all have ended.
    """
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
                for target in state.targets:
                    engine = target.adapter.engine if state.joined is None else state.joined.engine
                    for spec in target.specs:
                        inner.start_soon(one, engine, spec)
        state.done.set()
        outer.cancel_scope.cancel()
    if failures:
        raise failures[0]


def _may_step_aside(state: RunState) -> bool:
    """Return whether this thread may get less CPU time than the lanes.

    It may not if it runs the portable engine, or forwards entries as they arrive.
    """
    return state.live is None and all(target.adapter.engine_name != "portable" for target in state.targets)


async def _step_aside(state: RunState, last: bool) -> None:
    """Lower the priority of this thread once all lanes' threads exist, because later threads would inherit it."""
    while not all(running(spec) for spec in state.specs):
        await trio.sleep(START_POLL_S)
    with lowered(for_good=last):
        await trio.sleep_forever()


async def _tick(state: RunState, recording: Recording) -> None:
    """Pass the counts to the sinks at each full second."""
    number = 1
    while True:
        await trio.sleep(max(0.0, number - state.elapsed_s()))
        recording.tick(
            time.monotonic_ns(), lag=state.lag(), watched=state.sampler.take(), events=state.take_events()
        )
        if state.live is not None:
            recording.source_changed(state.live.so_far())
        number = int(state.elapsed_s()) + 1


def _break_off(state: RunState, why: str) -> None:
    """End the run because the circuit breaker opened, unless the run is already ending."""
    if state.ending.how == "whole" and not state.done.is_set():
        _end(state, "circuit_breaker", why)


async def _follow_name(state: RunState, target: TargetRun, name: NameWatch) -> None:
    """Keep a target's addresses current, and answer its lanes' lookups.

    The run ends if no address is allowed any more.
    """

    def use(addresses: tuple[Address, ...]) -> list[Address]:
        full: list[Address] = []
        for spec, writer in zip(target.specs, target.feeder.writers, strict=True):
            full = AddressTable(spec.metrics).use(addresses)
            writer.wake()
        hosts = ", ".join(dict.fromkeys(address.host for address in addresses))
        state.happened("address", f"{target.planned.target.host} is now at {hosts}")
        return full

    def stop(why: str) -> None:
        if state.ending.how == "whole":
            _end(state, "not_allowed", why)

    name.begin(use, stop, state.elapsed_s)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(name.run)
        for spec, writer in zip(target.specs, target.feeder.writers, strict=True):
            if spec.resolve_fd >= 0:
                nursery.start_soon(answer_resolve_requests, spec, writer.wake)


def _end(state: RunState, how: str, detail: str) -> None:
    """Record how the run ends, and make the feeder and the lanes end normally."""
    state.ending = Ending(how=how, detail=detail, at_s=state.ended_at_s())  # type: ignore[arg-type]
    state.happened(how, detail)
    state.end_feeding()
    state.stop(Stop.DRAIN)
    if state.joined is not None:
        state.joined.ends(detail)


async def _obey(state: RunState, received: EndRequests, recording: Recording) -> None:
    """Handle requests to end the run: the first drains within the grace time, the second aborts.

    With a followed source, the first one ends the source, and requests in flight get its `drain_s` before the grace
    time. A lane that does not stop even then cannot be cancelled: the measurements are saved, and the process ends.
    """
    await received.first.wait()
    if state.live is not None:
        state.live.finish(received.name)
        with trio.move_on_after(state.live.drain_s):
            await received.second.wait()
    _end(state, "interrupted", received.name)
    with trio.move_on_after(GRACE_S):
        await received.second.wait()
    state.stop(Stop.ABANDON)
    await trio.sleep(SILENT_S)
    if not all(ended(spec) for spec in state.specs):
        failure = _failed(state, recording, EngineError(STUCK))
        hint = getattr(failure, "hint", "")
        print(shown(f"replay: {failure} ({hint})"), file=sys.stderr, flush=True)
        os._exit(Exit.CRASHED)


def _begin_live(state: RunState) -> None:
    """Start reading the followed source, if there is one."""
    if state.live is not None:
        state.live.begin(state.start_clock(), state.routes, [spec.metrics for spec in state.specs])


async def _watch_live(state: RunState, recording: Recording) -> None:
    """Watch a followed source until the run ends."""
    if state.live is not None:
        await state.live.watch(partial(_end_live, state), recording.started_changed)


def _end_live(state: RunState, how: str, detail: str) -> None:
    """End the run because the source cannot be followed any further, unless the run is already ending."""
    if state.ending.how == "whole" and not state.done.is_set():
        _end(state, how, detail)


async def _end_closed_loop(state: RunState) -> None:
    """End a closed loop after the duration of the scenario, because its schedule has no end."""
    assert state.scenario.duration_ns is not None
    await trio.sleep(state.scenario.duration_ns / SECOND_NS - state.elapsed_s())
    state.end_feeding()
    state.stop(Stop.DRAIN)


def _finish(state: RunState, recording: Recording, cpu_s: float) -> RunDocument:
    """Complete the run folder, and return run.json."""
    followed = {} if state.live is None else _followed(state, state.live)
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
    return recording.finish(
        time.monotonic_ns(),
        ending=state.ending,
        control_cpu_s=control_cpu_s,
        lookup=partial(lookup, state.targets),
        lanes_lost=sum(1 for spec in state.specs if not ended(spec)),
        kafka=[target.adapter.figures() for target in state.targets],
        notes=[
            *(note for target in state.targets for note in target.adapter.notes()),
            *state.notes,
            *state.live_notes,
        ],
        answers=state.answers.figures() if state.answers is not None else None,
        names=[figures for target in state.targets if (figures := target.name_figures()) is not None],
        watches=state.sampler.figures(),
        **followed,
    )


def _followed(state: RunState, live: LiveSource) -> dict[str, Any]:
    """Return the facts about a followed source that are known only at the end of the run.

    If nothing else ended the run, its ending is that of the source.
    """
    live.recorded_routes()
    if state.ending.how == "whole":
        how: EndedHow = "failed" if live.failed() else "whole"
        state.ending = Ending(how=how, detail=live.why_ended(), at_s=state.ended_at_s())
    planned = sum(int(spec.metrics.counters[lane_metrics.C.planned]) for spec in state.specs)
    source = live.figures(planned)
    state.live_notes = live.notes()
    return {"source": source, "trace": live.identity()}


def _save_what_can_be(state: RunState, recording: Recording) -> bool:
    """Save the results until now, and return whether that worked.

    If it did not, the lanes' memory stays for a recovery.
    """
    try:
        _finish(state, recording, 0.0)
    except (ReplayError, OSError):
        recording.close()
        return False
    return True
