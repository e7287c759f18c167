"""The message bus of a twin.

It answers when a message is queued, and its consumers forward messages over HTTP.
"""

from __future__ import annotations

import trio

from .clock import clock_ns
from .jobs import JobQueue, Limits
from .resolving import NameLookupError, Resolver
from .spec import BUS, Topic
from .wire import Client, ClosedError, Request, Response
from .world import World


class BusHost:
    """The bus of a running twin. `POST /TOPIC` publishes a message of TOPIC."""

    def __init__(self, world: World) -> None:
        assert world.twin.bus is not None
        self._world, self._topics = world, world.twin.bus.topics
        self._client = {name: Client() for name in self._topics}
        self._resolver = Resolver(world, BUS)
        self._random = world.random(BUS)
        self._queues = {name: self._queue(name) for name in self._topics}

    def _queue(self, name: str) -> JobQueue:
        def topic() -> Topic:
            return self._topics[name]

        def limits() -> Limits:
            return Limits(topic().consumers, topic().capacity, topic().dead)

        async def perform(request: Request) -> str:
            return await self._consume(name, topic(), request)

        return JobQueue(self._world, BUS, f"{BUS}.{name}", limits, topic, perform)

    async def handle(self, request: Request) -> Response:
        """Publish a message, and return the response: 202, 404 for an unknown topic, or 503 for a full queue."""
        name = request.path.strip("/").partition("?")[0]
        if name not in self._queues:
            return Response(404, 0, "no_topic", b"{}")
        await self._world.work(self._topics[name].publish.draw_ns(self._random), "wait")
        if not self._queues[name].enqueue(request):
            return Response(503, 0, "bus_full", b"{}")
        return Response(202, 2, body=b"{}")

    def abandoned(self, request: Request) -> None:
        """Log that the producer disconnected before it got the response to its message."""
        self._world.log.note(BUS, "abandoned", request.path)

    def changed(self) -> None:
        """Apply changed limits."""
        for queue in self._queues.values():
            queue.resize()

    def close(self) -> None:
        """Close the connections to consumers' services."""
        for client in self._client.values():
            client.close()

    async def _consume(self, name: str, topic: Topic, message: Request) -> str:
        """Forward a message, and return the reason of a failure; empty for a success."""
        method, _, path = topic.request.partition(" ")
        request = Request(method, path, 0, message.retry, message.body)
        host, port = self._world.addresses[topic.to]
        status = 0
        begin_ns = clock_ns()
        with trio.move_on_after(topic.timeout_ns / 1e9):
            try:
                if self._client[name].is_fresh:
                    host = await self._resolver.address_of(topic.to, "", host)
                status = await self._client[name].exchange(host, port, request, keeps=True)
            except (NameLookupError, ClosedError, OSError) as error:
                return f"no answer: {error}"
        if not status:
            return f"no answer within {(clock_ns() - begin_ns) / 1e9:.3g} s"
        return f"status {status}" if status >= 400 else ""
