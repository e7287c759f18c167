"""The whole run as the coordinator plans it, and the plan that each agent gets."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import trio

from replay.plan.schedule import Schedule
from replay.settings.scenario import Scenario
from replay.trace import Trace

from . import shipping, values
from .coordinator_state import CoordinatorState
from .cut import lanes_of_each, share_of
from .messages import FileOffer, Piece, Plan, Want


@dataclass
class Order:
    """The whole run, planned and checked by the coordinator."""

    trace: Trace
    name: str
    scenario: Scenario
    schedules: Sequence[Schedule]
    on_lost: Literal["stop", "continue"] = "stop"
    start_at_ns: int | None = None
    """When the first request is due, in ns since the epoch; None means as soon as all agents are ready."""


class Orders:
    """Divides an order into the plans of the agents, and reads the pieces of its trace that they request."""

    def __init__(self, order: Order, run_id: str, say: Callable[[str], None]) -> None:
        self._order, self._run_id, self._say = order, run_id, say
        self._trace_files: list[FileOffer] = []
        self._lanes = 1

    async def plans(self, state: CoordinatorState) -> list[Plan]:
        """Return the plan of each agent.

        Raises UsageError or InputError if the scenario needs something that agents cannot get.
        """
        order, agents = self._order, len(state.seats)
        hellos = [seat.hello for seat in state.seats if seat.hello is not None]
        length_ns = max(schedule.plan.length_ns or 0 for schedule in order.schedules)
        wait_ns = max((order.start_at_ns or 0) - time.time_ns(), 0)
        scenario, files = await values.for_agents(order.scenario, agents, wait_ns + length_ns)
        lanes = self._lanes = lanes_of_each(order.schedules, order.scenario, hellos)
        path = order.trace.path.absolute()
        self._trace_files = await trio.to_thread.run_sync(shipping.trace_offers, path)
        digest = shipping.trace_digest(path)
        for hello in hellos:
            self._say(
                f"agent on {hello.host}, pid {hello.pid}: {hello.cpus} CPUs, {lanes} of {agents * lanes} lanes"
            )
        return [
            Plan(
                epoch=state.epoch,
                run_id=self._run_id,
                agent=agent,
                agents=agents,
                first_lane=share_of(agent, agents, lanes).first,
                lanes=lanes,
                all_lanes=agents * lanes,
                scenario=values.encoded(scenario),
                environ=values.environment(order.scenario),
                files=files,
                trace_digest=digest,
                trace_name=order.name,
                trace_path=str(path),
                trace=self._trace_files,
            )
            for agent in range(agents)
        ]

    def piece(self, want: Want) -> Piece:
        """Read a piece of the trace; blocks.

        Raises InputError if the file is not part of the trace, or cannot be read.
        """
        offered = {file.name: file.size for file in self._trace_files}
        return shipping.read_piece(self._order.trace.path, offered, want.file, want.offset)

    def lanes(self, agents: int) -> list[tuple[int, int, int]]:
        """Return the lanes of each agent: the first lane, the lane after the last, and the number of all lanes."""
        shares = [share_of(agent, agents, self._lanes) for agent in range(agents)]
        return [(share.first, share.first + share.count, share.of) for share in shares]
