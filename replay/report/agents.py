"""The lines of a report about the agents of a run over several machines."""

from __future__ import annotations

from replay.ledger.verdicts import WORSE
from replay.results.agents import AgentFigures, agent_name
from replay.units import format_duration

SHOWN = 8
"""How many agents a report lists. Lost agents and bad verdicts come first."""


def agents_words(agents: list[AgentFigures]) -> list[tuple[str, str]]:
    """Return a line with its style for each of the first SHOWN agents, and one for the number of the others."""
    worst_first = sorted(
        agents, key=lambda agent: (not agent.lost, -WORSE[agent.validity.verdict], agent.agent)
    )
    lines = [(_line(agent), _style(agent)) for agent in worst_first[:SHOWN]]
    if len(agents) > SHOWN:
        lines.append((f"and {len(agents) - SHOWN} more: see agents in run.json", ""))
    return lines


def _line(agent: AgentFigures) -> str:
    accounts = agent.accounts
    parts = [
        f"{agent_name(agent.agent, agent.host)}: sent {accounts.sent:,}",
        "lost: " + agent.lost if agent.lost else agent.validity.verdict,
        _clock(agent),
    ]
    if agent.start_error_ns and abs(agent.start_error_ns) > agent.clock.bound_ns:
        side = "after" if agent.start_error_ns > 0 else "before"
        parts.append(f"began {format_duration(abs(agent.start_error_ns))} {side} the common start")
    return ", ".join(filter(None, parts))


def _clock(agent: AgentFigures) -> str:
    if not agent.clock.bound_ns:
        # An agent that was lost before it started has no clock, and no start.
        return "on the coordinator's clock" if agent.start_error_ns is not None else ""
    return f"clock offset known within {format_duration(agent.clock.bound_ns)}"


def _style(agent: AgentFigures) -> str:
    return "yellow" if agent.lost or agent.validity.verdict != "VALID" else ""
