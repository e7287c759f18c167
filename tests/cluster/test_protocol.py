"""The rules of both sides, without sockets: messages and instants in, messages and actions out."""

from __future__ import annotations

from typing import Any

import pytest

from replay.cluster import protocol
from replay.cluster.agent_state import AgentPhase, AgentState
from replay.cluster.coordinator_state import CoordinatorState, Phase
from replay.cluster.messages import (
    Armed,
    Echo,
    End,
    Hello,
    Message,
    Plan,
    Ready,
    Refusal,
    Report,
    Start,
    Stop,
    decode,
    encode,
)
from replay.cluster.protocol import (
    AllHere,
    Began,
    Begin,
    Failed,
    Finish,
    Leave,
    Lost,
    Output,
    Over,
    Prepare,
    Send,
)

MS = protocol.MS
EPOCH = "e1"


def hello(pid: int = 1, **changes: str) -> Hello:
    named: dict[str, Any] = {"version": "1", "kernels": "k", "host": "h", "engine": "native"} | changes
    return Hello(pid=pid, cpus=2, memory_bytes=1, open_files=1024, **named)


def plan(agent: int, epoch: str = EPOCH) -> Plan:
    return Plan(
        epoch=epoch, run_id="r", agent=agent, agents=2, first_lane=agent, lanes=1, all_lanes=2, scenario=b"",
        trace_digest="d", trace_name="t",
    )  # fmt: skip


class Pair:
    """A coordinator and its agents, whose messages arrive at once."""

    def __init__(self, agents: int = 2, on_lost: str = "stop") -> None:
        self.now_ns = 0
        self.coordinator = CoordinatorState(agents, epoch=EPOCH, version="1", kernels="k", on_lost=on_lost)  # type: ignore[arg-type]
        self.agents = [AgentState() for _ in range(agents)]
        self.silent: set[int] = set()
        self.done: list[Output] = []
        for number in range(agents):
            self.coordinate(self.coordinator.joined(hello(number), self.now_ns)[1])

    def coordinate(self, outputs: list[Output]) -> None:
        for output in outputs:
            if isinstance(output, Send):
                if output.agent not in self.silent:
                    self.act(
                        output.agent, self.agents[output.agent].receive(again(output.message), self.now_ns)
                    )
                continue
            self.done.append(output)
            if isinstance(output, AllHere):
                self.coordinate(self.coordinator.order([plan(n) for n in range(len(self.agents))]))

    def act(self, number: int, outputs: list[Output]) -> None:
        for output in outputs:
            if isinstance(output, Send) and number not in self.silent:
                message = again(output.message)
                self.coordinate(self.coordinator.receive(number, message, self.now_ns))
            elif isinstance(output, Prepare):
                self.act(number, self.agents[number].prepared(5, [5]))
            elif not isinstance(output, Send):
                self.done.append(output)

    def stop_coordinator(self, ms: int) -> list[tuple[int, Output]]:
        """The coordinator does not run for a while. Returns what its agents do: it waits in its sockets."""
        waiting: list[tuple[int, Output]] = []
        for _ in range(ms // 250):
            self.now_ns += 250 * MS
            for number, agent in enumerate(self.agents):
                report = Report(epoch=EPOCH, number=self.now_ns, at_s=0, totals={})
                waiting += [(number, output) for output in agent.tick(self.now_ns) + agent.reported(report)]
        return waiting

    def pass_time(self, ms: int) -> None:
        for _ in range(ms // 250):
            self.now_ns += 250 * MS
            self.coordinate(self.coordinator.tick(self.now_ns))
            for number, agent in enumerate(self.agents):
                self.act(number, agent.tick(self.now_ns))

    def found(self, kind: type) -> list:
        return [output for output in self.done if isinstance(output, kind)]


def again(message: Message):
    return decode(encode(message))


def echo(number: int) -> Echo:
    return Echo(number=number, sent_ns=0, came_ns=0, left_ns=0)


def end(epoch: str = EPOCH) -> End:
    return End(epoch=epoch, accounts={"planned": 5}, ending="whole")


def test_a_run_from_the_first_message_to_the_last() -> None:
    pair = Pair()
    pair.pass_time(2_500)
    assert len(pair.found(Began)) == 1 and len(pair.found(Begin)) == 2
    assert {begin.start.agent_ns for begin in pair.found(Begin)} == {pair.coordinator.instant_ns}
    pair.pass_time(2_000)
    for number, agent in enumerate(pair.agents):
        pair.act(number, agent.ended(end()))
    assert pair.coordinator.phase is Phase.OVER and len(pair.found(Over)) == 1 and not pair.found(Lost)


def test_a_silent_agent_is_lost_within_two_seconds_and_the_others_drain() -> None:
    pair = Pair()
    pair.pass_time(4_500)
    pair.silent = {1}
    pair.pass_time(2_000)
    assert [lost.agent for lost in pair.found(Lost)] == [1]
    assert pair.agents[0].phase is AgentPhase.ENDING
    pair.pass_time(1_000)  # An agent that hears nothing notices by itself.
    assert pair.agents[1].phase is AgentPhase.ENDING
    assert len(pair.found(Finish)) == 2


def test_with_continue_the_others_go_on() -> None:
    pair = Pair(on_lost="continue")
    pair.pass_time(4_500)
    pair.coordinate(pair.coordinator.disconnected(1, pair.now_ns))
    assert pair.found(Lost) and pair.agents[0].phase is AgentPhase.STARTED
    pair.act(0, pair.agents[0].ended(end()))
    assert pair.found(Over)


def test_an_epoch_is_accepted_once() -> None:
    agent = AgentState()
    assert isinstance(agent.receive(plan(0), 0)[0], Prepare)
    assert agent.receive(plan(0), 0) == []  # The message is repeated.
    other = AgentState(accepted=[EPOCH])
    (refusal,) = other.receive(plan(0), 0)
    assert isinstance(refusal, Send) and other.phase is AgentPhase.IDLE


def test_a_repeated_start_begins_once() -> None:
    agent = AgentState()
    agent.receive(plan(0), 0)
    agent.prepared(1, [1])
    start = Start(epoch=EPOCH, instant_ns=2_000 * MS, agent_ns=2_000 * MS, offset_ns=0, bound_ns=0)
    assert [type(output) for output in agent.receive(start, 0)] == [Send, Begin]
    assert [type(output) for output in agent.receive(start, 0)] == [Send]


def test_a_start_that_comes_too_late_sends_nothing() -> None:
    agent = AgentState()
    agent.receive(plan(0), 0)
    agent.prepared(1, [1])
    start = Start(epoch=EPOCH, instant_ns=2_000 * MS, agent_ns=2_000 * MS, offset_ns=0, bound_ns=0)
    assert not [one for one in agent.receive(start, 1_800 * MS) if isinstance(one, Begin)]


def test_an_agent_whose_coordinator_dies_drains_at_once_and_leaves_after_it_saved() -> None:
    pair = Pair()
    pair.pass_time(4_500)
    agent = pair.agents[0]
    assert [type(output) for output in agent.disconnected()] == [Finish]
    assert [type(output) for output in agent.ended(end())] == [Leave]


def test_no_second_agent_gets_a_lost_share() -> None:
    pair = Pair()
    pair.pass_time(4_500)
    pair.coordinate(pair.coordinator.disconnected(1, pair.now_ns))
    number, (refusal,) = pair.coordinator.joined(hello(9), pair.now_ns)
    assert number == -1 and "accepts no more agents" in refusal.message.why  # type: ignore[union-attr]


def test_an_agent_that_differs_is_refused() -> None:
    for changes, word in (({"version": "2"}, "replay is 2"), ({"kernels": "x"}, "kernels")):
        state = CoordinatorState(1, epoch=EPOCH, version="1", kernels="k")
        number, (refusal,) = state.joined(hello(1, **changes), 0)
        assert number == -1 and word in refusal.message.why  # type: ignore[union-attr]


def test_no_agent_is_an_error_that_sends_nothing() -> None:
    state = CoordinatorState(2, epoch=EPOCH, version="1", kernels="k")
    state.how_to_join = "replay agent --connect h:1"
    ticks = [state.tick(now_ns) for now_ns in range(0, protocol.JOIN_NS + 1, protocol.PROBE_NS)]
    assert not any(ticks)
    (failed,) = state.tick(protocol.JOIN_NS + 1)
    assert isinstance(failed, Failed) and failed.why.startswith("no agent connected")
    assert "`replay agent --connect h:1`" in failed.hint


def test_an_older_report_does_not_replace_a_newer_one() -> None:
    pair = Pair()
    pair.pass_time(4_500)
    for number in (2, 1):
        report = Report(epoch=EPOCH, number=number, at_s=number, totals={"sent": number})
        pair.act(0, pair.agents[0].reported(report))
    kept = pair.coordinator.seats[0].report
    assert kept is not None and kept.number == 2


def test_agents_that_are_ready_wait_for_a_given_instant() -> None:
    pair = Pair()
    pair.coordinator.start_at_ns = 60_000 * MS
    pair.pass_time(50_000)
    assert pair.coordinator.is_waiting and not pair.found(Began)
    pair.coordinator.start_at_ns = 70_000 * MS  # the wall clock was set
    pair.pass_time(18_250)
    assert not pair.found(Began) and not pair.found(Lost)
    pair.pass_time(750)
    (began,) = pair.found(Began)
    assert began.instant_ns == 70_000 * MS
    assert {begin.start.agent_ns for begin in pair.found(Begin)} == {70_000 * MS}


def test_agents_that_are_ready_too_late_for_the_instant_send_nothing() -> None:
    pair = Pair()
    pair.coordinator.start_at_ns = 1_000 * MS
    pair.pass_time(4_000)
    (failed,) = pair.found(Failed)
    assert failed.code == 1 and "--start-at" in failed.why and not pair.found(Begin)


def test_an_agent_that_is_interrupted_before_the_start_does_not_interrupt_the_coordinator() -> None:
    pair = Pair()
    pair.pass_time(250)
    pair.coordinate(
        pair.coordinator.receive(1, Refusal(why="it was ended by SIGTERM", code=130), pair.now_ns)
    )
    (failed,) = pair.found(Failed)
    assert failed.code == 1 and "SIGTERM" in failed.why


def test_an_agent_lost_before_the_start_ends_the_run_unsent() -> None:
    pair = Pair()
    pair.coordinate(pair.coordinator.disconnected(0, pair.now_ns))
    assert pair.found(Lost) and pair.found(Failed) and not pair.found(Begin)


def test_a_stop_before_the_start_begins_nothing() -> None:
    agent = AgentState()
    agent.receive(plan(0), 0)
    agent.receive(Stop(epoch=EPOCH, how="abandon"), 0)
    assert agent.phase is AgentPhase.GONE and agent.prepared(1, [1]) == []


def test_a_stop_before_the_plan_is_the_reason_to_leave() -> None:
    """Without a plan an agent knows no epoch."""
    agent = AgentState()
    assert agent.receive(Stop(epoch=EPOCH, how="abandon", why="an agent is missing"), 0) == [
        Leave("an agent is missing")
    ]


@pytest.mark.parametrize("paused_ms", [750, 2_000, 10_000])
def test_a_coordinator_that_did_not_run_does_not_blame_its_agents(paused_ms: int) -> None:
    pair = Pair()
    pair.pass_time(4_500)
    waiting = pair.stop_coordinator(paused_ms)
    pair.coordinate(pair.coordinator.tick(pair.now_ns))  # before it reads what has come
    for number, output in waiting:
        pair.act(number, [output])
    pair.pass_time(1_000)
    assert not pair.found(Lost) and pair.coordinator.phase is Phase.RUNNING
    assert pair.coordinator.pauses_ns == [paused_ms * MS]


def test_an_agent_that_dies_while_the_coordinator_does_not_run_is_lost_soon_after() -> None:
    pair = Pair()
    pair.pass_time(4_500)
    pair.silent = {1}
    pair.now_ns += 10_000 * MS
    pair.pass_time(1_000)
    assert not pair.found(Lost)
    pair.pass_time(1_000)
    (lost,) = pair.found(Lost)
    assert lost.agent == 1 and "silent for 1." in lost.why


def test_a_silent_agent_is_lost_also_by_a_coordinator_that_hardly_runs() -> None:
    pair = Pair()
    pair.pass_time(4_500)
    pair.silent = {1}
    for _ in range(8):
        pair.now_ns += 3_000 * MS
        pair.coordinate(pair.coordinator.tick(pair.now_ns))
    assert [lost.agent for lost in pair.found(Lost)] == [1]


def test_a_coordinator_that_did_not_run_at_the_start_waits_for_the_confirmations() -> None:
    pair = Pair()
    pair.silent = {0, 1}
    for number in range(2):
        for n in range(protocol.CLOCK_SAMPLES):
            pair.coordinate(pair.coordinator.receive(number, echo(n), 0))
    pair.coordinator.order([plan(0), plan(1)])
    for number in range(2):
        pair.coordinate(pair.coordinator.receive(number, Ready(epoch=EPOCH, planned=1, due_by_second=[1]), 0))
    assert pair.found(Began)
    pair.now_ns = 3_000 * MS
    pair.coordinate(pair.coordinator.tick(pair.now_ns))
    assert not pair.found(Lost)
    for number in range(2):
        pair.coordinate(pair.coordinator.receive(number, Armed(epoch=EPOCH), pair.now_ns))
    pair.silent = set()
    pair.pass_time(250)
    assert not pair.found(Lost)


def test_agents_may_still_connect_to_a_coordinator_that_did_not_run() -> None:
    state = CoordinatorState(1, epoch=EPOCH, version="1", kernels="k")
    assert not state.tick(protocol.JOIN_NS + 1)
    assert state.joined(hello(), protocol.JOIN_NS + 2)[0] == 0


def test_a_lost_agent_still_sends_its_counts_to_a_coordinator_that_did_not_run() -> None:
    pair = Pair(agents=1)
    pair.pass_time(4_500)
    pair.coordinate(pair.coordinator.lost(0, "it was silent", pair.now_ns))
    pair.now_ns += protocol.LEAVE_NS + MS
    pair.coordinate(pair.coordinator.tick(pair.now_ns))
    assert not pair.found(Over)
    pair.act(0, pair.agents[0].ended(end()))
    assert pair.found(Over) and pair.coordinator.seats[0].end is not None


def test_an_agent_that_did_not_run_does_not_blame_the_coordinator() -> None:
    pair = Pair()
    pair.pass_time(4_500)
    agent = pair.agents[0]
    pair.now_ns += 10_000 * MS
    assert agent.tick(pair.now_ns) == [] and agent.phase is AgentPhase.STARTED
    # What may be sent is limited by when the coordinator was last heard, whether the agent ran or not.
    assert agent.heard_ns < pair.now_ns - protocol.ORPHANED_NS
    for _ in range(10):
        pair.now_ns += 250 * MS
        agent.tick(pair.now_ns)
    assert agent.phase is AgentPhase.ENDING


def test_an_agent_that_did_not_run_still_waits_for_its_plan() -> None:
    agent = AgentState()
    assert agent.tick(60_000 * MS) == [] and agent.phase is AgentPhase.IDLE


@pytest.mark.parametrize(("routes", "begins"), [(("a", "a"), True), (("a", "b"), False)])
def test_agents_that_found_different_partitions_do_not_begin(routes: tuple[str, str], begins: bool) -> None:
    pair = Pair()
    pair.silent = {0, 1}
    for number in range(2):
        for n in range(protocol.CLOCK_SAMPLES):
            pair.coordinate(pair.coordinator.receive(number, echo(n), 0))
    pair.coordinator.order([plan(0), plan(1)])
    for number, found in enumerate(routes):
        ready = Ready(epoch=EPOCH, planned=1, due_by_second=[1], routes=found)
        pair.coordinate(pair.coordinator.receive(number, ready, 0))
    assert bool(pair.found(Began)) == begins
    assert begins or ["different routes" in failed.why for failed in pair.found(Failed)] == [True]
