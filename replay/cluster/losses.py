"""Agents that were lost, and what became of the requests of their shares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from replay.errors import InputError
from replay.results.agents import agent_name

from .parts import Part
from .share import LostAgent, Share


class Loss(NamedTuple):
    """An agent that was lost. `unsent` requests of its share were not sent; whether `unknown` ones were sent is not
    known.
    """

    agent: int
    name: str
    why: str
    unsent: int
    unknown: int


def losses_of(parts: Sequence[Part], idle: Sequence[Share], lost: Sequence[LostAgent]) -> list[Loss]:
    """Every agent that was lost, and what became of its share."""
    told = {one.agent: one for one in lost}
    losses = []
    for share in idle:
        told.pop(share.agent, None)
        name = agent_name(share.agent, share.host)
        losses.append(Loss(share.agent, name, "it ended before it began to send", share.planned, 0))
    for part in parts:
        one = told.pop(part.share.agent, None)
        if one is None and part.has_ended:
            continue
        why = one.why if one is not None else part.document.ending.detail
        # The agent's own folder has exact counts, so nothing is unknown.
        losses.append(Loss(part.share.agent, part.name, why, max(part.share.planned - part.planned, 0), 0))
    for one in told.values():
        planned = one.counters.get("planned", 0)
        unknown = min(one.unknown, max(one.planned - planned, 0))
        name = agent_name(one.agent, one.host)
        losses.append(Loss(one.agent, name, one.why, max(one.planned - planned - unknown, 0), unknown))
    return losses + _absent(parts, idle, lost)


def _absent(parts: Sequence[Part], idle: Sequence[Share], lost: Sequence[LostAgent]) -> list[Loss]:
    """Agents whose folders were not given. All requests of their shares are unknown."""
    share = parts[0].share
    shares = [*(part.share for part in parts), *idle]
    told = [one for one in lost if one.agent not in {own.agent for own in shares}]
    known = {own.agent for own in shares} | {one.agent for one in told}
    absent = [agent for agent in range(share.agents) if agent not in known]
    if not absent:
        return []
    names = ", ".join(f"agent {agent}" for agent in absent)
    if share.planned_whole is None:
        raise InputError(
            f"the folder of {names} of {share.agents} is missing, and how many requests it had is not known",
            hint="give the folders of all agents",
        )
    rest = share.planned_whole - sum(part.share.planned for part in parts) - sum(one.planned for one in lost)
    if rest < 0:
        raise InputError(
            f"the shares have {-rest:,} more requests than the whole run ({share.planned_whole:,}): they overlap, or "
            "belong to different runs"
        )
    why = "no folder of it was given"
    return [Loss(agent, f"agent {agent}", why, 0, rest if not n else 0) for n, agent in enumerate(absent)]
