"""The agent's side of the protocol (the rules are in `protocol`)."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Literal

from .messages import (
    AnyMessage,
    Armed,
    Echo,
    End,
    Opened,
    Plan,
    Probe,
    Ready,
    Refusal,
    Release,
    Report,
    Start,
    Stop,
)
from .own_time import OwnTime
from .protocol import (
    LEAST_LEAD_NS,
    LEAVE_NS,
    MS,
    ORPHANED_NS,
    PATIENCE_NS,
    Begin,
    Finish,
    Leave,
    Output,
    Prepare,
    Send,
)


class AgentPhase(Enum):
    """The phases of an agent, in the order in which it reaches them."""

    IDLE = "idle"
    PREPARING = "preparing"
    READY = "ready"
    STARTED = "started"
    ENDING = "ending"
    ENDED = "ended"
    GONE = "gone"


class AgentState:
    """The state of one agent.

    `accepted` are the epochs that this agent, or an earlier process in its place, has accepted.
    """

    def __init__(self, now_ns: int = 0, accepted: Sequence[str] = ()) -> None:
        self.phase = AgentPhase.IDLE
        self.accepted = set(accepted)
        self.plan: Plan | None = None
        self.start: Start | None = None
        self.end: End | None = None
        self.heard_ns = now_ns
        self._own_time = OwnTime(now_ns)
        self._heard_ran_ns = now_ns
        self.is_connected = True

    @property
    def epoch(self) -> str:
        """The epoch of the run; empty before the plan arrives."""
        return self.plan.epoch if self.plan is not None else ""

    def receive(self, message: AnyMessage, now_ns: int) -> list[Output]:
        """Handle a message from the coordinator."""
        self._own_time.pause_until(now_ns)
        self.heard_ns, self._heard_ran_ns = now_ns, self._own_time.ran_ns(now_ns)
        if isinstance(message, Probe):
            return [
                Send(Echo(number=message.number, sent_ns=message.sent_ns, came_ns=now_ns, left_ns=now_ns))
            ]
        if isinstance(message, Plan):
            return self._planned(message)
        if isinstance(message, Start) and message.epoch == self.epoch:
            return self._started(message, now_ns)
        if isinstance(message, Stop) and (message.epoch == self.epoch or self.phase is AgentPhase.IDLE):
            return self._stopped(message.how, message.why)
        if isinstance(message, Refusal):
            return [*self._stopped("drain", message.why), *self._leave(message.why)]
        if isinstance(message, Release):
            return self._leave()
        return []

    def prepared(self, planned: int, due_by_second: list[int], routes: str = "") -> list[Output]:
        """Report that the share is planned and the lanes are warm.

        `planned` is the number of requests of the share, `due_by_second` their number in each second, and `routes` the
        digest of the names of all routes.
        """
        if self.phase is not AgentPhase.PREPARING:
            return []
        self.phase = AgentPhase.READY
        ready = Ready(epoch=self.epoch, planned=planned, due_by_second=due_by_second, routes=routes)
        return [Send(ready)]

    def failed(self, why: str, hint: str = "", code: int = 2) -> list[Output]:
        """Report that the share cannot be sent, or that the run failed, unless the agent has already ended."""
        if self.phase in (AgentPhase.ENDED, AgentPhase.GONE):
            return []
        self.phase = AgentPhase.ENDED
        return [Send(Refusal(why=why, hint=hint, code=code))]

    def reported(self, report: Report | Opened) -> list[Output]:
        """Send the facts of the start, or the counts of a second, to the coordinator.

        Nothing is sent when the share is not running or the connection has ended.
        """
        running = self.phase in (AgentPhase.STARTED, AgentPhase.ENDING)
        return [Send(report)] if running and self.is_connected else []

    def ended(self, end: End) -> list[Output]:
        """Report that the run has ended and its folder is complete. Without a connection, the agent leaves instead."""
        if self.phase not in (AgentPhase.STARTED, AgentPhase.ENDING):
            return []
        self.phase, self.end = AgentPhase.ENDED, end
        return [Send(end)] if self.is_connected else self._leave("the coordinator is gone")

    def disconnected(self, why: str = "the connection to the coordinator ended") -> list[Output]:
        """Handle the end of the connection, after which no message can arrive.

        A running share is drained; an agent that does not run leaves at once.
        """
        self.is_connected = False
        if self.phase in (AgentPhase.STARTED, AgentPhase.ENDING):
            return self._stopped("drain", why)
        return self._leave(why)

    def tick(self, now_ns: int) -> list[Output]:
        """Check the time limits. Call it several times per second."""
        self._own_time.pause_until(now_ns)
        silent_ns = self._own_time.ran_ns(now_ns) - self._heard_ran_ns
        if self.phase is AgentPhase.STARTED and silent_ns > ORPHANED_NS:
            return self._stopped("drain", f"the coordinator was silent for {silent_ns / 1e9:.1f} s")
        waits = self.phase not in (AgentPhase.STARTED, AgentPhase.ENDING, AgentPhase.GONE)
        if waits and silent_ns > PATIENCE_NS + LEAVE_NS:
            return self._leave(f"the coordinator was silent for {silent_ns / 1e9:.0f} s")
        return []

    def _planned(self, plan: Plan) -> list[Output]:
        if plan.epoch in self.accepted:
            if plan.epoch == self.epoch:
                return []
            return [Send(Refusal(why=f"order {plan.epoch} was accepted before"))]
        if self.phase is not AgentPhase.IDLE:
            return [Send(Refusal(why=f"the agent already has an order ({self.epoch})"))]
        self.accepted.add(plan.epoch)
        self.plan, self.phase = plan, AgentPhase.PREPARING
        return [Prepare(plan)]

    def _started(self, start: Start, now_ns: int) -> list[Output]:
        armed = Send(Armed(epoch=self.epoch))
        if self.start is not None:
            return [armed] if start == self.start else []
        if self.phase is not AgentPhase.READY:
            return []
        if start.agent_ns - now_ns < LEAST_LEAD_NS:
            left_ms = (start.agent_ns - now_ns) // MS
            when = f"{left_ms} ms before" if left_ms >= 0 else f"{-left_ms} ms after"
            return self.failed(f"the order to start arrived too late: {when} the start", code=1)
        self.phase, self.start = AgentPhase.STARTED, start
        return [armed, Begin(start)]

    def _stopped(self, how: Literal["drain", "abandon"], why: str) -> list[Output]:
        if self.phase is AgentPhase.STARTED or (self.phase is AgentPhase.ENDING and how == "abandon"):
            self.phase = AgentPhase.ENDING
            return [Finish(how, why)]
        if self.phase in (AgentPhase.IDLE, AgentPhase.PREPARING, AgentPhase.READY):
            return self._leave(why)
        return []

    def _leave(self, why: str = "") -> list[Output]:
        if self.phase in (AgentPhase.STARTED, AgentPhase.ENDING, AgentPhase.GONE):
            return []
        self.phase = AgentPhase.GONE
        return [Leave(why)]
