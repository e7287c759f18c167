"""Simulation of coordinator and agents under seeded schedules of deaths, pauses, delays and lost messages.

    python -m benchmarks.cluster_simulation [--schedules 10000] [--seed 1] [--only N]

The state machines are those of real runs (`replay.cluster.protocol`); sockets, clocks and lanes are simulated. Each
schedule draws agents, clocks with an offset and a drift, a network, and up to four faults. It checks that
- no request is sent twice,
- every request of the plan is in exactly one account, and the requests that a lost agent sent after its last report are at
  most `unknown`,
- an agent that died during the run is reported in time, within two seconds if the run ends, unless the coordinator was
  paused; and no agent is lost if the network loses nothing and the only faults, if any, pause the coordinator,
- the start of each agent is within the stated bound of the coordinator's instant,
- agents whose coordinator died send nothing after five seconds, unless they were paused or their messages were held back,
- the run ends in time.

A stream cannot lose a single message of the handshake (Plan, Ready, Start, Armed, End), so these are lost only with their
connection. Probes, echoes, reports, stops and releases may be lost and may overtake each other. Any message may be doubled.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from replay.cluster import protocol
from replay.cluster.agent_state import AgentPhase, AgentState
from replay.cluster.coordinator_state import CoordinatorState, Phase
from replay.cluster.messages import (
    AnyMessage,
    Echo,
    End,
    Hello,
    Message,
    Plan,
    Probe,
    Release,
    Report,
    Stop,
    decode,
    encode,
)
from replay.cluster.protocol import (
    AllHere,
    Begin,
    Failed,
    Finish,
    Leave,
    Lost,
    Output,
    Over,
    Prepare,
    Reported,
    Send,
)
from replay.cluster.reports import Reports, unknown_requests

MS, S = 1_000_000, 1_000_000_000
STEP_NS = 20 * MS
"""The interval at which simulated lanes look for due requests."""

AHEAD_NS = 2 * S
"""How far ahead the lanes' rings are filled; the control plane cannot take these requests back."""

REQUESTS_PER_S = 25
RUN_S = 6
AFTER_S = 14
"""How long the simulation continues after the end, for late messages and agents that wake up."""

EPOCH = "e"
LOSSY = (Probe, Echo, Report, Stop, Release)
FAULTS = ("kill", "vanish", "pause", "cut", "hold", "restart", "kill coordinator", "pause coordinator")


@dataclass
class Network:
    """How long messages travel, and the probabilities that they are lost or doubled."""

    delay_ns: int
    jitter_ns: int
    lost: float
    doubled: float
    overtaking: bool


@dataclass
class Fault:
    """A fault of one agent or of the coordinator: when, of which kind, and for how long (if the kind has a length)."""

    at_ns: int
    kind: str
    agent: int
    for_ns: int


@dataclass
class Machine:
    """A process that can die or be paused. Its clock is `lead_ns` ahead and runs faster by `ppm`."""

    lead_ns: int = 0
    ppm: float = 0.0
    is_alive: bool = True
    paused_until_ns: int = 0
    inbox: list[AnyMessage] = field(default_factory=list)

    def now(self, at_ns: int) -> int:
        """Return what its clock shows at the true time `at_ns`."""
        return self.lead_ns + at_ns + round(at_ns * self.ppm / 1e6)

    def runs(self, at_ns: int) -> bool:
        """Return whether the process is alive and not paused."""
        return self.is_alive and at_ns >= self.paused_until_ns


@dataclass
class Agent(Machine):
    """An agent with simulated lanes. `sent` lists the numbers of the sent requests within its share."""

    state: AgentState = field(default_factory=AgentState)
    seat: int = -1
    is_connected: bool = True
    due: list[int] = field(default_factory=list)
    start_ns: int | None = None
    next: int = 0
    fed_ns: int = 0
    stop_ns: int | None = None
    ended: bool = False
    sent: list[int] = field(default_factory=list)
    last_sent_ns: int = 0
    reported_s: int = 0
    died_ns: int | None = None
    was_paused: bool = False


class Broken(AssertionError):
    """A schedule in which a promise was not kept."""


class World:
    """One schedule."""

    def __init__(self, seed: int) -> None:
        draw = self.draw = random.Random(seed)
        self.now_ns = 0
        self._order = itertools.count()
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        count = draw.randint(1, 4)
        slow = draw.random() < 0.3
        self.network = Network(
            delay_ns=draw.randint(50_000, 80 * MS if slow else 5 * MS),
            jitter_ns=draw.randint(1, 150 * MS if slow else 3 * MS),
            lost=draw.choice([0.0, 0.0, 0.01, 0.05]),
            doubled=draw.choice([0.0, 0.0, 0.05]),
            overtaking=draw.random() < 0.3,
        )
        self.machine = Machine()
        self.coordinator = CoordinatorState(
            count, epoch=EPOCH, version="1", kernels="k", on_lost=draw.choice(["stop", "continue"])
        )
        self.agents = [self._made_agent() for _ in range(count)]
        self.processes = list(self.agents)
        self.reports = [Reports() for _ in range(count)]
        self.lost: dict[int, int] = {}
        self.failed: Failed | None = None
        self.over_ns: int | None = None
        self.coordinator_died_ns: int | None = None
        self.coordinator_was_paused = False
        self.faults = self._drawn_faults(count)
        self._held: dict[int, int] = {}
        self._last_arrival: dict[tuple[int, bool], int] = {}

    def _made_agent(self) -> Agent:
        draw = self.draw
        agent = Agent(lead_ns=draw.randint(-(10**15), 10**15), ppm=draw.uniform(-500, 500))
        agent.state = AgentState(agent.now(self.now_ns))
        return agent

    def _drawn_faults(self, count: int) -> list[Fault]:
        draw = self.draw
        faults = []
        for _ in range(draw.choice([0, 1, 1, 1, 2, 3, 4])):
            for_ns = draw.choice([draw.randint(1, 900) * MS, draw.randint(1, 12) * S])
            faults.append(
                Fault(round(draw.uniform(0.2, 10) * S), draw.choice(FAULTS), draw.randrange(count), for_ns)
            )
        return sorted(faults, key=lambda fault: fault.at_ns)

    def at(self, at_ns: int, action: Callable[[], None]) -> None:
        """Schedule an action at a true time."""
        heapq.heappush(self._events, (at_ns, next(self._order), action))

    def run(self) -> World:
        """Run the schedule until nothing more can happen, or until its time limit."""
        for agent in self.agents:
            self._join(agent)
        for fault in self.faults:
            self.at(fault.at_ns, lambda fault=fault: self._break(fault))  # type: ignore[misc]
        self._every(STEP_NS, self._step)
        self._every(125 * MS, self._tick_coordinator)
        limit_ns = (RUN_S + 60) * S
        while self._events and self.now_ns < limit_ns:
            if self.is_settled():
                break
            self.now_ns, _, action = heapq.heappop(self._events)
            action()
        return self

    def _every(self, step_ns: int, action: Callable[[], None]) -> None:
        def again() -> None:
            action()
            self.at(self.now_ns + step_ns, again)

        self.at(step_ns, again)

    def is_settled(self) -> bool:
        """Return whether AFTER_S have passed since the end of the run or the death of the coordinator."""
        end_ns = self.over_ns if self.over_ns is not None else self.coordinator_died_ns
        return end_ns is not None and self.now_ns > end_ns + AFTER_S * S

    def _travel(self, agent: Agent, message: Message, to_agent: bool) -> None:
        if not agent.is_connected:
            return
        network, draw = self.network, self.draw
        lossy = isinstance(message, LOSSY)
        copies = 1
        if lossy and draw.random() < network.lost:
            copies = 0
        elif draw.random() < network.doubled:
            copies = 2
        for _ in range(copies):
            at_ns = self.now_ns + network.delay_ns + round(draw.random() ** 4 * network.jitter_ns)
            at_ns = max(at_ns, self._held.get(id(agent), 0))
            key = id(agent), to_agent
            if not (network.overtaking and lossy):
                at_ns = max(at_ns, self._last_arrival.get(key, 0))
                self._last_arrival[key] = at_ns
            same = decode(encode(message))
            arrive = self._to_agent if to_agent else self._to_coordinator
            self.at(at_ns, lambda same=same, arrive=arrive: arrive(agent, same))  # type: ignore[misc]

    def _to_agent(self, agent: Agent, message: AnyMessage) -> None:
        if not agent.is_alive or not agent.is_connected:
            return
        if not agent.runs(self.now_ns):
            agent.inbox.append(message)
            return
        self._act_agent(agent, agent.state.receive(message, agent.now(self.now_ns)))

    def _to_coordinator(self, agent: Agent, message: AnyMessage) -> None:
        if not self.machine.is_alive or agent.seat < 0 or not agent.is_connected:
            return
        if not self.machine.runs(self.now_ns):
            self.at(
                self.machine.paused_until_ns,
                lambda: self._to_coordinator(agent, message),
            )
            return
        self._act(self.coordinator.receive(agent.seat, message, self.now_ns))

    def _join(self, agent: Agent) -> None:
        """Let a process join; one that joins too late is refused."""
        hello = Hello(
            version="1", kernels="k", host="h", pid=1, cpus=2, memory_bytes=1, open_files=1, engine="native"
        )
        agent.seat, outputs = self.coordinator.joined(hello, self.now_ns)
        if agent.seat < 0:
            agent.is_connected = False
            self._act_agent(agent, agent.state.disconnected("refused"))
            return
        self.agents[agent.seat] = agent
        self._act(outputs)

    def _disconnect(self, agent: Agent) -> None:
        """End the connection; each side notices as soon as it runs."""
        if not agent.is_connected:
            return
        agent.is_connected = False
        if agent.is_alive:
            self._when_awake(agent, lambda: self._act_agent(agent, agent.state.disconnected()))
        if self.machine.is_alive and agent.seat >= 0:
            self._when_awake(
                self.machine, lambda: self._act(self.coordinator.disconnected(agent.seat, self.now_ns))
            )

    def _when_awake(self, machine: Machine, action: Callable[[], None]) -> None:
        self.at(
            max(self.now_ns + MS, machine.paused_until_ns), lambda: action() if machine.is_alive else None
        )

    def _act(self, outputs: list[Output]) -> None:
        for output in outputs:
            if isinstance(output, Send):
                self._travel(self.agents[output.agent], output.message, True)
            elif isinstance(output, AllHere):
                self._act(
                    self.coordinator.order([_plan(n, len(self.agents)) for n in range(len(self.agents))])
                )
            elif isinstance(output, Reported):
                self.reports[output.agent].add(output.report)
            elif isinstance(output, Lost):
                self.lost[output.agent] = self.now_ns
            elif isinstance(output, Failed):
                self.failed, self.over_ns = output, self.now_ns
                self._let_go()
            elif isinstance(output, Over):
                self.over_ns = self.now_ns
                self._let_go()

    def _let_go(self) -> None:
        """Close all connections half a second after the coordinator has ended the run."""
        for agent in self.processes:
            self.at(self.now_ns + 500 * MS, lambda agent=agent: self._disconnect(agent))  # type: ignore[misc]

    def _tick_coordinator(self) -> None:
        if self.machine.runs(self.now_ns) and self.over_ns is None:
            self._act(self.coordinator.tick(self.now_ns))

    def _act_agent(self, agent: Agent, outputs: list[Output]) -> None:
        for output in outputs:
            if isinstance(output, Send):
                self._travel(agent, output.message, False)
            elif isinstance(output, Prepare):
                agent.due = [n * S // REQUESTS_PER_S for n in range(RUN_S * REQUESTS_PER_S)]
                took_ns = round(self.draw.uniform(0.01, 1.0) * S)
                self.at(self.now_ns + took_ns, lambda agent=agent: self._prepared(agent))  # type: ignore[misc]
            elif isinstance(output, Begin):
                agent.start_ns = output.start.agent_ns
            elif isinstance(output, Finish):
                agent.stop_ns = agent.now(self.now_ns)
            elif isinstance(output, Leave):
                agent.is_connected = False

    def _prepared(self, agent: Agent) -> None:
        if agent.is_alive:
            per_second = [REQUESTS_PER_S] * RUN_S
            self._act_agent(agent, agent.state.prepared(len(agent.due), per_second))

    def _step(self) -> None:
        for agent in self.processes:
            if agent.runs(self.now_ns):
                self._step_agent(agent)

    def _step_agent(self, agent: Agent) -> None:
        """Run the lanes and the feeder, which are the first to continue after a pause, then messages and the rules."""
        now_ns = agent.now(self.now_ns)
        if agent.start_ns is not None and not agent.ended:
            self._send_due(agent, now_ns)
            if agent.stop_ns is None:
                heard_ns = agent.state.heard_ns + protocol.ORPHANED_NS
                agent.fed_ns = max(agent.fed_ns, min(now_ns + AHEAD_NS, heard_ns) - agent.start_ns)
        waiting, agent.inbox = agent.inbox, []
        for message in waiting:
            self._act_agent(agent, agent.state.receive(message, now_ns))
        self._act_agent(agent, agent.state.tick(now_ns))
        if agent.start_ns is None or agent.ended:
            return
        if agent.stop_ns is None:
            self._report(agent, now_ns)
        self._end_if_done(agent, now_ns)

    def _send_due(self, agent: Agent, now_ns: int) -> None:
        assert agent.start_ns is not None
        until_ns = min(now_ns - agent.start_ns, agent.fed_ns)
        if agent.stop_ns is not None:
            until_ns = min(until_ns, agent.stop_ns - agent.start_ns)
        while agent.next < len(agent.due) and agent.due[agent.next] <= until_ns:
            agent.sent.append(agent.next)
            agent.last_sent_ns = self.now_ns
            agent.next += 1

    def _report(self, agent: Agent, now_ns: int) -> None:
        assert agent.start_ns is not None
        second = (now_ns - agent.start_ns) // S
        if second > agent.reported_s:
            agent.reported_s = second
            totals = {"planned": len(agent.sent), "sent": len(agent.sent), "ok": len(agent.sent)}
            report = Report(epoch=EPOCH, number=second, at_s=float(second), totals=totals)
            self._act_agent(agent, agent.state.reported(report))

    def _end_if_done(self, agent: Agent, now_ns: int) -> None:
        stopped = agent.stop_ns is not None and now_ns > agent.stop_ns + 100 * MS
        if not stopped and agent.next < len(agent.due):
            return
        agent.ended = True
        count = len(agent.sent)
        how = "whole" if count == len(agent.due) else "interrupted"
        end = End(epoch=EPOCH, accounts={"planned": count, "sent": count, "ok": count}, ending=how)
        self._act_agent(agent, agent.state.ended(end))

    def _break(self, fault: Fault) -> None:
        agent = self.agents[fault.agent]
        if fault.kind == "kill":
            self._kill(agent)
            self._disconnect(agent)
        elif fault.kind == "vanish":
            self._kill(agent)
        elif fault.kind == "pause" and agent.is_alive:
            agent.paused_until_ns, agent.was_paused = self.now_ns + fault.for_ns, True
        elif fault.kind == "cut":
            self._disconnect(agent)
        elif fault.kind == "hold":
            self._held[id(agent)] = self.now_ns + fault.for_ns
        elif fault.kind == "restart":
            self._kill(agent)
            self._disconnect(agent)
            new = self._made_agent()
            self.processes.append(new)
            self.at(self.now_ns + 300 * MS, lambda: self._join(new))
        elif fault.kind == "kill coordinator" and self.machine.is_alive and self.over_ns is None:
            self.machine.is_alive, self.coordinator_died_ns = False, self.now_ns
            for one in self.processes:
                if self.draw.random() < 0.5:
                    self._disconnect(one)
        elif fault.kind == "pause coordinator":
            self.machine.paused_until_ns = self.now_ns + fault.for_ns
            # This is the worst order: the coordinator judges its agents before it reads their messages.
            self.at(self.machine.paused_until_ns, self._tick_coordinator)
            self.coordinator_was_paused = True

    def _kill(self, agent: Agent) -> None:
        if agent.is_alive:
            agent.is_alive, agent.died_ns = False, self.now_ns


def _plan(agent: int, agents: int) -> Plan:
    return Plan(
        epoch=EPOCH, run_id="r", agent=agent, agents=agents, first_lane=agent, lanes=1, all_lanes=agents,
        scenario=b"", trace_digest="d", trace_name="t",
    )  # fmt: skip


def check(world: World) -> str:
    """Raise Broken if a promise was not kept; otherwise return how the run ended."""
    shares: Counter[tuple[int, int]] = Counter()
    for agent in world.processes:
        share = agent.state.plan.agent if agent.state.plan is not None else -1
        shares.update((share, number) for number in agent.sent)
    if any(count > 1 for count in shares.values()):
        raise Broken("a request was sent twice")
    _check_starts(world)
    if world.coordinator_died_ns is not None:
        _check_orphans(world)
        return "coordinator died"
    if world.over_ns is None:
        raise Broken(f"the run is not over: {world.coordinator.phase}")
    if world.failed is not None:
        if any(agent.sent for agent in world.processes):
            raise Broken(f"requests were sent although the run could not begin ({world.failed.why})")
        return "could not begin"
    _check_accounts(world)
    _check_lost(world)
    return "lost agents" if world.lost else "whole"


def _check_orphans(world: World) -> None:
    assert world.coordinator_died_ns is not None
    for agent in world.processes:
        late_ns = agent.last_sent_ns - world.coordinator_died_ns
        if late_ns > 5 * S and not agent.was_paused and id(agent) not in world._held:
            raise Broken(f"an agent still sent {late_ns / S:.2f} s after its coordinator had died")
        if agent.runs(world.now_ns) and agent.state.phase in (AgentPhase.STARTED, AgentPhase.ENDING):
            raise Broken("an agent whose coordinator died has not ended")


def _check_accounts(world: World) -> None:
    """Check that agents that ended reported what they sent, and that the accounts of lost agents balance."""
    state = world.coordinator
    for seat in state.seats:
        agent = world.agents[seat.agent]
        assert seat.ready is not None
        if seat.end is not None:
            if seat.end.accounts["sent"] != len(agent.sent):
                raise Broken(
                    f"agent {seat.agent} reported {seat.end.accounts['sent']} sent requests, and sent {len(agent.sent)}"
                )
            continue
        reports = world.reports[seat.agent]
        reported = reports.totals.get("planned", 0)
        assert state.instant_ns is not None
        unknown = unknown_requests(seat, reports, state.instant_ns, state.last_sending_ns(seat.agent))
        unsent = seat.ready.planned - reported - unknown
        if unsent < 0:
            raise Broken(f"the accounts of agent {seat.agent} do not balance")
        if not reported <= len(agent.sent) <= reported + unknown:
            raise Broken(
                f"agent {seat.agent} sent {len(agent.sent)} requests: not between {reported} (reported) and"
                f" {reported + unknown} (reported and unknown)"
            )


def _check_lost(world: World) -> None:
    """Check that agents that died are reported in time, and that none is lost without a reason."""
    state = world.coordinator
    for seat in state.seats:
        agent = world.agents[seat.agent]
        died_ns = agent.died_ns
        if died_ns is not None and seat.end is None:
            if seat.agent not in world.lost:
                raise Broken(f"agent {seat.agent} died, and was not reported")
            late_ns = world.lost[seat.agent] - max(died_ns, seat.heard_ns)
            limit_ns = 2 * S if state.phase is Phase.OVER else protocol.PATIENCE_NS + S
            if late_ns > limit_ns and not world.coordinator_was_paused:
                raise Broken(f"agent {seat.agent} died, and was reported only {late_ns / S:.2f} s later")
    kinds = {fault.kind for fault in world.faults}
    if world.lost and not world.network.lost and kinds <= {"pause coordinator"}:
        raise Broken(f"agents were lost without a fault of theirs ({', '.join(kinds) or 'no faults at all'})")


def _check_starts(world: World) -> None:
    """Check that the start of each agent is within the stated bound of the true instant."""
    for agent in world.processes:
        start = agent.state.start
        if start is None:
            continue
        error_ns = abs(start.agent_ns - agent.now(start.instant_ns))
        if error_ns > start.bound_ns:
            raise Broken(
                f"a start was off by {error_ns / MS:.3f} ms, and its bound is {start.bound_ns / MS:.3f} ms"
            )


def simulate(schedules: int, seed: int) -> Counter[str]:
    """Run schedules, and count how they ended; raise Broken for the first one that breaks a promise."""
    outcomes: Counter[str] = Counter()
    for number in range(schedules):
        try:
            outcomes[check(World(seed * 1_000_000 + number).run())] += 1
        except Broken as error:
            raise Broken(f"schedule {number} of seed {seed}: {error}") from None
    return outcomes


def main() -> int:
    """Run the schedules of the command line, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--schedules", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="run this schedule alone")
    given = parser.parse_args()
    if given.only is not None:
        world = World(given.seed * 1_000_000 + given.only).run()
        print(*world.faults, world.network, sep="\n")
        print(check(world))
        return 0
    began_s = time.perf_counter()
    outcomes = simulate(given.schedules, given.seed)
    took_s = time.perf_counter() - began_s
    print(f"{given.schedules:,} schedules in {took_s:.0f} s: {dict(outcomes.most_common())}")
    print(
        f"limits: an agent is lost after {protocol.LOST_NS / S:.1f} s of silence,"
        f" a coordinator after {protocol.ORPHANED_NS / S:.1f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
