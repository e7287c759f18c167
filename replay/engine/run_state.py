"""The state of a run: its targets, its folder, the memory of its lanes, and the facts recorded at its start."""

from __future__ import annotations

import os
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import trio

from replay.errors import OutputError, UsageError, reason_of
from replay.lane.contract import LaneRange, LaneSpec
from replay.lane.keeping import MODES, NOTHING_KEPT, make_keeping
from replay.ledger.control_workload import control_ns
from replay.ledger.host import facts
from replay.plan.safety import allowed
from replay.plan.schedule import Schedule
from replay.protocols.adapter import ProtocolAdapter
from replay.protocols.feeder import Feeder
from replay.protocols.protocol import TargetPlan
from replay.results.build_label import build_of, name_of
from replay.results.deltas import RunEvent
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
from replay.settings.lane import lane_settings
from replay.settings.scenario import Scenario
from replay.units import SECOND_NS
from replay.watching.sampler import Sampler
from replay_native.feed.resolve import make_resolve_rings
from replay_native.feed.ring import make_feed
from replay_native.keeping.responses import NONE, Keeping
from replay_native.ledger import lane_metrics

from .answers import AnswerKeeper, Source
from .failure import REMEDIES
from .joined import JoinedRun
from .live import LiveSource
from .target_runs import TargetRun, first_seqs


@dataclass
class RunState:
    """The state of one run in progress.

    `begin_ns` (CLOCK_MONOTONIC) and `start_at_ns` (since the epoch) prescribe the start, if they are not None;
    `start_ns` is the actual start.
    """

    scenario: Scenario
    folder: RunFolder
    run_id: str
    targets: list[TargetRun]
    routes: list[RouteStart]
    sampler: Sampler
    start_ns: int = 0
    start_at_ns: int | None = None
    begin_ns: int | None = None
    ending: Ending = field(default_factory=Ending)
    notes: list[Note] = field(default_factory=list)
    answers: AnswerKeeper | None = None
    live: LiveSource | None = None
    joined: JoinedRun | None = None
    live_notes: list[Note] = field(default_factory=list)
    done: trio.Event = field(default_factory=trio.Event)
    events: list[RunEvent] = field(default_factory=list)
    """The events since the last tick."""

    @property
    def schedule(self) -> Schedule:
        """The schedule of the first target, whose timeline the others share."""
        return self.targets[0].schedule

    def elapsed_s(self) -> float:
        """Return the seconds since the first request could be due; negative before that."""
        return (time.monotonic_ns() - self.start_ns) / SECOND_NS

    def start_clock(self) -> ClockPair:
        """Return the start of the run on both clocks."""
        return ClockPair(self.start_ns, time.time_ns() + self.start_ns - time.monotonic_ns())

    def ended_at_s(self) -> float:
        """Return the length of a run that ends now, in seconds: 0 if nothing was due yet."""
        return max(self.elapsed_s(), 0.0)

    def happened(self, kind: str, text: str) -> None:
        """Add an event, which the next tick reports."""
        self.events.append(RunEvent(round(self.ended_at_s(), 3), kind, text))

    def take_events(self) -> list[RunEvent]:
        """Return the events since the last call."""
        taken, self.events = self.events, []
        return taken

    @property
    def specs(self) -> list[LaneSpec]:
        """The lanes of all targets, in the order of the targets."""
        return [spec for target in self.targets for spec in target.specs]

    def sent(self) -> int:
        """Return the number of requests that were sent so far."""
        return sum(int(spec.metrics.counters[lane_metrics.C.sent]) for spec in self.specs)

    def lag(self) -> dict[str, int]:
        """Return the consumers' present lag by partition."""
        return {name: count for target in self.targets for name, count in target.adapter.lag().items()}

    def stop(self, how: int) -> None:
        """Stop every lane in the way that `how` selects (see `replay_native.ledger.lane_metrics.Stop`)."""
        for target in self.targets:
            for writer in target.feeder.writers:
                writer.stop(how)

    def end_feeding(self) -> None:
        """Stop feeding requests that are due after this moment."""
        now = time.monotonic_ns()
        for target in self.targets:
            target.feeder.stop_at(now)


@trio.lowlevel.enable_ki_protection
def make_state(
    stack: ExitStack, scenario: Scenario, out: Path, opened: list[tuple[TargetPlan, ProtocolAdapter]],
    routes: list[RouteStart], run_id: str, share: LaneRange | None = None,
) -> RunState:  # fmt: skip
    """Create the run folder and the memory of every lane, and return the state of the run.

    An interrupt waits until the caller can remove the folder.
    """
    folder = RunFolder.create(out)
    try:
        targets = _target_runs(stack, scenario, folder, opened, len(routes), share)
    except BaseException:
        folder.discard()
        raise
    sampler = Sampler(scenario.watch, allowed(scenario), scenario.kafka)
    keeper = _keeper(folder, scenario, targets)
    return RunState(scenario, folder, run_id, targets, routes, sampler, answers=keeper)


def _keeper(folder: RunFolder, scenario: Scenario, targets: list[TargetRun]) -> AnswerKeeper | None:
    """Return the writer of kept responses; None if lanes keep none."""
    sources = []
    for target in targets:
        lanes = [spec.keeping for spec in target.specs if spec.keeping.mode != NONE]
        if lanes:
            sources.append(Source(target.first_seq, target.schedule.numbers(), lanes))
    return AnswerKeeper(folder.path, scenario.answers, sources) if sources else None


def _target_runs(
    stack: ExitStack, scenario: Scenario, folder: RunFolder, opened: list[tuple[TargetPlan, ProtocolAdapter]],
    routes: int, share: LaneRange | None,
) -> list[TargetRun]:  # fmt: skip
    """Create the memory of all lanes, and return the targets of the run, each with its lanes."""
    schedules = [plan.schedule for plan, _ in opened]
    rules = max(len(adapter.rules) for _, adapter in opened)
    targets: list[TargetRun] = []
    lanes_made, first_route = 0, 0
    for (plan, adapter), first_seq in zip(opened, first_seqs(schedules), strict=True):
        specs = []
        lanes = _lanes_of(adapter, share)
        for number in range(len(adapter.connections)):
            memory = _lane_memory(folder, lanes_made + number, routes, scenario, rules)
            specs.append(_lane_spec(stack, memory, plan.schedule, adapter, number, lanes))
        lanes_made += len(specs)
        feeder = Feeder(
            plan.schedule,
            adapter.renderer,
            specs,
            scenario.closed_loop,
            first_seq,
            first_route,
            lanes,
            adapter.cut,
        )
        targets.append(TargetRun(plan, adapter, specs, feeder, first_seq))
        first_route += len(adapter.routes)
    return targets


def _lanes_of(adapter: ProtocolAdapter, share: LaneRange | None) -> LaneRange:
    """Return the lanes of a target: all its lanes, or those of this process's share.

    Raises UsageError if the share has another number of lanes.
    """
    count = len(adapter.connections)
    if share is not None and adapter.cut is not None:
        share = share.one_each
    if share is not None and share.count != count:
        raise UsageError(
            f"this machine would run {count} lanes, and its share of the run is {share.count} lanes",
            hint="give -t 1, so that each machine runs one lane",
        )
    return share or LaneRange(0, count, count)


def _lane_memory(
    folder: RunFolder, number: int, routes: int, scenario: Scenario, rules: int
) -> lane_metrics.LaneMetrics:
    try:
        return lane_metrics.create(folder.lane(number), routes, int(scenario.limits.histograms_bytes), rules)
    except OSError as error:
        raise OutputError(
            f"{folder.lane(number)} cannot be made: {reason_of(error)}",
            hint=REMEDIES.get(error.errno or 0, ""),
        ) from None


def _lane_spec(
    stack: ExitStack,
    memory: lane_metrics.LaneMetrics,
    schedule: Schedule,
    adapter: ProtocolAdapter,
    number: int,
    lanes: LaneRange,
) -> LaneSpec:
    """Return the description of lane `number` of a target, counted within this process."""
    scenario = schedule.scenario
    wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    stack.callback(os.close, wake_fd)
    name = adapter.name
    asking: dict[str, Any] = {}
    if name is not None and name.is_per_connection:
        asking["ask"] = lambda: name.row_for(memory)
        if adapter.engine_name == "native":
            asking["resolve_rings"] = make_resolve_rings(adapter.connections[number])
            asking["resolve_fd"] = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            stack.callback(os.close, asking["resolve_fd"])
    return LaneSpec(
        metrics=memory,
        feed=make_feed(*adapter.feed),
        wake_fd=wake_fd,
        addresses=adapter.addresses,
        connections=adapter.connections[number],
        closed_loop=scenario.closed_loop,
        tls=adapter.tls,
        number=lanes.first + number,
        ordered=scenario.ordered,
        retry=adapter.retry,
        trace_seed=adapter.trace_seed,
        clients=-(-schedule.trace.manifest.clients // lanes.of),
        lanes=lanes.of,
        sessions=adapter.sessions,
        keeping=_keeping(scenario, adapter, number),
        **lane_settings(scenario),
        **asking,
    )


def _keeping(scenario: Scenario, adapter: ProtocolAdapter, number: int) -> Keeping:
    """Return the memory for the responses that lane `number` keeps; NOTHING_KEPT if it keeps none."""
    answers = scenario.answers
    mode = MODES[answers.keep or "none"] if adapter.keeps_responses else NONE
    if mode == NONE:
        return NOTHING_KEPT
    return make_keeping(
        mode,
        adapter.connections[number],
        headers=answers.headers,
        sample_ppm=round(answers.sample * 1_000_000),
        body_limit=int(answers.body_limit_bytes),
        head_limit=int(scenario.limits.response_headers_bytes),
    )


def started(state: RunState) -> Started:
    """Return the facts that are known when the first request is due."""
    plan, trace = state.schedule.plan, state.schedule.trace
    lines, rejected = trace.manifest.unread()
    return Started(
        start=state.start_clock(),
        routes=state.routes,
        max_wait_ns=int(state.scenario.max_wait_ns),
        closed_loop=state.scenario.closed_loop,
        engine=_engine_name(state),
        target=", ".join(target.planned.target.url for target in state.targets),
        targets=[target.started() for target in state.targets],
        run_id=state.run_id,
        together="" if state.joined is None else state.joined.meeting.id,
        name=state.scenario.name or name_of(plan.trace),
        build=state.scenario.build or build_of(os.environ),
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
        rows_in_window=sum(target.schedule.plan.rows_in_window for target in state.targets),
        scenario=state.scenario.saved(),
        plan=_plan_dict(state),
        skipped=_skipped(state),
        slo=[str(text) for text in state.scenario.slo],
        consumed=list(dict.fromkeys(kind for target in state.targets for kind in target.adapter.consumed)),
        limits=state.scenario.validity,
        rules=state.targets[0].adapter.rules,
        host=facts(control_ns=control_ns()),
    )


def _engine_name(state: RunState) -> EngineName:
    names = {target.adapter.engine_name for target in state.targets}
    return names.pop() if len(names) == 1 else "mixed"


def _skipped(state: RunState) -> dict[str, int]:
    """Count the rows that are not sent, by reason, over all targets."""
    skipped: Counter[str] = Counter()
    for target in state.targets:
        skipped.update(target.schedule.plan.skipped)
    return dict(skipped)


def _plan_dict(state: RunState) -> dict[str, Any]:
    plan: dict[str, Any] = msgspec.to_builtins(state.schedule.plan, enc_hook=int)
    plan.pop("by_route", None)
    return plan
