"""The agents of a run over several machines (`agents` of run.json): their counts, and the errors of their clocks."""

from __future__ import annotations

import msgspec

from replay.ledger.accounts import Accounts
from replay.ledger.host import Host
from replay.ledger.validity import Validity


class AgentLanes(msgspec.Struct, frozen=True, kw_only=True):
    """The lanes of one agent: from `first` up to, but not including, `after`, out of `of` lanes in the whole run."""

    first: int
    after: int
    of: int


class AgentClock(msgspec.Struct, frozen=True, kw_only=True):
    """The clock of an agent, compared with the coordinator's.

    At the start the agent's clock was `offset_ns` ahead, plus or minus `bound_ns`. During the run it ran `drift_ppm`
    faster (null: not measured; 0: less than can be measured), and steps of the clock moved it by `jumped_ns` in
    total.
    """

    offset_ns: int = 0
    bound_ns: int = 0
    drift_ppm: float | None = None
    jumped_ns: int = 0

    def error_ns(self, length_ns: int) -> int:
        """Return the largest error of the agent's send times on the common clock, after `length_ns` of the run."""
        drifted_ns = abs(self.drift_ppm or 0.0) / 1e6 * length_ns
        return self.bound_ns + round(drifted_ns) + abs(self.jumped_ns)


class AgentFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One agent of a run over several machines: its own accounts, verdict and clock.

    By the coordinator's clock its run began `start_error_ns` after the common instant (negative: before it), within
    `clock.bound_ns`.
    `planned` is the number of requests in its share. `ending` is how its own run ended. `lost` is the reason why the
    agent was lost, or empty. `reported_only`: its folder is missing, so its accounts are those of its last report.
    """

    agent: int
    host: str
    pid: int
    accounts: Accounts
    validity: Validity
    clock: AgentClock
    lanes: AgentLanes | None = None
    planned: int | None = None
    start_error_ns: int | None = None
    ending: str = ""
    lost: str = ""
    reported_only: bool = False
    machine: Host | None = None


def agent_name(agent: int, host: str) -> str:
    """Return the name of an agent as messages show it."""
    return f"agent {agent} ({host})" if host else f"agent {agent}"
