"""Services of a twin within the test's own Trio run: on a virtual clock without sockets, or on real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import trio
import trio.testing

from replay.staging.twin.events import EventLog
from replay.staging.twin.graph import entry_of
from replay.staging.twin.host import HostProcess, Orders, bind_all
from replay.staging.twin.reading import parse_twin
from replay.staging.twin.resolving import HOST, QuotaServer, watch_quota
from replay.staging.twin.service import ServiceHost
from replay.staging.twin.wire import Client, Request
from replay.staging.twin.world import World


def virtually(main: Callable[[], Awaitable[None]]) -> None:
    """Run `main` on a clock that jumps to the next deadline whenever nothing is left to do."""
    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def world_of(document: dict[str, Any], log: Path | None = None) -> World:
    """What the parts of a twin share, without sockets."""
    return World(parse_twin(document), {}, EventLog(log), None)


@asynccontextmanager
async def hosted(document: dict[str, Any], log: Path | None = None) -> AsyncIterator[ServiceHost]:
    """The first service of a twin, to be given requests directly. Its autoscaler runs."""
    world = world_of(document, log)
    async with trio.open_nursery() as nursery:
        world.nursery = nursery
        host = ServiceHost(world, next(iter(world.twin.services)))
        nursery.start_soon(host.autoscale)
        yield host
        nursery.cancel_scope.cancel()
    world.log.close()


class Served:
    """A twin that serves on real sockets of this process."""

    def __init__(self, process: HostProcess) -> None:
        self.process = process
        self._client = Client()

    async def get(self, path: str = "/") -> int:
        """The status of one request to the twin's front."""
        host, port = self.process.world.addresses[entry_of(self.process.twin)]
        return await self._client.exchange(host, port, Request("GET", path), keeps=True)

    def total(self, name: str) -> int:
        """What a counter has counted."""
        return self.process.world.figures.total(name)

    def close(self) -> None:
        """Close connections."""
        self._client.close()
        self.process.close()


@asynccontextmanager
async def served(document: dict[str, Any], log: Path | None = None) -> AsyncIterator[Served]:
    """All services of a twin on real sockets, in this process; with its name server, if it has one."""
    twin = parse_twin(document)
    sockets = bind_all(twin)
    addresses = {name: (HOST, int(sock.getsockname()[1])) for name, sock in sockets.items()}
    orders = Orders(twin={}, log=str(log or ""), hosted=list(sockets), addresses=addresses)
    process = HostProcess(orders, twin, sockets)
    given, world = twin.dns, process.world
    with nullcontext() if given is None else QuotaServer(given, watch_quota(world)) as server:
        if server is not None and given is not None:
            for name in addresses:
                server.set(f"{name}.{given.domain}", HOST)
            world.dns = HOST, server.port
        process.build()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(process.serve, lambda: None)
            front = Served(process)
            try:
                yield front
            finally:
                nursery.cancel_scope.cancel()
                front.close()
