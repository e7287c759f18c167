"""A service of known capacity: requests wait for one of k servers, each of which takes a fixed time for one (M/D/k).

With retries it has the storm of a service that asks another one and does not wait for long: what took longer than
`--patience` is asked for again, while the servers still work on what was given up. It runs in a process of its own
(`python -m replay.staging.queue`), prints its port, and ends when its standard input is closed.
"""

from __future__ import annotations

import argparse
import heapq
from collections.abc import Sequence

import trio

from .. import units
from .service import Service, serve


class Queue(Service):
    """Servers by the moments at which they are free: when an answer is ready is known when its request comes, so
    that a timer that is late makes one answer late and takes nothing from the capacity.
    """

    def __init__(self, servers: int, service_s: float, *, retries: int = 0, patience_s: float = 1.0) -> None:
        super().__init__(seed=1)
        self._free_s = [0.0] * servers
        self._service_s, self._retries, self._patience_s = service_s, retries, patience_s

    def _taken_on(self) -> float:
        """When a server that begins as soon as one is free will have done it."""
        done_s = max(trio.current_time(), self._free_s[0]) + self._service_s
        heapq.heapreplace(self._free_s, done_s)
        return done_s

    async def work(self, method: str, path: str) -> tuple[int, int]:
        """Ask a server; where it does not answer in time, ask again. 503 where none did."""
        for _ in range(self._retries + 1):
            done_s, patient_s = self._taken_on(), trio.current_time() + self._patience_s
            await trio.sleep_until(min(done_s, patient_s) if self._retries else done_s)
            if done_s <= patient_s or not self._retries:
                return 200, 2
        return 503, 2


def main(arguments: Sequence[str] | None = None) -> None:
    """Run as a process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--servers", type=int, default=8)
    parser.add_argument("--service", type=units.parse_duration_ns, default="20ms")
    parser.add_argument("--retries", type=int, default=0)
    parser.add_argument("--patience", type=units.parse_duration_ns, default="1s")
    options = parser.parse_args(arguments)
    service = Queue(
        options.servers,
        options.service / units.NS,
        retries=options.retries,
        patience_s=options.patience / units.NS,
    )
    trio.run(serve, service, options.port)


if __name__ == "__main__":
    main()
