"""Synchronizes two runs at their start, in each of their lanes, and at their end."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field

import trio

from replay.errors import EngineError
from replay.lane.contract import LaneSpec

from .watch import Signals

OTHER_ENDED = "the run of the other build ended"
"""The first words of an ending's detail when a run ended because the other run ended."""


class PartnerLostError(EngineError):
    """A lane cannot run, because the other run ended before its lane began."""


@dataclass
class _LanePair:
    """The lanes of both runs that share a thread, by the number of the run."""

    specs: dict[int, LaneSpec] = field(default_factory=dict)
    over: trio.Event = field(default_factory=trio.Event)


class Meeting:
    """The state that two runs share: the instant at which they start, a thread for each pair of lanes, and signals.

    A run that ends calls `leave`, so that the other run does not wait for it.
    """

    def __init__(self, delay_ns: int) -> None:
        self.id = secrets.token_hex(4)
        self.received = Signals(), Signals()
        self._delay_ns = delay_ns
        self._ready = 0
        self._start_ns = 0
        self._both_ready = trio.Event()
        self._lanes: dict[int, _LanePair] = {}
        self._has_left = False

    def side(self, number: int) -> JoinedRun:
        """Return one of the two runs, 0 or 1.

        Lanes of run 0 send the requests of even numbers first, lanes of run 1 those of odd numbers.
        """
        return JoinedRun(self, number)

    @property
    def is_started(self) -> bool:
        """Whether both runs were ready."""
        return self._both_ready.is_set()

    async def start_ns(self) -> int:
        """Wait until both runs are ready, and return when the first request is due, by CLOCK_MONOTONIC.

        The instant is the same for both runs.
        """
        self._ready += 1
        if self._ready == 2:
            self._start_ns = time.monotonic_ns() + self._delay_ns
            self._both_ready.set()
        await self._both_ready.wait()
        return self._start_ns

    async def run_lane(self, number: int, spec: LaneSpec) -> None:
        """Run a lane together with the same lane of the other run.

        Raises PartnerLostError if the other run ended before its lane began, EngineError if this lane could not start.
        """
        from replay.lane.native import check_ended
        from replay.lane.paired import run_paired

        pair = self._lanes.setdefault(spec.number, _LanePair())
        pair.specs[number] = spec
        if len(pair.specs) == 2:
            try:
                await run_paired(pair.specs[0], pair.specs[1])
            finally:
                pair.over.set()
        elif not self._has_left:
            await pair.over.wait()
        if len(pair.specs) < 2:
            raise PartnerLostError("the run of the other build ended before it began to send")
        check_ended(spec)

    def leave(self, number: int, why: str) -> None:
        """Report that a run has ended, so that the other run does not wait for it.

        `why` is empty if the run ended normally; otherwise the other run ends, too.
        """
        self._has_left = True
        for pair in self._lanes.values():
            if len(pair.specs) < 2:
                pair.over.set()
        if why:
            self._pass_on(self.received[1 - number], why)

    async def watch(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Pass the signals of this process on to both runs, until cancelled."""
        heard = Signals()
        async with trio.open_nursery() as nursery:
            await nursery.start(heard.watch)
            task_status.started()
            await heard.first.wait()
            for received in self.received:
                self._pass_on(received, heard.name)
            await heard.second.wait()
            for received in self.received:
                received.second.set()

    @staticmethod
    def _pass_on(received: Signals, name: str) -> None:
        if not received.first.is_set():
            received.name = name
            received.first.set()


@dataclass(frozen=True, slots=True)
class JoinedRun:
    """One of two runs that are synchronized."""

    meeting: Meeting
    number: int

    @property
    def received(self) -> Signals:
        """The signals and other requests to end this run."""
        return self.meeting.received[self.number]

    def ends(self, why: str) -> None:
        """Report that this run ends early, so that the other run ends as well.

        Nothing is reported if a signal or the other run ends this run.
        """
        if not self.received.first.is_set():
            self.meeting.leave(self.number, f"{OTHER_ENDED}: {why}")

    async def start_ns(self) -> int:
        """Wait until both runs are ready, and return when the first request is due (see `Meeting`)."""
        return await self.meeting.start_ns()

    async def engine(self, spec: LaneSpec) -> None:
        """Run a lane of this run together with the other run's."""
        await self.meeting.run_lane(self.number, spec)
