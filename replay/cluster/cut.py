"""The division of a schedule among agents: each agent gets a range of the lanes of the whole run.

Lane L of n gets every n-th request. With sessions, order, or connections per client it gets every n-th client.
One process with n lanes divides the schedule in the same way. So the requests of a client stay together, and
shares never overlap. A protocol may divide its requests itself (`ProtocolAdapter.cut`): Kafka records are divided
by partition, and each agent has one lane for such a target.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from replay.lane.contract import LaneRange
from replay.lane.sizing import LANE_RATE_PER_S
from replay.plan.schedule import Schedule
from replay.protocols.registry import protocol_of
from replay.settings.kinds import AUTO
from replay.settings.scenario import Scenario

from .messages import Hello


def lanes_of_each(schedules: Sequence[Schedule], scenario: Scenario, hellos: Sequence[Hello]) -> int:
    """Return the number of lanes of each agent.

    It is one if the scenario selects the portable engine, an agent can run no other, or no target can have more lanes.
    Otherwise it is `-t` if given, or what the plan's peak needs: at least one, at most the cores of the smallest
    machine minus one.
    """
    if scenario.engine == "portable" or any(hello.engine != "native" for hello in hellos):
        return 1
    if all(protocol_of(own.target).has_one_lane for own in scenario.by_target()):
        return 1
    if scenario.threads != AUTO:
        return int(scenario.threads)
    peak = max(schedule.plan.peak_1s_per_s or 0.0 for schedule in schedules) / len(hellos)
    cores = min(hello.cpus for hello in hellos)
    return max(1, min(cores - 1, math.ceil(peak / LANE_RATE_PER_S)))


def share_of(agent: int, agents: int, lanes: int) -> LaneRange:
    """Return the lanes that one agent runs."""
    return LaneRange(agent * lanes, lanes, agents * lanes)
