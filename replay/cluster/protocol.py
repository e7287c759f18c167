"""What the two state machines of a run over many machines share: their rules, time limits and actions.

The state machines, `agent_state` and `coordinator_state`, have no sockets, clocks or files. Each takes messages,
events and instants (ns of its own clock, which only grows), and returns the actions to perform, in order. The
same code runs over real connections (`coordinator`, `agent`) and in a simulation of deaths, delays and lost
messages.

These rules hold, whatever is lost or delayed:

- **Nothing is sent twice.** Shares do not overlap, no share is given to a second agent, and an agent begins an epoch
  at most once. The share of a lost agent stays unsent.
- **A lost agent is reported within two seconds** of the last sign of life: at once if its connection ends, otherwise
  after LOST_NS of silence.
- **An agent without a coordinator stops by itself.** It drains after ORPHANED_NS of silence, or at once if the
  connection ends. So the number of requests that it may have sent after its last report is bounded.
- **Reports replace each other.** Each has the totals since the start, so a lost or repeated report does not change
  them. Histograms, events and counts by route cover only one second, so those of a lost report are missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .messages import Message, Plan, Report, Start

MS = 1_000_000

PROBE_NS = 250 * MS
"""The longest time between two probes to an agent, as long as the coordinator runs."""

LOST_NS = 1_500 * MS
"""An agent that is silent for this long during a run is lost.

Including the time between two probes, it is reported within 2 s.
"""

PATIENCE_NS = 15_000 * MS
"""An agent that is silent for this long before the start is lost.

The limit is longer than LOST_NS, because an agent that plans or compiles may be silent, and has sent nothing yet.
"""

ORPHANED_NS = 2_500 * MS
"""An agent that does not hear from its coordinator for this long during a run stops cleanly."""

LEAVE_NS = 5_000 * MS
"""The time after which a lost agent has ended by itself: it has noticed the silence, drained, and saved its results."""

LEAD_NS = 1_500 * MS
"""The time from the order to start until the first request is due."""

LEAST_LEAD_NS = 550 * MS
"""An agent refuses a start that is closer than this, because its first requests would be late."""

CLOCK_SAMPLES = 8
"""The number of exchanges with each agent that are needed before its clock is used."""

ENDS_ALL = ("circuit_breaker", "not_allowed", "over_limit")
"""Endings of one share that end the whole run, in order to protect the target."""

JOIN_NS = 60_000 * MS
"""The time within which all agents must connect."""


@dataclass(frozen=True, slots=True)
class Send:
    """Action: send a message; in the coordinator, to `agent`."""

    message: Message
    agent: int = -1


@dataclass(frozen=True, slots=True)
class Prepare:
    """Action of the agent: plan the share, and warm the lanes. Then call `prepared`."""

    plan: Plan


@dataclass(frozen=True, slots=True)
class Begin:
    """Action of the agent: run the share. Its first request is due at `agent_ns` of the agent's clock."""

    start: Start


@dataclass(frozen=True, slots=True)
class Finish:
    """Action of the agent: end the current run."""

    how: Literal["drain", "abandon"]
    why: str


@dataclass(frozen=True, slots=True)
class Leave:
    """Action of the agent: exit, because the run is over for this agent. `why` is empty if the run went as planned."""

    why: str = ""


@dataclass(frozen=True, slots=True)
class AllHere:
    """Event of the coordinator: every agent is connected, and its clock is known. Call `order`."""


@dataclass(frozen=True, slots=True)
class Began:
    """Event of the coordinator: every agent is ready, and the order to start is sent."""

    instant_ns: int


@dataclass(frozen=True, slots=True)
class Reported:
    """Event of the coordinator: an agent has sent a new report."""

    agent: int
    report: Report


@dataclass(frozen=True, slots=True)
class Lost:
    """Event of the coordinator: an agent was lost."""

    agent: int
    why: str


@dataclass(frozen=True, slots=True)
class Failed:
    """Event of the coordinator: the run cannot begin; nothing was sent."""

    why: str
    hint: str = ""
    code: int = 2


@dataclass(frozen=True, slots=True)
class Over:
    """Event of the coordinator: every agent has ended or is finally lost."""


Output = Send | Prepare | Begin | Finish | Leave | AllHere | Began | Reported | Lost | Failed | Over
