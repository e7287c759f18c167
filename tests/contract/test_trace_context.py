"""The traceparent of a request: one trace for all its attempts, and a parent id for each."""

from __future__ import annotations

import re
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.results.traces import seed_of, trace_id, traceparent
from replay_native.templates import trace_context as kernels
from tests import naive_trace_context as naive
from tests.support.scripted_server import ScriptedServer, Turns

from .driver import Ask, RunLane, drive
from .test_retries import retry

pytestmark = pytest.mark.boundscheck

SEED = seed_of("5a5a5a5a")
SEEDS = st.integers(1, (1 << 64) - 1)
SEQS = st.integers(0, (1 << 40) - 1)
OK, UNAVAILABLE = (
    [b"HTTP/1.1 %s\r\nContent-Length: 0\r\n\r\n" % status] for status in (b"200 OK", b"503 Busy")
)


@given(SEEDS, SEQS, st.integers(2, 200))
def test_the_kernel_writes_what_its_twin_writes_and_it_is_valid(seed: int, seq: int, attempt: int) -> None:
    written = traceparent(seed, seq, attempt)
    assert written == naive.traceparent(seed, seq, attempt)
    assert naive.VALID.fullmatch(written)
    assert trace_id(seed, seq) == written[3:35].decode()


@given(SEEDS, SEQS, st.integers(1, 64), st.integers(0, 1), st.binary(max_size=200), st.binary(max_size=80))
def test_the_parent_id_is_renewed_in_the_head_alone(
    seed: int, seq: int, tries: int, resent: int, body: bytes, name: bytes
) -> None:
    head = b"GET /x HTTP/1.1\r\nX-Other: " + re.sub(rb"[\r\n]", b"", name)
    line = b"\r\ntraceparent: " + naive.traceparent(seed, seq)
    for request in (head + line + b"\r\n\r\n" + body, head + b"\r\n\r\n" + line + body):
        data = np.frombuffer(bytearray(request), np.uint8)
        kernels.renew_parent_in(data, np.uint64(seed), seq, tries, resent)
        assert data.tobytes() == naive.renewed(request, seed, seq, 2 * tries + resent)


def _sent(asked: list[bytes]) -> list[bytes]:
    return [match[1] for head in asked if (match := re.search(rb"\r\ntraceparent: (\S+)\r\n", head))]


async def test_each_try_has_a_parent_id_of_its_own_in_the_same_trace(engine: RunLane, tmp_path: Path) -> None:
    body = b'{"a":"\r\ntraceparent: 00-1"}'
    with ScriptedServer({"/flaky": Turns(UNAVAILABLE, UNAVAILABLE, OK), "/ok": OK}) as server:
        asks = [
            Ask(path, at_ms=at, method="PUT", body=body, traceparent=naive.traceparent(SEED, seq))
            for seq, (path, at) in enumerate((("/flaky", 0), ("/ok", 40)))
        ]
        again = retry(503, attempts=3, backoff_ms=1)
        driven = await drive(engine, tmp_path, asks, server.port, connections=1, retry=again, trace_seed=SEED)
    assert driven.outcomes == {"2xx": 2}
    expected = [naive.traceparent(SEED, 0, attempt) for attempt in (2, 4, 6)]
    assert _sent([request for request in server.asked if b"/flaky" in request]) == expected
    assert _sent([request for request in server.asked if b"/ok" in request]) == [naive.traceparent(SEED, 1)]
    assert len(set(expected)) == 3 and len({text[:35] for text in expected}) == 1
    assert all(request.endswith(body) for request in server.asked)


async def test_without_traces_a_request_is_tried_again_byte_for_byte(engine: RunLane, tmp_path: Path) -> None:
    own = b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-00"
    with ScriptedServer({"/flaky": Turns(UNAVAILABLE, OK)}) as server:
        again = retry(503, attempts=2, backoff_ms=1)
        await drive(engine, tmp_path, [Ask("/flaky", traceparent=own)], server.port, retry=again)
    assert _sent(server.asked) == [own, own]


class _HangsUp:
    """Answers the first request of a connection, and hangs up on the second."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        asked = self.asked

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                for number in range(2):
                    head = b""
                    while not head.endswith(b"\r\n\r\n"):
                        try:
                            line = self.rfile.readline()
                        except ConnectionResetError:
                            return
                        if not line:
                            return
                        head += line
                    asked.append(head)
                    if number == 0:
                        self.wfile.write(OK[0])

        self.server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True


@pytest.fixture
def hangs_up() -> Iterator[_HangsUp]:
    made = _HangsUp()
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


async def test_a_request_that_is_sent_again_on_a_new_connection_has_another_parent(
    engine: RunLane, hangs_up: _HangsUp, tmp_path: Path
) -> None:
    asks = [Ask("/", at_ms=60 * seq, traceparent=naive.traceparent(SEED, seq)) for seq in range(2)]
    port = hangs_up.server.server_address[1]
    driven = await drive(engine, tmp_path, asks, port, connections=1, trace_seed=SEED)
    assert driven.outcomes == {"2xx": 2} and driven["resent"] == 1
    again = naive.traceparent(SEED, 1, 3)
    assert _sent(hangs_up.asked) == [naive.traceparent(SEED, 0), naive.traceparent(SEED, 1), again]
