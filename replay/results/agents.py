"""`agents` of run.json: what each agent of a run over several machines counted, and how far its clock can be trusted."""

from __future__ import annotations

import msgspec

from replay.ledger.accounts import Accounts
from replay.ledger.host import Host
from replay.ledger.validity import Validity


class AgentLanes(msgspec.Struct, frozen=True, kw_only=True):
    """The agent has the lanes from `first` to `after` (exclusive), of `of` lanes in the whole run."""

    first: int
    after: int
    of: int


class AgentClock(msgspec.Struct, frozen=True, kw_only=True):
    """The agent's clock was `offset_ns` ahead of the coordinator's at the start, plus or minus `bound_ns`. It ran
    `drift_ppm` faster during the run (null: not measured; 0: less than can be measured), and was set by `jumped_ns`
    meanwhile.
    """

    offset_ns: int = 0
    bound_ns: int = 0
    drift_ppm: float | None = None
    jumped_ns: int = 0

    def error_ns(self, length_ns: int) -> int:
        """Maximum error of the agent's send times relative to the common clock, at the end of a run of this length."""
        drifted_ns = abs(self.drift_ppm or 0.0) / 1e6 * length_ns
        return self.bound_ns + round(drifted_ns) + abs(self.jumped_ns)


class AgentFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One agent: its own accounts and verdict. By the coordinator's clock its run began `start_error_ns` after the
    common instant, within `clock.bound_ns`. `lost` is the reason why it was lost, or empty. `planned` is the number of
    requests in its share. `reported_only`: its folder is missing, so its accounts are those of its last report.
    `ending` is how its own run ended.
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
    """The name of an agent in messages."""
    return f"agent {agent} ({host})" if host else f"agent {agent}"
