"""Requests of the plan that no lane counted: those of lost agents, and those of agents that ended early.

A lane counts only requests that were due while it ran, and each agent ends at a different time. The accounts of
the whole run cover the whole plan, so these requests are added to them, with a reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from replay.errors import InputError
from replay.ledger.catalog import AGENT_LOST, ENDED_EARLY
from replay.results.agents import agent_name

from .parts import Part
from .share import LostAgent, Share


class Loss(NamedTuple):
    """A lost agent, and the requests of its share that no lane counted.

    `unsent` requests were not sent. It is not known whether `unknown` other requests were sent.
    """

    agent: int
    name: str
    why: str
    unsent: int
    unknown: int


def losses_of(parts: Sequence[Part], idle: Sequence[Share], lost: Sequence[LostAgent]) -> list[Loss]:
    """Return every lost agent, with the requests of its share that were not sent or may have been sent.

    Raises InputError as `_absent` does.
    """
    reported = {one.agent: one for one in lost}
    losses = []
    for share in idle:
        reported.pop(share.agent, None)
        name = agent_name(share.agent, share.host)
        losses.append(Loss(share.agent, name, "it ended before it began to send", share.planned, 0))
    for part in parts:
        one = reported.pop(part.share.agent, None)
        if one is None and part.has_ended:
            continue
        why = one.why if one is not None else part.document.ending.detail
        # The agent's own folder has exact counts, so nothing is unknown.
        losses.append(Loss(part.share.agent, part.name, why, max(part.share.planned - part.planned, 0), 0))
    for one in reported.values():
        planned = one.counters.get("planned", 0)
        unknown = min(one.unknown, max(one.planned - planned, 0))
        name = agent_name(one.agent, one.host)
        losses.append(Loss(one.agent, name, one.why, max(one.planned - planned - unknown, 0), unknown))
    return losses + _absent(parts, idle, lost)


def _absent(parts: Sequence[Part], idle: Sequence[Share], lost: Sequence[LostAgent]) -> list[Loss]:
    """Return the lost agents without a folder and without reports.

    All requests of their shares are unknown. The first of these agents gets all of them, because only their sum
    is known. Raises InputError if the sum is not known, or is negative.
    """
    share = parts[0].share
    shares = [*(part.share for part in parts), *idle]
    known = {own.agent for own in shares} | {one.agent for one in lost}
    absent = [agent for agent in range(share.agents) if agent not in known]
    if not absent:
        return []
    names = ", ".join(f"agent {agent}" for agent in absent)
    if share.planned_whole is None:
        raise InputError(
            f"no folder of {names} was given, and the number of requests of all {share.agents} agents is not known",
            hint="give the folders of all agents",
        )
    with_folder = {own.agent for own in shares}
    reported = sum(one.planned for one in lost if one.agent not in with_folder)
    rest = share.planned_whole - sum(own.planned for own in shares) - reported
    if rest < 0:
        raise InputError(
            f"the shares have {-rest:,} more requests than the whole run ({share.planned_whole:,}): they overlap, or "
            "belong to different runs"
        )
    why = "its folder was not given"
    return [Loss(agent, f"agent {agent}", why, 0, rest if not n else 0) for n, agent in enumerate(absent)]


class Rest(NamedTuple):
    """The requests of an agent's share that no lane counted.

    `unsent` has the number of requests that were not sent, by reason; `unknown` is the number that may have been
    sent.
    """

    unsent: dict[str, int]
    unknown: int


def rests_of(parts: Sequence[Part], losses: Sequence[Loss]) -> dict[int, Rest]:
    """Return the `Rest` of each share, by the agent's number. Its `unsent` always has both reasons."""
    rests = {loss.agent: Rest({AGENT_LOST: loss.unsent, ENDED_EARLY: 0}, loss.unknown) for loss in losses}
    for part in parts:
        if part.share.agent not in rests:
            rests[part.share.agent] = Rest({AGENT_LOST: 0, ENDED_EARLY: cut_off(part)}, 0)
    return rests


def cut_off(part: Part) -> int:
    """Return the number of requests of a share that were not due yet when its run ended; 0 if it did not end early."""
    if part.document.ending.how == "whole":
        return 0
    return max(part.share.planned - part.planned, 0)


def sum_of(rests: Sequence[Rest]) -> Rest:
    """Add up the `Rest` of all shares."""
    unsent = {reason: sum(rest.unsent[reason] for rest in rests) for reason in (AGENT_LOST, ENDED_EARLY)}
    return Rest(unsent, sum(rest.unknown for rest in rests))
