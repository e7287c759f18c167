"""How many lanes, how many connections, and how large a feed: what a plan needs, within what the machine has."""

from __future__ import annotations

import math
import os
import resource

from replay.errors import LimitError
from replay.plan import Schedule
from replay.scenario import AUTO, Scenario

from .contract import SECOND_NS
from .feeder import AHEAD_NS

LANE_RATE_PER_S = 40_000.0
"""Requests a second that one lane is trusted with before `auto` takes another."""

CLOSED_LOOP_CONNECTIONS = 64
"""Connections of a closed loop where the scenario does not say."""

RESERVED_FILES = 64
"""Descriptors left to the process itself: run folder, trace, epoll, eventfds."""


def lanes_for(schedule: Schedule, scenario: Scenario) -> int:
    """Threads as asked for, else by the planned peak, always a core left to the control plane and the target."""
    if scenario.threads != AUTO:
        return int(scenario.threads)
    peak = schedule.plan.peak_1s_per_s or 0.0
    cores = len(os.sched_getaffinity(0))
    return max(1, min(cores - 1, math.ceil(peak / LANE_RATE_PER_S)))


def connections_for(scenario: Scenario, lanes: int) -> list[int]:
    """Connections of each lane. LimitError where the file limit does not allow as many as asked for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    room = hard - RESERVED_FILES
    asked = int(scenario.connections)
    if asked == AUTO:
        asked = CLOSED_LOOP_CONNECTIONS if scenario.closed_loop else int(scenario.limits.auto_connections)
        asked = min(asked, room)
    if asked > room or room < lanes:
        raise LimitError(
            f"{max(asked, lanes):,} connections need {max(asked, lanes) + RESERVED_FILES:,} open files;"
            f" this process may open {hard:,}",
            hint="raise it with `ulimit -n`, or lower -c",
        )
    share, rest = divmod(max(asked, lanes), lanes)
    return [share + (lane < rest) for lane in range(lanes)]


def feed_size(schedule: Schedule, scenario: Scenario, request_bytes: int, lanes: int) -> tuple[int, int]:
    """Entries and ring bytes of a lane: what is rendered ahead, and as much again for what may wait."""
    if scenario.closed_loop:
        return 65_536, 65_536 * request_bytes
    # A client lives on one lane, and one client may be most of the load.
    peak = (schedule.plan.peak_1s_per_s or 1.0) / (1 if scenario.by_client else lanes)
    ahead_s = AHEAD_NS / SECOND_NS
    waiting_s = min(scenario.max_wait_ns / SECOND_NS, 10.0)
    entries = math.ceil(peak * (ahead_s + 2 * waiting_s))
    return entries, entries * request_bytes
