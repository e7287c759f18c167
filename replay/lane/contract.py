"""What a lane is given and what it promises: the one interface of both engines. `docs/lane-contract.md` is the law."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from replay.settings.lane import LaneSettings
from replay_native.feed.resolve import ResolveRings, make_resolve_rings
from replay_native.feed.ring import Feed
from replay_native.keeping.responses import Keeping
from replay_native.ledger.lane_metrics import LaneMetrics

from .keeping import NOTHING_KEPT
from .tls import Tls

if TYPE_CHECKING:
    from replay_native.http1.sessions import Sessions


@dataclass(frozen=True, slots=True)
class Address:
    """One resolved place to connect to."""

    host: str
    port: int
    ipv6: bool = False


@dataclass(frozen=True, slots=True)
class Retry:
    """What is tried again, and how: see docs/retries.md. Shares are parts per million.

    `on` is uint8[RETRY_ON] (see `replay_native.lane.retry`); `budget_ppm` is -1 without a budget.
    """

    on: npt.NDArray[np.uint8]
    attempts: int
    backoff_ns: int
    backoff_max_ns: int
    jitter_ppm: int = 0
    budget_ppm: int = -1
    burst_ppm: int = 0
    all_methods: bool = False
    seed: int = 1


class SessionTables(Protocol):
    """What a native lane takes from responses and checks (docs/sessions.md), as tables for its kernel."""

    def table(
        self, clients: int, lanes: int, connections: int, refused: npt.NDArray[np.int64] | None = None
    ) -> Sessions:
        """The tables for so many clients and connections; `refused` is the lane's `rule_refused`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneSpec(LaneSettings):
    """Everything one lane needs: the scenario's settings for lanes, and what a run adds. Times are in ns.

    Due times in the feed are those of CLOCK_MONOTONIC.

    wake_fd is an eventfd that the control plane writes to after it published a word of the control block. `addresses`
    are what the lane begins with (`AddressTable` changes them); lane `number` begins with another than its neighbour.
    `tls` is how connections are secured, None for plain ones.
    With `resolve_rings` of more than one row, and an eventfd `resolve_fd` for them, the native lane has an address looked up
    for each of its connections; the portable one awaits `ask` for a row of the table.
    `connect` says whose connections are: everybody's (`pool`), each client's own (`per-client`, at most
    `client_connections`, closed when idle for `idle_timeout_ns`), or each request's. With `ordered` the requests of one
    client go one after another. Without `retry` none is tried again. The lane has every `lanes`-th client,
    `clients` of them.
    `sessions` is what a native lane takes from responses and checks; the order of clients goes with it.
    `keeping` is what the lane keeps of responses, and the ring through which it hands that over.
    """

    metrics: LaneMetrics
    feed: Feed
    wake_fd: int
    addresses: tuple[Address, ...]
    connections: int
    spin_ns: int = 60_000
    closed_loop: bool = False
    number: int = 0
    tls: Tls | None = None
    ordered: bool = False
    retry: Retry | None = None
    clients: int = 0
    lanes: int = 1
    resolve_rings: ResolveRings = field(default_factory=lambda: make_resolve_rings(0))
    resolve_fd: int = -1
    ask: Callable[[], Awaitable[int]] | None = None
    sessions: SessionTables | None = None
    keeping: Keeping = NOTHING_KEPT

    @property
    def by_client(self) -> bool:
        """Whether the lane knows its clients: one client lives on one lane."""
        return self.ordered or self.connect == "per-client"


class Engine(Protocol):
    """Runs one lane until its feed ends or it is stopped; all results are in `spec.metrics`.

    Raises EngineError only where the lane itself could not go on. A failed request is an outcome.
    """

    async def __call__(self, spec: LaneSpec) -> None:
        """Run the lane."""
        ...
