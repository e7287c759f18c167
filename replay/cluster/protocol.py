"""The rules of a run over many machines, as two state machines without sockets, clocks or files: `agent_state` and
`coordinator_state`. This module has what they share: time limits and actions.

Each state machine takes messages, events and instants (ns of its own clock, which only grows), and returns the actions
to perform, in order. The same code runs over real connections (`coordinator`, `agent`) and in a simulation of deaths,
delays and lost messages.

These rules hold, whatever is lost or delayed:

- **Nothing is sent twice.** Shares do not overlap, no share is given to a second agent, and an agent begins an epoch at
  most once. The share of a lost agent stays unsent.
- **A lost agent is reported within two seconds** of the last sign of life: at once if its connection ends, otherwise
  after LOST_NS of silence.
- **An agent without a coordinator stops by itself.** It drains after ORPHANED_NS of silence, or at once if the
  connection ends. So the number of requests that it may have sent after its last report is bounded.
- **Reports replace each other.** Each has the totals since the start, so a lost or repeated report does no harm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .messages import Message, Plan, Report, Start

MS = 1_000_000

PROBE_NS = 250 * MS
"""Time between two probes to an agent."""

LOST_NS = 1_500 * MS
"""An agent that is silent for this long during a run is lost. Including a probe interval, it is reported within 2 s."""

PATIENCE_NS = 15_000 * MS
"""The same before the start, while an agent plans and compiles and cannot have sent anything."""

ORPHANED_NS = 2_500 * MS
"""An agent that does not hear from its coordinator for this long during a run stops cleanly."""

LEAVE_NS = 5_000 * MS
"""After this time a lost agent has ended by itself: it has noticed, drained, and saved."""

LEAD_NS = 1_500 * MS
"""Time from the order to start to the first due time."""

LEAST_LEAD_NS = 550 * MS
"""An agent refuses a start that is closer than this, because its first requests would be late."""

CLOCK_SAMPLES = 8
"""Number of exchanges with each agent before its clock is used."""

ENDS_ALL = ("circuit_breaker", "not_allowed", "over_limit")
"""Endings of one share that end the whole run, in order to protect the target."""

JOIN_NS = 60_000 * MS
"""Time within which all agents must connect."""


@dataclass(frozen=True, slots=True)
class Send:
    """Send a message; in the coordinator, to `agent`."""

    message: Message
    agent: int = -1


@dataclass(frozen=True, slots=True)
class Prepare:
    """Agent: plan the share, and warm the lanes. Then call `prepared`."""

    plan: Plan


@dataclass(frozen=True, slots=True)
class Begin:
    """Agent: run the share; its first request is due at `agent_ns` of this machine's clock."""

    start: Start


@dataclass(frozen=True, slots=True)
class Finish:
    """Agent: end the current run."""

    how: Literal["drain", "abandon"]
    why: str


@dataclass(frozen=True, slots=True)
class Leave:
    """Agent: the run is over for this agent. `why` is empty if everything went as planned."""

    why: str = ""


@dataclass(frozen=True, slots=True)
class AllHere:
    """Coordinator: every agent is connected, and its clock is known. Call `order`."""


@dataclass(frozen=True, slots=True)
class Began:
    """Coordinator: every agent is ready and knows when to start."""

    instant_ns: int


@dataclass(frozen=True, slots=True)
class Reported:
    """Coordinator: a new report of an agent."""

    agent: int
    report: Report


@dataclass(frozen=True, slots=True)
class Lost:
    """Coordinator: an agent was lost."""

    agent: int
    why: str


@dataclass(frozen=True, slots=True)
class Failed:
    """Coordinator: the run cannot begin; nothing was sent."""

    why: str
    hint: str = ""
    code: int = 2


@dataclass(frozen=True, slots=True)
class Over:
    """Coordinator: every agent has ended or is finally lost."""


Output = Send | Prepare | Begin | Finish | Leave | AllHere | Began | Reported | Lost | Failed | Over
