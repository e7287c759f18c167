"""The built-in staging service of the demo: a fitness app's endpoints with realistic latencies.

Every request waits for one of the connections to a database, so that many concurrent requests slow down all of
them. With `--sessions` the service has members: they register, log in, and send the token of their last login
with each request. It runs in a separate process (`python -m replay.staging.service`), prints its port, and ends
when its standard input is closed. `GET /figures` is answered at once with its own figures as JSON: requests in
flight, the length of its queue, workers busy. `--slower 'GET /v1/profile=1.1'` simulates a build with an endpoint
that is 10% slower; `--field 'GET /v1/profile=plan:gold'` simulates one with a different response.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import h11
import trio

from replay.errors import EngineError, UsageError
from replay.units import parse_factor

from .members import Members

RECEIVE_BYTES = 65_536
DATABASE_PLACES = 24


class Endpoint(NamedTuple):
    """The behavior of an endpoint.

    Its work has the median `median_ms` and the spread `sigma` (of the logarithm). `failing` is the share of
    requests that fail with 503.
    """

    prefix: str
    median_ms: float
    sigma: float
    body_bytes: int
    status: int = 200
    failing: float = 0.0


ENDPOINTS = (
    Endpoint("POST /v1/auth/login", 24.0, 0.45, 412),
    Endpoint("POST /v1/users", 38.0, 0.55, 240, 201),
    Endpoint("POST /v1/payment/orders", 55.0, 0.65, 310, 201, 0.004),
    Endpoint("GET /v1/payment/offers", 6.0, 0.35, 1_902),
    Endpoint("GET /v1/training/plans/", 9.0, 0.40, 5_230),
    Endpoint("GET /v1/training/plans", 12.0, 0.40, 8_412),
    Endpoint("POST /v1/training/sessions", 14.0, 0.40, 188, 201),
    Endpoint("PUT /v1/training/sessions/", 10.0, 0.35, 204),
    Endpoint("GET /v1/nutrition/foods", 18.0, 0.70, 3_077),
    Endpoint("POST /v1/nutrition/meals", 11.0, 0.40, 166, 201),
    Endpoint("GET /v1/profile", 4.0, 0.30, 1_310),
    Endpoint("GET /register", 2.0, 0.20, 6_120),
)
REGISTER, LOG_IN = "POST /v1/users", "POST /v1/auth/login"
OPEN_TO_ALL = (REGISTER, LOG_IN, "GET /register")
"""The endpoints that need no token."""

UNKNOWN = Endpoint("", 1.0, 0.2, 24, 404)

FIGURES_PATH = "/figures"
"""The path at which the service publishes its own figures, as JSON."""


def build_of(slower: Sequence[str]) -> tuple[Endpoint, ...]:
    """Return the endpoints, with their work multiplied by the factors in `slower`, such as "POST /v1/users=1.2".

    Raise UsageError for an unknown endpoint or an invalid factor.
    """
    factors = {}
    for text in slower:
        prefix, _, factor = text.rpartition("=")
        if prefix not in {endpoint.prefix for endpoint in ENDPOINTS}:
            known = ", ".join(endpoint.prefix for endpoint in ENDPOINTS)
            raise UsageError(f"--slower: there is no endpoint {prefix!r}", hint=f"give one of {known}")
        factors[prefix] = parse_factor(factor)
    return tuple(
        endpoint._replace(median_ms=endpoint.median_ms * factors.get(endpoint.prefix, 1.0))
        for endpoint in ENDPOINTS
    )


def fields_of(given: Sequence[str]) -> dict[str, dict[str, object]]:
    """Return response fields by endpoint, from texts such as "GET /v1/profile=plan:gold".

    Raise UsageError if a text is invalid or its endpoint does not exist.
    """
    fields: dict[str, dict[str, object]] = {}
    known = {endpoint.prefix for endpoint in ENDPOINTS}
    for text in given:
        prefix, _, pair = text.rpartition("=")
        name, _, value = pair.partition(":")
        if prefix not in known or not name:
            raise UsageError(
                f"--field: {text!r} is not ENDPOINT=NAME:VALUE with an endpoint of the service",
                hint="give 'GET /v1/profile=plan:gold', for example",
            )
        fields.setdefault(prefix, {})[name] = value
    return fields


class Service:
    """Answers each request after its simulated work, at most DATABASE_PLACES at a time.

    With `members` it accepts only authorized requests, except to OPEN_TO_ALL and FIGURES_PATH.
    """

    def __init__(
        self,
        seed: int,
        endpoints: Sequence[Endpoint] = ENDPOINTS,
        members: Members | None = None,
        fields: Mapping[str, Mapping[str, object]] | None = None,
    ) -> None:
        self._endpoints, self._members, self._fields = endpoints, members, fields or {}
        self._random = random.Random(seed)
        self._database = trio.CapacityLimiter(DATABASE_PLACES)
        self._in_flight = 0

    def figures(self) -> dict[str, dict[str, int]]:
        """Return the service's own figures: requests in progress, requests that wait, and busy database workers."""
        database = self._database.statistics()
        return {
            "requests": {"in_flight": self._in_flight},
            "queue": {"length": database.tasks_waiting},
            "workers": {"busy": database.borrowed_tokens, "of": DATABASE_PLACES},
        }

    async def handle(self, stream: trio.SocketStream) -> None:
        """Serve one connection until it closes."""
        connection = h11.Connection(h11.SERVER)
        try:
            while connection.our_state is h11.IDLE:
                request, body = await _next_request(connection, stream)
                if request is None:
                    break
                await stream.send_all(await self._answer(connection, request, body))
                if {connection.our_state, connection.their_state} != {h11.DONE}:
                    break
                connection.start_next_cycle()
        except (trio.BrokenResourceError, h11.RemoteProtocolError):
            pass
        await trio.aclose_forcefully(stream)

    def _endpoint(self, method: str, path: str) -> Endpoint:
        asked = f"{method} {path}"
        return next((each for each in self._endpoints if asked.startswith(each.prefix)), UNKNOWN)

    async def work(self, method: str, path: str) -> tuple[int, int]:
        """Simulate the work of a request, and return the status and the length of the body."""
        endpoint = self._endpoint(method, path)
        work_ms = self._random.lognormvariate(math.log(endpoint.median_ms), endpoint.sigma)
        self._in_flight += 1
        try:
            async with self._database:
                await trio.sleep(work_ms / 1_000)
        finally:
            self._in_flight -= 1
        failed = self._random.random() < endpoint.failing
        return 503 if failed else endpoint.status, endpoint.body_bytes

    async def _answer(self, connection: h11.Connection, request: h11.Request, asked: bytes) -> bytes:
        method, path = request.method.decode("ascii"), request.target.decode("ascii")
        if path == FIGURES_PATH:
            status, whole = 200, json.dumps(self.figures()).encode()
        else:
            status, whole = await self._served(method, path, request, asked)
        body = b"" if request.method == b"HEAD" else whole
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(whole)))]
        return b"".join(
            connection.send(event) or b""
            for event in (
                h11.Response(status_code=status, headers=headers),
                h11.Data(data=body),
                h11.EndOfMessage(),
            )
        )

    async def _served(self, method: str, path: str, request: h11.Request, asked: bytes) -> tuple[int, bytes]:
        """Return the status and body of the response to a request."""
        status, length = await self.work(method, path)
        reply: dict[str, object] = dict(self._fields.get(self._endpoint(method, path).prefix, {}))
        if self._members is not None:
            prefix = self._endpoint(method, path).prefix
            status, of_member = self._as_member(self._members, prefix, request, asked, status)
            reply |= of_member
        return status, _padded(reply, length)

    @staticmethod
    def _as_member(
        members: Members, prefix: str, request: h11.Request, asked: bytes, status: int
    ) -> tuple[int, dict[str, object]]:
        """Return status and response for a service with members; an invalid or expired token is refused."""
        if prefix == REGISTER:
            return members.register(asked)
        if prefix == LOG_IN:
            return members.log_in(asked)
        shown = next(
            (value.decode("latin-1") for name, value in request.headers if name == b"authorization"), ""
        )
        if prefix in OPEN_TO_ALL or members.knows(shown):
            return status, {"ok": True}
        return 401, {"error": "the token is invalid or has expired: log in"}


def _padded(reply: dict[str, object], size: int) -> bytes:
    """Return a JSON object, padded to `size` bytes unless it is longer."""
    empty = json.dumps(reply | {"padding": ""}).encode()
    return empty[:-2] + b"." * (size - len(empty)) + b'"}'


async def _next_request(
    connection: h11.Connection, stream: trio.SocketStream
) -> tuple[h11.Request | None, bytes]:
    """Return the next whole request and its body; None and no body if the peer closed the connection."""
    request: h11.Request | None = None
    body = b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await stream.receive_some(RECEIVE_BYTES))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            return request, body
        elif isinstance(event, h11.ConnectionClosed):
            return None, b""


@contextlib.contextmanager
def running(seed: int, slower: Sequence[str] = (), fields: Sequence[str] = ()) -> Iterator[int]:
    """Start the service in a separate process, and yield its port.

    The process ends with the context, or with this process. Raise EngineError if it does not start.
    """
    command = [sys.executable, "-m", __name__, "--seed", str(seed)]
    command += [word for text in slower for word in ("--slower", text)]
    command += [word for text in fields for word in ("--field", text)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    try:
        port = process.stdout.readline().strip()
        if not port.isdigit():
            raise EngineError("the built-in service did not start", hint="see its message above, if any")
        yield int(port)
    finally:
        process.stdin.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
        process.stdout.close()


class Handler(Protocol):
    """Serves one connection until it closes."""

    async def handle(self, stream: trio.SocketStream) -> None:
        """Serve the connection until it closes."""


async def serve(service: Handler, port: int) -> None:
    """Print the port, then serve until standard input is closed."""
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(
            lambda task_status: trio.serve_tcp(
                service.handle, port, host="127.0.0.1", backlog=4_096, task_status=task_status
            )
        )
        print(listeners[0].socket.getsockname()[1], flush=True)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        nursery.cancel_scope.cancel()


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until standard input is closed, with the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--slower", action="append", default=[], metavar="ENDPOINT=FACTOR")
    parser.add_argument(
        "--field",
        action="append",
        default=[],
        metavar="ENDPOINT=NAME:VALUE",
        help="add this field to the endpoint's responses",
    )
    parser.add_argument("--sessions", action="store_true", help="refuse requests without a valid token")
    parser.add_argument(
        "--token-lifetime", type=float, default=3600.0, metavar="S", help="validity of a token in seconds"
    )
    options = parser.parse_args(arguments)
    members = Members(options.token_lifetime) if options.sessions else None
    try:
        service = Service(options.seed, build_of(options.slower), members, fields_of(options.field))
    except UsageError as error:
        parser.error(f"{error} ({error.hint})")
    trio.run(serve, service, options.port)


if __name__ == "__main__":
    main()
