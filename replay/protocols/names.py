"""Looks up the name of a target once before the plan, checks its addresses, and follows the name during the run."""

from __future__ import annotations

from dataclasses import dataclass

from replay.lane.name_watch import NameWatch
from replay.lane.resolve import (
    Lookups,
    Reachable,
    check_reachable,
    look_up,
    places,
)
from replay.names import Answer
from replay.plan.safety import check_addresses, check_plan
from replay.plan.schedule import Schedule
from replay.settings.scenario import Scenario
from replay.settings.target import Target
from replay_native.feed.addresses import ADDRESSES_MAX

from .protocol import Found


@dataclass(frozen=True)
class FoundName(Found):
    """A target whose name was looked up. The run continues with its `lookups` and its `answer`."""

    lookups: Lookups
    answer: Answer


async def find_name(target: Target, scenario: Scenario) -> FoundName:
    """Look up a target's name. TargetError if it has no address, LimitError if an address is not allowed."""
    lookups = Lookups(target.host, scenario.resolver)
    _, answer = await look_up(target, scenario, lookups)
    return FoundName(target, tuple(answer.addresses), lookups, answer)


def check_target(schedule: Schedule, found: Found) -> None:
    """Raise LimitError if the plan must not be sent to the target, or is too fast or too long for it."""
    origins = schedule.trace.requests.hosts
    check_plan(schedule.plan, found.target, found.hosts, origins, schedule.scenario)


async def follow_name(schedule: Schedule, found: FoundName, *, by_tcp: bool = True) -> NameWatch:
    """Return the watch that follows the name during the run, with the addresses to use at its start.

    The addresses of each family (IPv4, IPv6) are tried until one accepts a connection; if only one family works, the
    addresses of the other are left out. TargetError if neither works. Without `by_tcp` no connection is tried. At most
    ADDRESSES_MAX addresses are used.
    """
    scenario, target = schedule.scenario, found.target
    there = places(found.answer, target.port)
    reached = await check_reachable(there, target.host) if by_tcp else Reachable(there, ())
    used = reached.addresses[:ADDRESSES_MAX]

    def allow(host: str) -> None:
        check_addresses(target.host, [host], scenario)
        check_plan(schedule.plan, target, [host], schedule.trace.requests.hosts, scenario)

    return NameWatch(
        found.lookups, scenario.resolve, target.port, found.answer, used, reached.left_out, allow,
        no_room=len(reached.addresses) - len(used),
    )  # fmt: skip
