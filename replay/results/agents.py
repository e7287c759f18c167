"""`agents` of run.json: what each agent of a run over several machines counted, and how far its clock can be trusted."""

from __future__ import annotations

import msgspec

from replay.ledger.accounts import Accounts
from replay.ledger.host import Host
from replay.ledger.validity import Validity


class AgentLanes(msgspec.Struct, frozen=True, kw_only=True):
    """Lanes `first` up to `after` (exclusive) of the `of` lanes of the whole run."""

    first: int
    after: int
    of: int


class AgentClock(msgspec.Struct, frozen=True, kw_only=True):
    """The agent's clock was `offset_ns` ahead of the coordinator's at the start, give or take `bound_ns`. It ran
    `drift_ppm` faster during the run (null: not measured; 0: less than the exchanges can show), and was set by
    `jumped_ns` meanwhile.
    """

    offset_ns: int = 0
    bound_ns: int = 0
    drift_ppm: float | None = None
    jumped_ns: int = 0

    def error_ns(self, length_ns: int) -> int:
        """How far the agent's requests may be from the common clock at the end of a run of this length."""
        drifted_ns = abs(self.drift_ppm or 0.0) / 1e6 * length_ns
        return self.bound_ns + round(drifted_ns) + abs(self.jumped_ns)


class AgentFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One agent: its own accounts and verdict. By the coordinator's clock its run began `start_error_ns` after the common
    instant, within `clock.bound_ns`. `lost` says how it was lost; empty if it was not. `planned` are the requests of its
    share. `reported_only`: its folder is missing, and its accounts are those of its last report. `ending` is how its own
    run ended.
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
    """An agent in messages."""
    return f"agent {agent} ({host})" if host else f"agent {agent}"
