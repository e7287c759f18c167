"""What a lane is given and what it promises: the one interface of both engines. `docs/lane-contract.md` is the law."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from replay_native.bank import Bank
from replay_native.feed import Feed

SECOND_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Address:
    """One resolved place to connect to."""

    host: str
    port: int
    ipv6: bool = False


@dataclass(frozen=True, slots=True)
class LaneSpec:
    """Everything one lane needs. Times in ns; the feed's due times are CLOCK_MONOTONIC.

    wake_fd is an eventfd that the control plane writes to after it published a word of the control block.
    """

    bank: Bank
    feed: Feed
    wake_fd: int
    addresses: tuple[Address, ...]
    connections: int
    timeout_ns: int = 30 * SECOND_NS
    max_wait_ns: int = 10 * SECOND_NS
    spin_ns: int = 60_000
    header_limit_bytes: int = 65_536
    closed_loop: bool = False


class Engine(Protocol):
    """Runs one lane until its feed ends or it is stopped; all results are in `spec.bank`.

    Raises EngineError only where the lane itself could not go on. A failed request is an outcome.
    """

    async def __call__(self, spec: LaneSpec) -> None:
        """Run the lane."""
        ...
