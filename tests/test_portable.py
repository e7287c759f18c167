"""What the portable engine alone can do: speak another protocol, and TLS."""

from __future__ import annotations

import functools
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from replay.engine.contract import LaneSpec
from replay.engine.http import Http
from replay.engine.portable import run_lane
from replay.engine.protocol import Connectionless, Outcome, Request
from replay.staging.sink import Sink
from replay_native import jit
from replay_native.bank import RESET

from .driver import MS_NS, Ask, RunLane, drive


@pytest.fixture(scope="module", autouse=True)
def _kernels() -> None:
    jit.warm(["shared", "hdr", "record"])


async def test_a_protocol_can_be_one_function(tmp_path: Path) -> None:
    seen: list[Request] = []

    async def send(request: Request) -> Outcome:
        seen.append(request)
        match request.seq % 5:
            case 0:
                raise ConnectionResetError("gone")
            case 1:
                return Outcome(failure=RESET)
            case 2:
                await trio.sleep_forever()
            case 3:
                request.first_byte_ns = time.monotonic_ns()
                request.bytes_received = 7
                return Outcome(status=404, reusable=True)
        return Outcome(status=200, reusable=True)

    engine = functools.partial(run_lane, protocol=Connectionless(send))
    asks = [Ask("/x", at_ms=i, route=1) for i in range(10)]
    driven = await drive(engine, tmp_path, asks, timeout_s=0.1, connections=3)
    assert driven.outcomes == {"reset": 4, "timeout": 2, "2xx": 2, "4xx": 2}
    assert sorted(one.seq for one in seen if one.route == 1) == list(range(10))
    assert seen[0].data == asks[0].render(seen[0].seq)
    assert driven["bytes_received"] == 14
    assert driven.count("first_byte.all") == 2


async def test_a_protocol_that_cannot_connect_fails_requests(tmp_path: Path) -> None:
    class Unreachable:
        async def connect(self) -> Connectionless:
            raise TimeoutError(110, "no route")

    driven = await drive(
        functools.partial(run_lane, protocol=Unreachable()), tmp_path, [Ask(at_ms=i) for i in range(4)]
    )
    assert driven.outcomes == {"timeout": 4}


async def test_a_broken_protocol_is_told_of(tmp_path: Path) -> None:
    async def send(_request: Request) -> Outcome:
        raise ZeroDivisionError

    with trio.fail_after(5), pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True):
        await drive(functools.partial(run_lane, protocol=Connectionless(send)), tmp_path, [Ask()])


async def test_cancelling_it_abandons_the_run(sink: Sink, tmp_path: Path) -> None:
    async def cancelled(spec: LaneSpec) -> None:
        with trio.move_on_after(0.2):
            await run_lane(spec)

    asks = [Ask("/sink/never")] * 2 + [Ask(at_ms=10_000)]
    driven = await drive(cancelled, tmp_path, asks, sink.port, killed=True)
    assert (driven["planned"], driven.accounts.in_flight) == (2, 2)
    assert driven.took_s < 5


def _anonymous(side: ssl._SSLMethod) -> ssl.SSLContext:
    """TLS without certificates, for which nothing secret needs to lie about."""
    context = ssl.SSLContext(side)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AECDH-AES128-SHA:@SECLEVEL=0")
    return context


@asynccontextmanager
async def _secured(port: int) -> AsyncIterator[int]:
    """The port of a TLS server that hands everything on to `port`."""

    async def hand_on(source: trio.abc.Stream, sink: trio.abc.Stream, scope: trio.CancelScope) -> None:
        try:
            async for data in source:
                await sink.send_all(data)
        except trio.BrokenResourceError:
            pass
        scope.cancel()

    async def serve(client: trio.SocketStream) -> None:
        secured = trio.SSLStream(
            client, _anonymous(ssl.PROTOCOL_TLS_SERVER), server_side=True, https_compatible=True
        )
        async with (
            await trio.open_tcp_stream("127.0.0.1", port) as plain,
            client,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(hand_on, secured, plain, nursery.cancel_scope)
            nursery.start_soon(hand_on, plain, secured, nursery.cancel_scope)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(functools.partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


def _over_tls(context: ssl.SSLContext, name: str | None = None) -> RunLane:
    async def run(spec: LaneSpec) -> None:
        await run_lane(spec, Http(spec.bank, 65_536, ssl_context=context, server_hostname=name))

    return run


@pytest.fixture
def sink():  # type: ignore[no-untyped-def]
    with Sink(capacity=1_000) as sink:
        yield sink


async def test_it_speaks_tls(sink: Sink, tmp_path: Path) -> None:
    async with _secured(sink.port) as port:
        run = _over_tls(_anonymous(ssl.PROTOCOL_TLS_CLIENT))
        asks = [Ask("/sink/body=100000", at_ms=60 * i) for i in range(4)]
        asks += [Ask("/sink/truncate_at=30", at_ms=300), Ask(at_ms=350)]
        driven = await drive(run, tmp_path, asks, port, connections=1)
    assert driven.outcomes == {"2xx": 5, "truncated": 1}
    assert driven["connects"] == 2
    assert sink.arrivals == 6


async def test_a_target_that_speaks_no_tls_refuses(sink: Sink, tmp_path: Path) -> None:
    run = _over_tls(ssl.create_default_context(), "sink")
    driven = await drive(run, tmp_path, [Ask()], sink.port, timeout_s=0.3)
    assert set(driven.outcomes) <= {"refused", "timeout", "reset"}
    assert driven.percentile_ns("response.all", 1.0) < 2_000 * MS_NS
