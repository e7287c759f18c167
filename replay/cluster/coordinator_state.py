"""The coordinator's side of the protocol (the rules are in `protocol`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from replay.errors import Exit
from replay.results.agents import AgentClock

from .clock import Estimate, PeerClock
from .messages import (
    AnyMessage,
    Armed,
    Echo,
    End,
    Hello,
    Plan,
    Probe,
    Ready,
    Refusal,
    Report,
    Start,
    Stop,
    Welcome,
)
from .own_time import OwnTime
from .protocol import (
    CLOCK_SAMPLES,
    ENDS_ALL,
    JOIN_NS,
    LEAD_NS,
    LEAST_LEAD_NS,
    LEAVE_NS,
    LOST_NS,
    MS,
    ORPHANED_NS,
    PATIENCE_NS,
    PROBE_NS,
    AllHere,
    Began,
    Failed,
    Lost,
    Output,
    Over,
    Reported,
    Send,
)


class Phase(Enum):
    """The phases of the whole run."""

    GATHERING = "gathering"
    PLANNING = "planning"
    PREPARING = "preparing"
    RUNNING = "running"
    OVER = "over"
    FAILED = "failed"


@dataclass
class Seat:
    """What the coordinator knows about one agent."""

    agent: int
    hello: Hello | None = None
    clock: PeerClock = field(default_factory=PeerClock)
    heard_ns: int = 0
    heard_ran_ns: int = 0
    """The instant of `heard_ns` in the coordinator's own time, which excludes its pauses (`own_time`)."""
    is_connected: bool = False
    probes: int = 0
    ready: Ready | None = None
    start: Start | None = None
    is_armed: bool = False
    report: Report | None = None
    report_ns: int = 0
    end: End | None = None
    lost_ns: int | None = None
    lost_ran_ns: int = 0
    lost_why: str = ""
    gone_ns: int | None = None
    """When the agent was known to have ended; None if it may still send."""

    @property
    def is_settled(self) -> bool:
        """Whether nothing more is expected from the agent."""
        return self.end is not None or self.lost_ns is not None

    @property
    def name(self) -> str:
        """The name of the agent in messages."""
        if self.hello is None:
            return f"agent {self.agent}"
        return f"agent {self.agent} ({self.hello.host}, pid {self.hello.pid})"


class CoordinatorState:
    """The state of the coordinator of one run with `agents` agents.

    `version` and `kernels` are those of this process; agents with other values are refused. `clock` is the identity of
    its clock (`same_clock`), which is empty if it is not known.
    """

    def __init__(
        self, agents: int, *, epoch: str, version: str, kernels: str, clock: str = "", now_ns: int = 0,
        on_lost: Literal["stop", "continue"] = "stop",
    ) -> None:  # fmt: skip
        self.phase = Phase.GATHERING
        self.epoch, self.version, self.kernels, self.on_lost = epoch, version, kernels, on_lost
        self.seats = [Seat(number) for number in range(agents)]
        self._clock = clock
        self.pauses_ns: list[int] = []
        """The length of each pause in which the coordinator's own process did not run, during the run."""
        self.how_to_join = ""
        """The command with which the user starts an agent; empty if the coordinator starts the agents."""
        self._own_time = OwnTime(now_ns)
        self._since_ran_ns = now_ns
        self._confirm_ran_ns = 0
        self.instant_ns: int | None = None
        self.start_at_ns: int | None = None
        """When the first request must be due, by CLOCK_MONOTONIC; None means as soon as possible.

        It may change until the run begins.
        """
        self.stopped_why = ""

    def joined(self, hello: Hello, now_ns: int) -> tuple[int, list[Output]]:
        """Add an agent that has connected, and return its number and the messages to send.

        The number is -1 if the agent is refused.
        """
        self._attend(now_ns)
        why, hint = self._why_refused(hello)
        if why:
            return -1, [Send(Refusal(why=why, hint=hint))]
        seat = next(seat for seat in self.seats if seat.hello is None)
        seat.hello, seat.is_connected = hello, True
        seat.clock = PeerClock(is_same=bool(hello.clock) and hello.clock == self._clock)
        self._hear(seat, now_ns)
        return seat.agent, [Send(Welcome(agent=seat.agent), seat.agent), self._probe(seat, now_ns)]

    def _why_refused(self, hello: Hello) -> tuple[str, str]:
        """Return why an agent is refused, and a hint; both are empty if it is accepted."""
        if self.phase is not Phase.GATHERING or all(seat.hello is not None for seat in self.seats):
            why = f"the run accepts no more agents: all {len(self.seats)} have connected, or it has failed"
            return why, "start only as many agents as the run has"
        hint = "install the same version of replay on every machine"
        if hello.version != self.version:
            return f"its version of replay is {hello.version}, the coordinator's is {self.version}", hint
        return (
            ("its kernels differ from the coordinator's", hint) if hello.kernels != self.kernels else ("", "")
        )

    def order(self, plans: Sequence[Plan]) -> list[Output]:
        """Send each agent its plan. Call it after `AllHere`."""
        if self.phase is not Phase.PLANNING:
            return []
        self.phase = Phase.PREPARING
        return [Send(plan, seat.agent) for plan, seat in zip(plans, self.seats, strict=True)]

    def receive(self, agent: int, message: AnyMessage, now_ns: int) -> list[Output]:
        """Handle a message from an agent."""
        seat = self.seats[agent]
        self._attend(now_ns)
        self._hear(seat, now_ns)
        if isinstance(message, Echo):
            seat.clock.add(message.sent_ns, message.came_ns, message.left_ns, now_ns)
            return self._gathered()
        if isinstance(message, Refusal):
            return self._refused(seat, message, now_ns)
        if getattr(message, "epoch", self.epoch) != self.epoch:
            return []
        if isinstance(message, Ready) and seat.ready is None and self.phase is Phase.PREPARING:
            seat.ready = message
            return self._all_ready(now_ns)
        if isinstance(message, Armed):
            seat.is_armed = True
        elif isinstance(message, Report):
            return self._reported(seat, message, now_ns)
        elif isinstance(message, End) and seat.end is None:
            seat.end = message
            return [*self._ended_early(seat, message), *self._settled(now_ns)]
        return []

    def _attend(self, now_ns: int) -> None:
        """Record that this process is running and, during the run, the length of a pause that has just ended."""
        pause_ns = self._own_time.pause_until(now_ns)
        if pause_ns and self.phase is Phase.RUNNING:
            self.pauses_ns.append(pause_ns)

    def _hear(self, seat: Seat, now_ns: int) -> None:
        seat.heard_ns, seat.heard_ran_ns = now_ns, self._own_time.ran_ns(now_ns)

    def _silent_ns(self, seat: Seat, now_ns: int) -> int:
        """Return how long an agent has been silent, counting only time in which the coordinator ran."""
        return self._own_time.ran_ns(now_ns) - seat.heard_ran_ns

    def _gathered(self) -> list[Output]:
        known = all(
            seat.hello is not None and len(seat.clock.samples) >= CLOCK_SAMPLES for seat in self.seats
        )
        if self.phase is not Phase.GATHERING or not known:
            return []
        self.phase = Phase.PLANNING
        return [AllHere()]

    @property
    def is_waiting(self) -> bool:
        """Whether every agent is ready, and the start is not ordered yet."""
        return self.phase is Phase.PREPARING and all(seat.ready is not None for seat in self.seats)

    def _all_ready(self, now_ns: int) -> list[Output]:
        """Order the start once all agents are ready, or LEAD_NS before the start time if one is given.

        The run fails if the shares do not fit together, the start time is too near, or an agent is silent.
        """
        if not self.is_waiting:
            return []
        if why := self._why_apart():
            return self._fail(why, "run it again when nobody changes the topics; nothing was sent", 1)
        instant_ns = now_ns + LEAD_NS if self.start_at_ns is None else self.start_at_ns
        if now_ns < instant_ns - LEAD_NS:
            return []
        if instant_ns - now_ns < LEAST_LEAD_NS + PROBE_NS:
            left_s = (instant_ns - now_ns) / 1e9
            when = f"{left_s:.1f} s before" if left_s >= 0 else f"{-left_s:.1f} s after"
            why = f"all agents were ready only {when} the instant of --start-at"
            return self._fail(why, "give a later time: agents must first get the trace, plan and compile", 1)
        for seat in self.seats:
            silent_ns = self._silent_ns(seat, now_ns)
            if silent_ns > LOST_NS:
                return self.lost(seat.agent, _silence(silent_ns), now_ns)
        self.phase = Phase.RUNNING
        self.instant_ns = instant_ns
        self._confirm_ran_ns = self._own_time.ran_ns(instant_ns)
        planned = sum(seat.ready.planned for seat in self.seats if seat.ready is not None)
        outputs: list[Output] = [Began(self.instant_ns)]
        for seat in self.seats:
            found = seat.clock.reference(self.instant_ns)
            seat.start = Start(
                epoch=self.epoch,
                instant_ns=self.instant_ns,
                agent_ns=self.instant_ns + found.offset_ns,
                offset_ns=found.offset_ns,
                bound_ns=found.bound_ns,
                planned_whole=planned,
            )
            outputs.append(Send(seat.start, seat.agent))
        return outputs

    def _why_apart(self) -> str:
        """Return why the shares do not fit together; empty if they do.

        Shares of Kafka topics depend on the topics' partitions, which each agent looks up.
        """
        first, *others = self.seats
        for seat in others:
            assert first.ready is not None and seat.ready is not None
            if seat.ready.routes != first.ready.routes:
                return f"{first.name} and {seat.name} found different routes or partitions of topics"
        return ""

    def _reported(self, seat: Seat, report: Report, now_ns: int) -> list[Output]:
        if seat.report is not None and report.number <= seat.report.number:
            return []
        seat.report, seat.report_ns = report, now_ns
        return [Reported(seat.agent, report)]

    def _refused(self, seat: Seat, refusal: Refusal, now_ns: int) -> list[Output]:
        if self.phase is Phase.RUNNING:
            return self.lost(seat.agent, refusal.why, now_ns, is_gone=True)
        # Exit code 130 means that the coordinator was interrupted. An interrupted agent is a failure of the run.
        code = Exit.CRASHED if refusal.code == Exit.INTERRUPTED else refusal.code
        return self._fail(f"{seat.name}: {refusal.why}", refusal.hint, code)

    def _ended_early(self, seat: Seat, end: End) -> list[Output]:
        """End the other shares when one ended early.

        If the run continues without lost agents (`on_lost`), only the endings in ENDS_ALL end the other shares.
        """
        if end.ending == "whole" or self.stopped_why or self.phase is not Phase.RUNNING:
            return []
        if self.on_lost == "continue" and end.ending not in ENDS_ALL:
            return []
        return self.stop("drain", f"{seat.name} ended early ({end.ending})")

    def disconnected(self, agent: int, now_ns: int, why: str = "its connection ended") -> list[Output]:
        """Handle the end of an agent's connection: the agent has ended, or will stop by itself."""
        seat = self.seats[agent]
        seat.is_connected = False
        return [] if seat.end is not None else self.lost(agent, why, now_ns)

    def lost(self, agent: int, why: str, now_ns: int, *, is_gone: bool = False) -> list[Output]:
        """Record an agent as lost.

        Before the start, the run then fails. During the run, it ends for all agents if `on_lost` is "stop".
        `is_gone` means that the agent certainly sends nothing more.
        """
        seat = self.seats[agent]
        self._attend(now_ns)
        if is_gone and seat.gone_ns is None:
            seat.gone_ns = now_ns
        if seat.is_settled or self.phase in (Phase.OVER, Phase.FAILED):
            return []
        seat.lost_ns, seat.lost_ran_ns, seat.lost_why = now_ns, self._own_time.ran_ns(now_ns), why
        if self.phase is not Phase.RUNNING:
            return [Lost(agent, why), *self._fail(f"{seat.name} was lost before the start: {why}", code=1)]
        outputs: list[Output] = [Lost(agent, why)]
        if seat.is_connected:
            outputs.append(Send(Stop(epoch=self.epoch, how="drain", why="lost"), agent))
        if self.on_lost == "stop":
            outputs += self.stop("drain", f"{seat.name} was lost: {why}")
        return outputs + self._settled(now_ns)

    def stop(self, how: Literal["drain", "abandon"], why: str) -> list[Output]:
        """End the run: every agent drains its requests in flight, or abandons them.

        Before the start, the run fails as interrupted.
        """
        if self.phase in (Phase.OVER, Phase.FAILED):
            return []
        if self.phase is not Phase.RUNNING:
            return self._fail(why, code=Exit.INTERRUPTED)
        self.stopped_why = self.stopped_why or why
        message = Stop(epoch=self.epoch, how=how, why=why)
        return [Send(message, seat.agent) for seat in self.seats if seat.is_connected and seat.end is None]

    def _fail(self, why: str, hint: str = "", code: int = 2) -> list[Output]:
        if self.phase in (Phase.OVER, Phase.FAILED):
            return []
        self.phase = Phase.FAILED
        stop = Stop(epoch=self.epoch, how="abandon", why=why)
        return [
            *(Send(stop, seat.agent) for seat in self.seats if seat.is_connected),
            Failed(why, hint, code),
        ]

    def _settled(self, now_ns: int) -> list[Output]:
        """Return `Over` once each agent has ended, or is lost and can no longer send its last counts."""
        if self.phase is not Phase.RUNNING:
            return []
        for seat in self.seats:
            if seat.end is None and (seat.lost_ns is None or (self._may_end(seat, now_ns))):
                return []
        self.phase = Phase.OVER
        return [Over()]

    def _may_end(self, seat: Seat, now_ns: int) -> bool:
        """Return whether a lost agent may still send its last counts."""
        return seat.is_connected and self._own_time.ran_ns(now_ns) < seat.lost_ran_ns + LEAVE_NS

    def tick(self, now_ns: int) -> list[Output]:
        """Send probes, check the time limits, and order the start when it is due. Call it at least every PROBE_NS."""
        outputs: list[Output] = []
        self._attend(now_ns)
        if self.phase is Phase.GATHERING and self._own_time.ran_ns(now_ns) > self._since_ran_ns + JOIN_NS:
            return self._fail(*self._who_is_missing(), code=1)
        for seat in self.seats:
            if not seat.is_connected:
                continue
            outputs.append(self._probe(seat, now_ns))
            limit_ns = LOST_NS if self.phase is Phase.RUNNING else PATIENCE_NS
            silent_ns = self._silent_ns(seat, now_ns)
            if silent_ns > limit_ns and not seat.is_settled:
                outputs += self.lost(seat.agent, _silence(silent_ns), now_ns)
            elif self._missed_start(seat, now_ns):
                outputs += self.lost(seat.agent, "it did not confirm the start", now_ns)
        outputs += self._all_ready(now_ns)
        return outputs + self._settled(now_ns)

    def _missed_start(self, seat: Seat, now_ns: int) -> bool:
        started = self.instant_ns is not None and self._own_time.ran_ns(now_ns) > self._confirm_ran_ns
        return started and not (seat.is_armed or seat.report or seat.is_settled)

    def _who_is_missing(self) -> tuple[str, str]:
        came = sum(1 for seat in self.seats if seat.hello is not None)
        waited = f"within {JOIN_NS // (1000 * MS)} s"
        hint = "check the agents' output, and whether they can reach the coordinator"
        if self.how_to_join:
            hint = f"start each agent by `{self.how_to_join}`, and {hint}"
        if not came:
            return f"no agent connected {waited}", hint
        if came == len(self.seats):
            return (
                f"the agents' clocks were not measured {waited}",
                "start the agents sooner after the coordinator",
            )
        return f"{came} of {len(self.seats)} agents connected {waited}", hint

    def _probe(self, seat: Seat, now_ns: int) -> Send:
        seat.probes += 1
        return Send(Probe(number=seat.probes, sent_ns=now_ns), seat.agent)

    def clock_of(self, agent: int, now_ns: int) -> Estimate:
        """Estimate the offset of an agent's clock at this instant."""
        return self.seats[agent].clock.estimate(now_ns)

    def clock_at_start(self, seat: Seat) -> AgentClock:
        """Return an agent's clock at the start of the run, as exactly as it is known after the run.

        It has the default values if the start was not ordered.
        """
        if seat.start is None:
            return AgentClock()
        used = seat.clock.settled(Estimate(seat.start.offset_ns, seat.start.bound_ns), seat.start.instant_ns)
        return AgentClock(
            offset_ns=used.offset_ns,
            bound_ns=used.bound_ns,
            drift_ppm=round(seat.clock.drift()[0], 3),
            jumped_ns=seat.clock.jumped_ns,
        )

    def last_sending_ns(self, agent: int) -> int:
        """Return the latest instant at which a lost agent may have sent.

        It is the instant at which the agent was known to have ended, or at which it must have noticed the
        coordinator's silence.
        """
        seat = self.seats[agent]
        if seat.gone_ns is not None:
            return seat.gone_ns
        assert seat.lost_ns is not None
        return seat.lost_ns + ORPHANED_NS + PROBE_NS


def _silence(silent_ns: int) -> str:
    return f"it was silent for {silent_ns / 1e9:.1f} s"
