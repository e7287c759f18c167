"""The input and the guarantees of a lane: the interface that both engines implement.

It is defined in `docs/lane-contract.md`.
"""

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
class LaneRange:
    """The lanes of a larger run that one process runs: `count` of `of` lanes, from number `first` on.

    In a run with one process, that process has all lanes.
    """

    first: int
    count: int
    of: int

    @property
    def one_each(self) -> LaneRange:
        """The same share of a run in which every process has one lane."""
        return LaneRange(self.first // self.count, 1, self.of // self.count)


@dataclass(frozen=True, slots=True)
class Address:
    """One resolved address to connect to."""

    host: str
    port: int
    ipv6: bool = False


@dataclass(frozen=True, slots=True)
class Retry:
    """Which requests are retried, and how: see docs/retries.md. Shares and retries are in parts per million.

    `on` is uint8[RETRY_ON] (see `replay_native.lane.retry`). `budget_ppm` is -1 without a budget.
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
    """The captures and checks of an HTTP lane (docs/sessions.md), which a native lane gets as tables for its kernel."""

    def table(
        self, clients: int, lanes: int, connections: int, refused: npt.NDArray[np.int64] | None = None
    ) -> Sessions:
        """Build the tables for these numbers of clients and connections; `refused` is the lane's `rule_refused`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneSpec(LaneSettings):
    """Everything one lane needs: the scenario's settings for lanes, and what the run adds.

    Times are in nanoseconds. Due times in the feed use CLOCK_MONOTONIC.

    `wake_fd` is an eventfd that the control plane writes to after it has published a word of the control block.
    `addresses` are the initial addresses (`AddressTable` changes them). The lane's `number` decides which address it
    uses first. `tls` describes how connections are secured; None for plain ones.

    If `resolve_rings` has more than one row and there is an eventfd `resolve_fd`, the native lane requests an
    address for each of its connections. The portable lane awaits `ask` instead, which returns a row of the
    address table.

    `connect` says who owns connections: everybody (`pool`), each client (`per-client`, at most
    `client_connections`, closed when idle for `idle_timeout_ns`), or each request. With `ordered` a client's
    requests are sent one after another. Without `retry` nothing is retried. With a `trace_seed` requests have a
    traceparent, whose parent id is renewed at each further attempt.

    The lane serves every `lanes`-th client, at most `clients` of them. `sessions` holds the captures and checks of an
    HTTP lane; captures require `ordered`. `keeping` defines which responses the lane keeps, and the ring through
    which it hands them over.
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
    trace_seed: int = 0
    clients: int = 0
    lanes: int = 1
    resolve_rings: ResolveRings = field(default_factory=lambda: make_resolve_rings(0))
    resolve_fd: int = -1
    ask: Callable[[], Awaitable[int]] | None = None
    sessions: SessionTables | None = None
    keeping: Keeping = NOTHING_KEPT

    @property
    def by_client(self) -> bool:
        """Whether the lane distinguishes clients: all requests of a client are then sent by one lane."""
        return self.ordered or self.connect == "per-client"


class Engine(Protocol):
    """Runs one lane until its feed ends or it is stopped; all results are in `spec.metrics`.

    EngineError is raised only if the lane itself cannot start or continue. A failed request is an outcome.
    """

    async def __call__(self, spec: LaneSpec) -> None:
        """Run the lane."""
        ...
