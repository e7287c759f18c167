"""What a lane is given and what it promises: the one interface of both engines. `docs/lane-contract.md` is the law."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from replay.plan.sessions import SessionSpec
from replay.units import SECOND_NS
from replay_native.feed.resolve import ResolveRings, make_resolve_rings
from replay_native.feed.ring import Feed
from replay_native.ledger.lane_metrics import LaneMetrics

from .tls import Tls


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


@dataclass(frozen=True, slots=True)
class LaneSpec:
    """Everything one lane needs. Times in ns; the feed's due times are CLOCK_MONOTONIC.

    wake_fd is an eventfd that the control plane writes to after it published a word of the control block. `addresses`
    are what the lane begins with (`AddressTable` changes them); lane `number` begins with another than its neighbour.
    `tls` is how connections are secured, None for plain ones.
    With `resolve_rings` of more than one row, and an eventfd `resolve_fd` for them, the native lane has an address looked up
    for each of its connections; the portable one awaits `ask` for a row of the table.
    `connect` says whose connections are: everybody's (`pool`), each client's own (`per-client`, at most
    `client_connections`, closed when idle for `idle_timeout_ns`), or each request's. With `ordered` the requests of one
    client go one after another. Without `retry` none is tried again. The lane has every `lanes`-th client,
    `clients` of them.
    `sessions` is what it takes from answers and holds them against; the order of clients goes with it.
    """

    metrics: LaneMetrics
    feed: Feed
    wake_fd: int
    addresses: tuple[Address, ...]
    connections: int
    timeout_ns: int = 30 * SECOND_NS
    max_wait_ns: int = 10 * SECOND_NS
    spin_ns: int = 60_000
    header_limit_bytes: int = 65_536
    closed_loop: bool = False
    number: int = 0
    tls: Tls | None = None
    connect: Literal["pool", "per-client", "per-request"] = "pool"
    client_connections: int = 6
    idle_timeout_ns: int = 60 * SECOND_NS
    ordered: bool = False
    retry: Retry | None = None
    clients: int = 0
    lanes: int = 1
    resolve_rings: ResolveRings = field(default_factory=lambda: make_resolve_rings(0))
    resolve_fd: int = -1
    ask: Callable[[], Awaitable[int]] | None = None
    sessions: SessionSpec = field(default_factory=SessionSpec)

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
