"""Runs an agent's share in a thread beside the agent's connection.

The run has its own Trio loop, so that planning, compiling or writing results never keeps the agent from answering
probes.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import socket
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import trio

from replay.engine.order import Order
from replay.engine.prepare import kernels_of, prepare
from replay.engine.run_state import RunState
from replay.engine.sinks import Sink
from replay.errors import NotAllowedError, ReplayError, TargetError
from replay.lane.contract import LaneRange
from replay.results.deltas import Deltas
from replay.results.document import RouteStart, RunDocument, Started
from replay.results.timeline import Second
from replay.settings.scenario import Scenario
from replay.trace import Trace
from replay_native.ground.jit import warm

from .messages import Counts, Opened, Plan, Report, Start
from .share import Share, ShareClock, write_share


class ReportSink(Sink):
    """A sink that reports each second to the agent."""

    noted = False

    def __init__(self, epoch: str, report: Callable[[Report | Opened], None]) -> None:
        self._epoch, self._report = epoch, report
        self._number = 0

    def start(self, started: Started) -> None:
        """Report the facts of the start (see `Sink`)."""
        self._report(Opened(epoch=self._epoch, started=msgspec.json.encode(started)))

    def second(self, second: Second, deltas: Deltas) -> None:
        """Report a second, with the totals since the start (see `Sink`)."""
        self._number += 1
        self._report(
            Report(
                epoch=self._epoch,
                number=self._number,
                at_s=second.t_s + second.length_s,
                totals=dict(deltas.totals),
                second=msgspec.to_builtins(second),
                counters=dict(deltas.counters),
                routes={route: dict(counts) for route, counts in deltas.routes.items()},
                histograms=[
                    Counts(
                        tag=one.tag,
                        since_s=one.since_s,
                        length_s=one.length_s,
                        at=one.at.astype("<i4").tobytes(),
                        counts=one.counts.astype("<u8").tobytes(),
                    )
                    for one in deltas.histograms
                ],
                events=[(event.at_s, event.kind, event.text) for event in deltas.events],
            )
        )


class ShareRun:
    """The run of a share.

    `tell` receives events in the thread of the run: ("prepared", ...) and ("reported", ...).
    """

    def __init__(
        self, plan: Plan, scenario: Scenario, trace: Trace, out: Path, tell: Callable[..., None]
    ) -> None:
        self._plan, self._scenario, self._trace, self.out = plan, scenario, trace, out
        self._tell = tell
        self.order = Order(plan.run_id, LaneRange(plan.first_lane, plan.lanes, plan.all_lanes), self._instant)
        self._scope = trio.CancelScope()
        self._begin = trio.Event()
        self._start: tuple[Start, int] | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._called_off = threading.Event()

    def run(self) -> RunDocument | None:
        """Plan, prepare, wait for the start, and run; blocks.

        Returns None if the run was cancelled before the start.
        """
        warm(dict.fromkeys(kernels_of(self._scenario)))
        with prepare(self._trace, self._scenario, name=self._plan.trace_name) as prepared:
            return trio.run(self._under_trio, prepared)

    async def _under_trio(self, prepared: Any) -> RunDocument | None:
        self._token = trio.lowlevel.current_trio_token()
        document = None
        with self._scope:
            if self._called_off.is_set():
                self._scope.cancel()
            sink = ReportSink(self._plan.epoch, partial(self._tell, "reported"))
            document = await prepared.run_async(self.out, sinks=[sink], order=self.order, last=True)
        return document

    async def _instant(self, state: RunState) -> int:
        """Report that the share is ready, wait for the order to start, write share.json, and return the start."""
        due = await trio.to_thread.run_sync(due_by_second, state, abandon_on_cancel=True)
        self._tell("prepared", sum(due), due, routes_digest(state.routes))
        await self._begin.wait()
        assert self._start is not None
        start, start_ns = self._start
        write_share(state.folder.path, self._share(start, start_ns, due))
        return start_ns

    def _share(self, start: Start, start_ns: int, due: list[int]) -> Share:
        plan = self._plan
        return Share(
            run_id=plan.run_id,
            epoch=plan.epoch,
            agent=plan.agent,
            agents=plan.agents,
            host=socket.gethostname(),
            pid=os.getpid(),
            first_lane=plan.first_lane,
            after_lane=plan.first_lane + plan.lanes,
            of_lanes=plan.all_lanes,
            planned=sum(due),
            planned_whole=start.planned_whole,
            due_by_second=due,
            instant_ns=start.instant_ns,
            start_ns=start_ns,
            skew_ns=start.agent_ns - start_ns,
            clock=ShareClock(offset_ns=start.offset_ns, bound_ns=start.bound_ns),
            trace_digest=plan.trace_digest,
        )

    # The agent's thread calls the following methods.

    def begin(self, start: Start, start_ns: int) -> None:
        """Set the instant of CLOCK_MONOTONIC at which the run starts."""

        def set_it() -> None:
            self._start = (start, start_ns)
            self._begin.set()

        self._soon(set_it)

    def finish(self, how: str, why: str) -> None:
        """End the run: `how` is `drain` or `abandon`, as in `Stop`."""
        self._soon(partial(self.order.requests.ask, why, at_once=how == "abandon"))

    def call_off(self) -> None:
        """Cancel before the run has begun, so that nothing is sent."""
        self._called_off.set()
        self._soon(self._scope.cancel)

    def _soon(self, action: Callable[[], object]) -> None:
        if self._token is not None:
            try:
                self._token.run_sync_soon(action)
            except trio.RunFinishedError:
                return


def due_by_second(state: RunState) -> list[int]:
    """Return how many requests of a share are due in each second of the run, for all targets; blocks."""
    of_targets = [target.feeder.due_by_second() for target in state.targets]
    return [sum(counts) for counts in itertools.zip_longest(*of_targets, fillvalue=0)]


def routes_digest(routes: Sequence[RouteStart]) -> str:
    """Return a digest of the names of a run's routes.

    For Kafka these include the partitions, by which the records are divided among agents.
    """
    return hashlib.sha256(msgspec.json.encode([route.name for route in routes])).hexdigest()


def failure_words(error: BaseException) -> tuple[str, str, int]:
    """Return what the coordinator is sent about an error: the message, the hint, the exit code."""
    if isinstance(error, ReplayError):
        return str(error), _hint_of(error), int(error.exit_code)
    return f"{type(error).__name__}: {error}", "", 1


def _hint_of(error: ReplayError) -> str:
    """Return the hint of an error, for a reader at the coordinator whose problem may be on the agent's machine."""
    if isinstance(error, NotAllowedError):
        return f"{error.hint}, given to `replay agent` or in REPLAY_ALLOW on that machine, which has its own allowlist"
    if isinstance(error, TargetError):
        return "; ".join(filter(None, (error.hint, "the agent's machine must reach the target, too")))
    return error.hint
