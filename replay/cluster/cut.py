"""How a schedule is divided: agents have ranges of the lanes of the whole run.

Lane L of n gets every n-th request, or with sessions, order or connections per client, every n-th client. A single
process with n lanes divides it in the same way. So no client is split, and shares do not overlap.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from replay.engine.target_runs import first_seqs
from replay.lane.contract import LaneRange
from replay.lane.sizing import LANE_RATE_PER_S
from replay.plan.schedule import Schedule
from replay.settings.kinds import AUTO
from replay.settings.scenario import Scenario
from replay.units import SECOND_NS

from .messages import Hello


def lanes_of_each(schedules: Sequence[Schedule], scenario: Scenario, hellos: Sequence[Hello]) -> int:
    """Lanes of each agent: `-t`, or as many as the plan's peak needs and the smallest machine has cores for. One lane
    each if an agent must use the portable engine."""
    if scenario.engine == "portable" or any(hello.engine != "native" for hello in hellos):
        return 1
    if scenario.threads != AUTO:
        return int(scenario.threads)
    peak = max(schedule.plan.peak_1s_per_s or 0.0 for schedule in schedules) / len(hellos)
    cores = min(hello.cpus for hello in hellos)
    return max(1, min(cores - 1, math.ceil(peak / LANE_RATE_PER_S)))


def share_of(agent: int, agents: int, lanes: int) -> LaneRange:
    """The lanes of one agent."""
    return LaneRange(agent * lanes, lanes, agents * lanes)


def due_by_second(schedules: Sequence[Schedule], share: LaneRange, *, by_client: bool) -> list[int]:
    """How many requests of a share are due in each second of the run."""
    counts = np.zeros(0, np.int64)
    for schedule, first_seq in zip(schedules, first_seqs(schedules), strict=True):
        for batch in schedule.batches():
            numbers = first_seq + batch.first_seq + np.arange(len(batch), dtype=np.int64)
            lane = (batch.client.astype(np.int64) if by_client else numbers) % share.of
            own = batch.due_ns[(lane >= share.first) & (lane < share.first + share.count)]
            found = np.bincount(own // SECOND_NS, minlength=len(counts))
            found[: len(counts)] += counts
            counts = found
    return [int(count) for count in counts]
