"""A run before its first request: its folder, the memory of its lanes, what is written down at its start."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import trio

from replay.errors import OutputError, reason_of
from replay.lane.contract import LaneSpec
from replay.ledger.host import facts
from replay.plan.schedule import Schedule
from replay.protocols.adapter import Fittings
from replay.protocols.feeder import Feeder
from replay.protocols.http1.adapter import retry_of
from replay.results.document import (
    ClockPair,
    Ending,
    EngineName,
    Note,
    RecordedClock,
    RouteStart,
    Started,
    TraceIdentity,
)
from replay.results.folder import RunFolder
from replay.results.timeline import Second
from replay.settings.scenario import Scenario
from replay.units import SECOND_NS
from replay_native.feed.resolve import make_resolve_rings
from replay_native.feed.ring import make_feed
from replay_native.ledger import lane_metrics

from .target_runs import Part, first_seqs

Observer = Callable[[Second], None]
"""Called once a second with what happened in it."""


@dataclass
class RunState:
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
        """Since the first request could be due; negative before that."""
        return (time.monotonic_ns() - self.start_ns) / SECOND_NS

    def ended_at_s(self) -> float:
        """When a run that ends now has ended: at 0 where nothing was due yet."""
        return max(self.elapsed_s(), 0.0)

    @property
    def specs(self) -> list[LaneSpec]:
        """Of all lanes, those of the first target first."""
        return [spec for part in self.parts for spec in part.specs]

    def sent(self) -> int:
        """Requests that were sent so far."""
        return sum(int(spec.metrics.counters[lane_metrics.C.sent]) for spec in self.specs)

    def lag(self) -> dict[str, int]:
        """The consumers' lag by partition now."""
        return {name: count for part in self.parts for name, count in part.fittings.lag().items()}

    def stop(self, how: int) -> None:
        """Tell every lane (see `replay_native.ledger.lane_metrics.Stop`)."""
        for part in self.parts:
            for writer in part.feeder.writers:
                writer.stop(how)

    def end_feeding(self) -> None:
        """Feed nothing that is due after this moment."""
        now = time.monotonic_ns()
        for part in self.parts:
            part.feeder.stop_ns = now


@trio.lowlevel.enable_ki_protection
def prepare(
    stack: ExitStack, scenario: Scenario, out: Path, fitted: list[tuple[Schedule, Fittings]], routes: list[RouteStart],
    run_id: str,
) -> RunState:  # fmt: skip
    """The run folder, and the memory of every lane. An interrupt waits until the folder is the caller's to remove."""
    folder = RunFolder.create(out)
    try:
        parts = _parts(stack, scenario, folder, fitted, len(routes))
    except BaseException:
        folder.discard()
        raise
    return RunState(fitted[0][0], scenario, folder, run_id, parts, routes, None)


def _parts(
    stack: ExitStack, scenario: Scenario, folder: RunFolder, fitted: list[tuple[Schedule, Fittings]], routes: int
) -> list[Part]:  # fmt: skip
    """The targets of the run, each with its lanes."""
    schedules, rules = [schedule for schedule, _ in fitted], len(fitted[0][1].sessions.rules)
    parts: list[Part] = []
    lanes_made, first_route = 0, 0
    for (schedule, fittings), first_seq in zip(fitted, first_seqs(schedules), strict=True):
        specs = []
        for number in range(len(fittings.connections)):
            memory = _lane_memory(folder, lanes_made + number, routes, scenario, rules)
            specs.append(_lane_spec(stack, memory, schedule, fittings, number))
        lanes_made += len(specs)
        feeder = Feeder(schedule, fittings.renderer, specs, scenario.closed_loop, first_seq, first_route)
        parts.append(Part(schedule, fittings, specs, feeder, first_seq))
        first_route += len(fittings.routes)
    return parts


def _lane_memory(
    folder: RunFolder, number: int, routes: int, scenario: Scenario, rules: int
) -> lane_metrics.LaneMetrics:
    try:
        return lane_metrics.create(folder.lane(number), routes, int(scenario.limits.histograms_bytes), rules)
    except OSError as error:
        raise OutputError(
            f"{folder.lane(number)} cannot be made: {reason_of(error)}", hint="make room"
        ) from None


def _lane_spec(
    stack: ExitStack, memory: lane_metrics.LaneMetrics, schedule: Schedule, fittings: Fittings, number: int
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
            asking["resolve_rings"] = make_resolve_rings(fittings.connections[number])
            asking["resolve_fd"] = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            stack.callback(os.close, asking["resolve_fd"])
    return LaneSpec(
        metrics=memory,
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


def started(state: RunState) -> Started:
    """What is known of the run when its first request is due."""
    plan, trace = state.schedule.plan, state.schedule.trace
    lines, rejected = trace.manifest.unread()
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
            lines=lines,
            rejected=rejected,
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


def _engine_name(state: RunState) -> EngineName:
    names = {part.fittings.engine_name for part in state.parts}
    return names.pop() if len(names) == 1 else "mixed"


def _skipped(state: RunState) -> dict[str, int]:
    """Rows that are not sent, by reason, over all targets."""
    skipped: Counter[str] = Counter()
    for part in state.parts:
        skipped.update(part.schedule.plan.skipped)
    return dict(skipped)


def _plan_dict(state: RunState) -> dict[str, Any]:
    plan: dict[str, Any] = msgspec.to_builtins(state.schedule.plan, enc_hook=int)
    plan.pop("by_route", None)
    return plan
