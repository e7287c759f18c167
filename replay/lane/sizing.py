"""Determines how many lanes and connections, and how large a feed, a plan needs within the machine's limits."""

from __future__ import annotations

import math
import os
import resource
from pathlib import Path

from replay.errors import LimitError
from replay.plan.schedule import Plan, Schedule
from replay.settings.kinds import AUTO
from replay.settings.scenario import Scenario
from replay.units import SECOND_NS

from .feed import AHEAD_NS

LANE_RATE_PER_S = 40_000.0
"""The highest planned rate per second for one lane; above it, `auto` adds another."""

CLOSED_LOOP_CONNECTIONS = 64
"""Connections of a closed loop if the scenario does not set their number."""

RESERVED_FILES = 64
"""File descriptors reserved for the process itself: run folder, trace, epoll, eventfds."""

ENTRIES_MIN = 16_384
"""A short plan does not lower the number of feed entries below this.

The ring is sized by the entries, and must hold large requests, too.
"""

PORT_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
PORTS_DEFAULT = 16_384
"""Number of local ports if the system does not report its range: IANA's dynamic range (RFC 6335)."""


def lanes_for(schedule: Schedule, scenario: Scenario) -> int:
    """Return the number of lanes: `threads` as set, or else by the planned peak.

    With `auto`, one CPU is left to the control plane and the target, if there are several. There is at least one lane.
    """
    if scenario.threads != AUTO:
        return int(scenario.threads)
    peak = schedule.plan.peak_1s_per_s or 0.0
    cores = len(os.sched_getaffinity(0))
    return max(1, min(cores - 1, math.ceil(peak / LANE_RATE_PER_S)))


def check_sockets(plan: Plan, scenario: Scenario, addresses: int) -> None:
    """Raise LimitError if a plan needs more connections at once than this process can have.

    The limits are the files that the process may open, and the local ports to this many addresses.
    """
    asked = int(scenario.connections)
    needed = asked if asked != AUTO else 1
    who = f"{needed:,} connections (-c)"
    lower = "lower -c"
    if plan.clients is not None and (asked == AUTO or plan.clients.at_once < asked):
        needed = plan.clients.at_once
        who = f"{needed:,} clients with a connection of their own at once"
        lower = "shorten idle_timeout, or set a limit with -c, at which the longest idle connection is closed"
    room, ports = _open_files() - RESERVED_FILES, _local_ports() * addresses
    if needed > room:
        raise LimitError(
            f"{who} need {needed + RESERVED_FILES:,} open files; this process may open {room + RESERVED_FILES:,}",
            hint=f"raise it with `ulimit -n`, or {lower}",
        )
    if needed > ports:
        raise LimitError(
            f"{who} need as many local ports; this machine has {ports:,} for {addresses:,} address"
            f"{'es' if addresses > 1 else ''} of the target",
            hint=f"widen net.ipv4.ip_local_port_range, or {lower}",
        )


def _open_files() -> int:
    """Raise this process's limit on open files to the maximum, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def _local_ports() -> int:
    """Return the number of local ports for connections to one address."""
    try:
        first, last = map(int, PORT_RANGE.read_text().split())
    except (OSError, ValueError):
        return PORTS_DEFAULT
    return last - first + 1


def connections_for(plan: Plan, scenario: Scenario, lanes: int) -> list[int]:
    """Return the connections of each lane, at least one.

    LimitError if the file limit does not allow the requested number, or one for each lane.
    """
    room = _open_files() - RESERVED_FILES
    asked = int(scenario.connections)
    if asked == AUTO:
        asked = CLOSED_LOOP_CONNECTIONS if scenario.closed_loop else int(scenario.limits.auto_connections)
        if plan.clients is not None:
            # A lane may get more than its share of the clients, and some responses are slow.
            asked = max(asked, lanes * plan.clients.at_once * max(2, scenario.client_connections))
        asked = min(asked, room)
    if asked > room or room < lanes:
        raise LimitError(
            f"{max(asked, lanes):,} connections need {max(asked, lanes) + RESERVED_FILES:,} open files;"
            f" this process may open {room + RESERVED_FILES:,}",
            hint="raise it with `ulimit -n`, or lower -c or -t",
        )
    share, rest = divmod(max(asked, lanes), lanes)
    return [share + (lane < rest) for lane in range(lanes)]


def feed_size(schedule: Schedule, scenario: Scenario, request_bytes: int, lanes: int) -> tuple[int, int]:
    """Return the entries and ring bytes that a lane's feed needs; `make_feed` rounds and limits them.

    An open loop needs the requests that are rendered ahead, and twice those that become due within `max_wait`, of
    which at most 10 s count. For a short plan, twice its requests is enough. A closed loop gets a fixed number of
    entries.
    """
    if scenario.closed_loop:
        return 65_536, 65_536 * request_bytes
    # If lanes distinguish clients, a client is bound to one lane, and one client may cause most of the load.
    rate_per_s = schedule.plan.feed_rate_per_s or schedule.plan.peak_1s_per_s or 1.0
    peak = rate_per_s / (1 if scenario.by_client else lanes)
    ahead_s = AHEAD_NS / SECOND_NS
    waiting_s = min(scenario.max_wait_ns / SECOND_NS, 10.0)
    entries = math.ceil(peak * (ahead_s + 2 * waiting_s))
    if schedule.plan.rows is not None:
        # At most half of the entries may wait, so twice the number of requests is always enough.
        entries = min(entries, max(2 * schedule.plan.rows, ENTRIES_MIN))
    return entries, entries * request_bytes
