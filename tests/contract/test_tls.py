"""Connections by TLS, both engines: what is verified, resumed, counted, and what a failed handshake is called.

That the faults of HTTP land in the same outcomes by TLS is in `test_answers`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from replay.lane.tls import Tls
from replay.staging.sink import Identity, Sink
from tests.support.certificates import Authority
from tests.support.places import ROOT

from .driver import (
    Ask,
    Driven,
    RunLane,
    drive,
)

TLS_1_2, TLS_1_3 = 0x0303, 0x0304
CLOSING = [Ask("/sink/close", at_ms=60.0 * i) for i in range(5)]


def secured(engine: RunLane, tls: Tls) -> RunLane:
    return lambda spec: engine(dataclasses.replace(spec, tls=tls))


async def through(
    engine: RunLane, path: Path, tls: Tls, identity: Identity, asks: list[Ask], connections: int = 8
) -> Driven:
    """One lane against a sink of its own."""
    with Sink(capacity=1_000, tls=identity) as sink:
        return await drive(secured(engine, tls), path, asks, sink.port, connections=connections)


def handshakes(driven: Driven) -> tuple[int, int, int]:
    """Full, resumed and failed ones; the histograms hold as many."""
    full, resumed, failed = (driven[f"handshakes_{kind}"] for kind in ("full", "resumed", "failed"))
    assert (driven.count("handshake.full"), driven.count("handshake.resumed")) == (full, resumed)
    return full, resumed, failed


@pytest.mark.timing
@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
async def test_new_connections_resume_the_session_of_earlier_ones(
    engine: RunLane, authority: Authority, tmp_path: Path, version: int
) -> None:
    identity = dataclasses.replace(authority.issue(), version=version)
    driven = await through(engine, tmp_path, authority.settings(), identity, CLOSING)
    assert driven.outcomes == {"2xx": 5}
    assert handshakes(driven) == (1, 4, 0)
    assert 0 < driven.percentile_ns("handshake.full", 1.0) <= driven.percentile_ns("wait.connect", 1.0)


@pytest.mark.timing
@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
async def test_a_session_outlives_a_connection_that_failed(
    engine: RunLane, authority: Authority, tmp_path: Path, version: int
) -> None:
    faults = ["reset_at=40", "truncate_at=40", "garbage", "close"]
    asks = [
        Ask("/sink/body=1"),
        *(Ask(f"/sink/{fault}", at_ms=60 + 60.0 * i) for i, fault in enumerate(faults)),
    ]
    identity = dataclasses.replace(authority.issue(), version=version)
    driven = await through(engine, tmp_path, authority.settings(), identity, asks)
    assert driven.outcomes == {"2xx": 2, "reset": 1, "truncated": 1, "malformed": 1}
    assert handshakes(driven) == (1, 3, 0)


async def test_clients_with_connections_of_their_own_resume_their_own_sessions(
    engine: RunLane, authority: Authority, tmp_path: Path
) -> None:
    asks = [Ask("/sink/close", at_ms=60.0 * i, client=i % 3) for i in range(9)]
    with Sink(capacity=100, tls=authority.issue()) as sink:
        run_lane = secured(engine, authority.settings())
        driven = await drive(run_lane, tmp_path, asks, sink.port, connect="per-client")
    assert driven.outcomes == {"2xx": 9}
    assert handshakes(driven) == (3, 6, 0)


async def test_without_resumption_every_handshake_is_a_full_one(
    engine: RunLane, authority: Authority, tmp_path: Path
) -> None:
    tls = authority.settings(resume=False)
    driven = await through(engine, tmp_path, tls, authority.issue(), CLOSING)
    assert handshakes(driven) == (5, 0, 0)


async def test_a_server_that_resumes_nothing_makes_full_ones(
    engine: RunLane, authority: Authority, tmp_path: Path
) -> None:
    identity = dataclasses.replace(authority.issue(), resume=False)
    driven = await through(engine, tmp_path, authority.settings(), identity, CLOSING)
    assert driven.outcomes == {"2xx": 5}
    assert handshakes(driven) == (5, 0, 0)


async def test_the_closed_loop_has_its_handshakes_too(
    engine: RunLane, authority: Authority, tmp_path: Path
) -> None:
    with Sink(capacity=1_000, tls=authority.issue()) as sink:
        run_lane = secured(engine, authority.settings())
        driven = await drive(
            run_lane, tmp_path, [Ask("/sink/close")] * 30, sink.port, connections=3, closed_loop=True
        )
    full, resumed, failed = handshakes(driven)
    assert (full + resumed, failed) == (driven["connects"], 0)
    assert full <= 3


async def test_a_certificate_that_is_not_good_fails_the_handshake(
    engine: RunLane, authority: Authority, tmp_path: Path
) -> None:
    yesterday = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    stranger = Authority.create(tmp_path)
    for identity, name in (
        (authority.issue(expires=yesterday), "127.0.0.1"),
        (stranger.issue(), "127.0.0.1"),
        (authority.issue("other.test"), "127.0.0.1"),
        (authority.issue("other.test"), "sink.test"),
    ):
        tls = authority.settings(name)
        driven = await through(engine, tmp_path, tls, identity, [Ask(at_ms=20.0 * i) for i in range(3)])
        assert driven.outcomes == {"tls": 3}
        assert (driven.accounts.error, driven["connects_failed"]) == (3, 3)
        assert handshakes(driven) == (0, 0, 3)
        assert driven.count("service.all") == 0
        unverified = dataclasses.replace(tls, verify=False)
        driven = await through(engine, tmp_path, unverified, identity, [Ask()])
        assert driven.outcomes == {"2xx": 1}


async def test_a_certificate_is_good_for_its_names_and_addresses(
    engine: RunLane, authority: Authority, tmp_path: Path
) -> None:
    identity = authority.issue("*.staging.test", "::1", "127.0.0.1")
    for name in ("api.staging.test", "::1", "127.0.0.1"):
        driven = await through(engine, tmp_path, authority.settings(name), identity, [Ask()])
        assert driven.outcomes == {"2xx": 1}


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
async def test_a_client_proves_itself_where_it_must(
    engine: RunLane, authority: Authority, tmp_path: Path, version: int
) -> None:
    identity = dataclasses.replace(authority.issue(), client_ca=authority.path, version=version)
    own = authority.issue("generator.test")
    tls = authority.settings(cert=str(own.cert), key=str(own.key))
    driven = await through(engine, tmp_path, tls, identity, [Ask(at_ms=30.0 * i) for i in range(3)])
    assert driven.outcomes == {"2xx": 3}
    driven = await through(
        engine, tmp_path, authority.settings(), identity, [Ask(at_ms=30.0 * i) for i in range(3)]
    )
    # A TLS 1.3 server refuses a client after its handshake: by an alert, or by RST if the request arrived first.
    assert set(driven.outcomes) <= {"tls", "reset"}
    assert driven.accounts.error == 3


async def test_plain_http_where_tls_is_spoken_to_fails_the_handshake(
    engine: RunLane, authority: Authority, tmp_path: Path
) -> None:
    with _answering(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n") as port:
        driven = await drive(secured(engine, authority.settings()), tmp_path, [Ask(), Ask()], port)
    assert driven.outcomes == {"tls": 2}
    assert driven["handshakes_failed"] == 2


async def test_a_handshake_that_is_broken_off_has_failed(
    engine: RunLane, authority: Authority, tmp_path: Path
) -> None:
    with _answering(b"") as port:
        driven = await drive(secured(engine, authority.settings()), tmp_path, [Ask(), Ask()], port)
    assert driven.outcomes == {"tls": 2}
    assert driven["resent"] == 0


@pytest.mark.timing
async def test_a_handshake_that_never_ends_is_a_timeout(
    engine: RunLane, authority: Authority, tmp_path: Path
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        driven = await drive(
            secured(engine, authority.settings()),
            tmp_path,
            [Ask(), Ask()],
            silent.getsockname()[1],
            timeout_s=0.3,
        )
    assert driven.outcomes == {"timeout": 2}
    assert handshakes(driven) == (0, 0, 2)


@contextmanager
def _answering(data: bytes) -> Iterator[int]:
    """The port of a server that answers whatever comes first with `data`, and hangs up."""

    def serve(client: socket.socket) -> None:
        client.recv(65_536)
        client.sendall(data)

    with _accepting(serve) as port:
        yield port


async def test_the_servers_name_is_asked_for_and_http11_offered(
    engine: RunLane, authority: Authority, tmp_path: Path
) -> None:
    seen: list[tuple[str | None, str | None, str | None]] = []
    identity = authority.issue()
    for name in ("sink.test", "127.0.0.1"):
        with _python_server(identity, seen) as port:
            driven = await drive(secured(engine, authority.settings(name)), tmp_path, [Ask()], port)
        assert driven.outcomes == {"2xx": 1}
    # An address cannot be a server name (RFC 6066, section 3).
    assert seen[0] == ("sink.test", "http/1.1", "TLSv1.3")
    assert seen[1][0] in (None, "127.0.0.1")


@contextmanager
def _python_server(
    identity: Identity, seen: list[tuple[str | None, str | None, str | None]]
) -> Iterator[int]:
    """The port of a server by Python's ssl that answers one request, and notes what it was asked for by."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.cert, identity.key)
    context.set_alpn_protocols(["h2", "http/1.1"])
    names: list[str | None] = []
    context.sni_callback = lambda _socket, name, _context: names.append(name)  # type: ignore[assignment]

    def serve(client: socket.socket) -> None:
        with context.wrap_socket(client, server_side=True) as talk:
            seen.append((names[0], talk.selected_alpn_protocol(), talk.version()))
            talk.recv(65_536)
            talk.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nwhole")

    with _accepting(serve) as port:
        yield port


async def test_an_answer_in_many_records_is_one_answer(
    engine: RunLane, authority: Authority, tmp_path: Path
) -> None:
    asks = [Ask("/sink/chunked=100/body=200000/trailers")] * 2
    asks += [Ask("/sink/drip_ms=1/step=3", method="POST", body=b"b" * 200_000)]
    driven = await through(engine, tmp_path, authority.settings(), authority.issue(), asks, connections=1)
    assert driven.outcomes == {"2xx": 3}
    assert driven["connects"] == 1
    assert driven["bytes_received"] > 400_000


LEFT_ALONE = """
import dataclasses, signal, sys, trio
from pathlib import Path
from replay.lane import KERNEL_MODULES
from replay.lane import native as lanes
from replay.lane.tls import Tls
from replay_native.ground import jit
from tests.contract.driver import Ask, drive

async def main(port, ca, folder):
    jit.warm(KERNEL_MODULES)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    engine = lambda spec: lanes.run_lane(dataclasses.replace(spec, tls=Tls("127.0.0.1", ca=ca)))
    driven = await drive(engine, Path(folder), [Ask(at_ms=20.0 * i) for i in range(40)], int(port))
    print(driven.outcomes)

trio.run(main, *sys.argv[1:])
"""
"""A lane in a process that a broken pipe ends, as one does where nobody changed that."""


@pytest.mark.timing
@pytest.mark.whole
def test_a_peer_that_left_does_not_end_the_process_that_says_goodbye_to_it(
    authority: Authority, tmp_path: Path
) -> None:
    with _leaving_server(authority.issue()) as port:
        done = subprocess.run(
            [sys.executable, "-c", LEFT_ALONE, str(port), str(authority.path), str(tmp_path)],
            cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "{'2xx': 40}\n"), done.stderr


@contextmanager
def _leaving_server(identity: Identity) -> Iterator[int]:
    """The port of a server that answers once, then ends the connection by FIN and RST: a write to it is EPIPE."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.cert, identity.key)

    def serve(client: socket.socket) -> None:
        talk = context.wrap_socket(client, server_side=True)
        talk.recv(65_536)
        talk.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        time.sleep(0.005)
        bare = socket.socket(fileno=talk.detach())
        bare.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        bare.shutdown(socket.SHUT_WR)
        bare.close()

    with _accepting(serve) as port:
        yield port


@contextmanager
def _accepting(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """The port of a server that gives each connection to `serve`, one after the other."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                with client, contextlib.suppress(OSError):
                    serve(client)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
    thread.join(5)
