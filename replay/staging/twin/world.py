"""The state that the parts of a running twin share: settings, addresses, figures, the log, seeds and work."""

from __future__ import annotations

import random
import time
from collections import deque

import trio

from .clock import clock_ns
from .events import EventLog
from .figures import Figures
from .graph import services_of
from .spec import BALANCER, Service, Twin

CPU_SLICE_NS = 1_000_000
"""The length of a slice of work on the processor. Other tasks run between the slices, as under a scheduler."""

LATE_KEPT = 512

Address = tuple[str, int]


class World:
    """The state of one process of a running twin."""

    def __init__(self, twin: Twin, addresses: dict[str, Address], log: EventLog, dns: Address | None) -> None:
        self.twin, self.addresses, self.log, self.dns = twin, addresses, log, dns
        self.figures = Figures()
        self.late_ns: deque[int] = deque(maxlen=LATE_KEPT)
        self.nursery: trio.Nursery | None = None
        self._balancer = services_of(twin).get(BALANCER)

    def service(self, name: str) -> Service:
        """Return the current settings of a service."""
        if name == BALANCER and self._balancer is not None:
            return self._balancer
        return self.twin.services[name]

    def changed(self) -> None:
        """Update the settings of the load balancer, in place, after a change of settings."""
        if self._balancer is None or self.twin.balancer is None:
            return
        self._balancer.workers, self._balancer.queue = self.twin.balancer.in_flight, self.twin.balancer.queue
        for call in self._balancer.calls.values():
            call.timeout_ns = self.twin.balancer.timeout_ns

    def random(self, purpose: str) -> random.Random:
        """Return a separate random generator for a purpose, derived from the twin's seed."""
        return random.Random(f"{self.twin.seed}/{purpose}")

    async def work(self, time_ns: int, kind: str) -> None:
        """Spend time by waiting, or on the processor if `kind` is `cpu`."""
        if time_ns <= 0:
            return
        if kind == "cpu":
            await burn(time_ns)
            return
        due_ns = clock_ns() + time_ns
        await trio.sleep(time_ns / 1e9)
        self.late_ns.append(clock_ns() - due_ns)

    def late_ms(self) -> float:
        """Return the 99th percentile in ms of the delay that this machine added to recent waits; 0 without waits."""
        kept = sorted(self.late_ns)
        return round(kept[int(0.99 * (len(kept) - 1))] / 1e6, 3) if kept else 0.0


async def burn(time_ns: int) -> None:
    """Use the processor for this long."""
    left_ns = time_ns
    while left_ns > 0:
        begun_ns = time.thread_time_ns()
        until_ns = begun_ns + min(left_ns, CPU_SLICE_NS)
        while (now_ns := time.thread_time_ns()) < until_ns:
            pass
        left_ns -= now_ns - begun_ns
        await trio.sleep(0)
