"""The sink, seen from a plain socket: what it answers, what it notes, how it fails when told to."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import h11
import pytest

from replay.errors import InputError, UsageError
from replay.staging.sink import Sink, SinkMemory
from replay_native.staging.sink_memory import SinkWords

USUAL = b"HTTP/1.1 200 Sink\r\nContent-Length: 13\r\n\r\nxxxxxxxxxxxxx"
FIN, RST, OPEN = "FIN", "RST", "open"

pytestmark = pytest.mark.boundscheck


@pytest.fixture(scope="module")
def sink() -> Iterator[Sink]:
    with Sink(capacity=1_000) as sink:
        yield sink


def get(path: str, headers: str = "", method: str = "GET", version: str = "1.1") -> bytes:
    return f"{method} {path} HTTP/{version}\r\nHost: sink\r\n{headers}\r\n".encode()


def talk(sink: Sink, *pieces: bytes, quiet_s: float = 0.15) -> tuple[bytes, str]:
    """Send the pieces a little apart; all that came back, and how it ended."""
    with socket.create_connection(("127.0.0.1", sink.port), 5) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            client.sendall(piece)
            if len(pieces) > 1:
                time.sleep(0.002)
        client.settimeout(quiet_s)
        answer = b""
        while True:
            try:
                data = client.recv(65_536)
            except TimeoutError:
                return answer, OPEN
            except ConnectionResetError:
                return answer, RST
            if not data:
                return answer, FIN
            answer += data


def receive(client: socket.socket, size: int = len(USUAL)) -> bytes:
    """Exactly so many bytes, or fewer before the end."""
    read = b""
    # MSG_WAITALL does not wait on a socket with a time-out, because such a socket does not block.
    while len(read) < size and (more := client.recv(size - len(read))):
        read += more
    return read


def read_by_h11(data: bytes, method: bytes = b"GET") -> tuple[int, bytes, list[bytes], int]:
    """Status, body, trailers and informational answers as h11 reads one whole answer, until its connection's
    end.
    """
    parser = h11.Connection(h11.CLIENT)
    parser.send(h11.Request(method=method, target=b"/", headers=[(b"Host", b"sink")]))
    parser.send(h11.EndOfMessage())
    parser.receive_data(data)
    parser.receive_data(b"")
    status, body, informational = 0, b"", 0
    while True:
        event = parser.next_event()
        if isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.InformationalResponse):
            informational += 1
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            return status, body, [name for name, _ in event.headers], informational


def test_it_answers_and_keeps_the_connection(sink: Sink) -> None:
    assert talk(sink, get("/") + get("/any/path?query") + get("/")) == (USUAL * 3, OPEN)


@pytest.mark.timing
def test_a_request_may_come_byte_by_byte(sink: Sink) -> None:
    request = get("/", "X-Replay: slow-77\r\n")
    assert talk(sink, *(bytes([byte]) for byte in request)) == (USUAL, OPEN)
    assert sink.stamps()["seq"][-1] == 77


@pytest.mark.parametrize("step", [1, 3, 1_000])
def test_bodies_are_passed_over(sink: Sink, step: int) -> None:
    measured = get("/", "content-length: 20\r\n", "POST") + b"GET /sink/garbage X\r\n"[:20]
    chunked = get("/", "Transfer-Encoding: chunked\r\n", "POST")
    chunked += b"5;a=b\r\nGET /\r\nA \r\n0123456789\r\n0\r\nTrailer: GET\r\n\r\n"
    wire = measured + chunked + get("/sink/close")
    before = sink.arrivals
    answer, end = talk(sink, *(wire[at : at + step] for at in range(0, len(wire), step)))
    assert answer.count(b"HTTP/1.1 200") == 3
    assert end == FIN
    assert sink.arrivals == before + 3


@pytest.mark.timing
def test_arrivals_are_noted_in_order(sink: Sink) -> None:
    before = sink.arrivals
    started_ns = time.monotonic_ns()
    talk(sink, get("/", "X-Replay: run-7-12\r\n"), get("/", "x-replay: 3\r\n"), get("/"))
    talk(sink, get("/", "X-Replay: a-b-99\r\nX-Other: 5\r\n"))
    stamps = sink.stamps()[before:]
    assert stamps["seq"].tolist() == [12, 3, -1, 99]
    assert started_ns <= stamps["arrival_ns"][0] <= stamps["arrival_ns"][2] <= time.monotonic_ns()
    assert len(set(stamps["connection"][:3])) == 1
    assert stamps["connection"][3] == stamps["connection"][0] + 1


def test_http_1_0_and_close_end_the_connection(sink: Sink) -> None:
    for request in (get("/", version="1.0"), get("/", "Connection: close\r\n")):
        answer, end = talk(sink, request)
        assert (b"Connection: close" in answer, end) == (True, FIN)
    assert talk(sink, get("/", "Connection: keep-alive\r\n", version="1.0")) == (USUAL, OPEN)


@pytest.mark.parametrize(
    ("options", "status", "size", "end"),
    [
        ("status=503/body=3", 503, 3, OPEN),
        ("body=0", 200, 0, OPEN),
        ("body=100000", 200, 100_000, OPEN),
        ("status=204", 204, 0, OPEN),
        ("status=304", 304, 0, OPEN),
        ("until_close/body=50000", 200, 50_000, FIN),
        ("chunked/body=100000", 200, 100_000, OPEN),
        ("chunked=7", 200, 13, OPEN),
        ("chunked=1/trailers/drip_ms=0/step=2", 200, 13, OPEN),
        ("informational=2/chunked=5", 200, 13, OPEN),
        ("close", 200, 13, FIN),
        ("close_silently", 200, 13, FIN),
        ("idle_close_ms=5", 200, 13, FIN),
        ("unknown=5/wrong", 200, 13, OPEN),
    ],
)
def test_whole_answers_are_http(sink: Sink, options: str, status: int, size: int, end: str) -> None:
    answer, ended = talk(sink, get(f"/sink/{options}?x=/status=1"))
    got, body, trailers, informational = read_by_h11(answer)
    assert (got, len(body), ended) == (status, size, end)
    assert len(trailers) == (2 if "trailers" in options else 0)
    assert informational == (2 if "informational" in options else 0)
    assert (b"Connection: close" in answer) == (options == "close")


def test_the_answer_to_head_has_its_length_but_no_body(sink: Sink) -> None:
    for path in ("/", "/sink/status=404"):
        answer, end = talk(sink, get(path, method="HEAD"))
        assert (answer.endswith(b"Content-Length: 13\r\n\r\n"), end) == (True, OPEN)


@pytest.mark.parametrize(
    ("options", "size", "end"),
    [
        ("reset", 0, RST),
        ("hang_up", 0, FIN),
        ("reset_at=20", 20, RST),
        ("truncate_at=20", 20, FIN),
        ("truncate_at=48/chunked=4", 48, FIN),
        ("never", 0, OPEN),
    ],
)
def test_broken_answers_break_where_told(sink: Sink, options: str, size: int, end: str) -> None:
    answer, ended = talk(sink, get(f"/sink/{options}"))
    assert (len(answer), ended) == (size, end)
    assert talk(sink, get("/")) == (USUAL, OPEN)


@pytest.mark.parametrize(("option", "end"), [("hang_up_reused", FIN), ("reset_reused", RST)])
def test_reused_connections_may_end_alone(sink: Sink, option: str, end: str) -> None:
    assert talk(sink, get(f"/sink/{option}")) == (USUAL, OPEN)
    assert talk(sink, get("/"), get(f"/sink/{option}")) == (USUAL, end)


def test_garbage_is_not_http(sink: Sink) -> None:
    answer, end = talk(sink, get("/sink/garbage"))
    assert end == FIN
    with pytest.raises(h11.RemoteProtocolError):
        read_by_h11(answer)


def test_endless_headers_go_on_until_the_client_leaves(sink: Sink) -> None:
    with socket.create_connection(("127.0.0.1", sink.port), 5) as client:
        client.sendall(get("/sink/endless_headers"))
        read = b""
        while len(read) < 3_000_000:
            read += client.recv(65_536)
            if len(read) < 200_000:
                assert talk(sink, get("/sink/close"))[1] == FIN
    assert read.startswith(b"HTTP/1.1 200 Sink\r\nX-Endless: aaa")
    assert b"\r\n\r\n" not in read


@pytest.mark.timing
def test_a_delay_holds_up_no_other_connection(sink: Sink) -> None:
    with socket.create_connection(("127.0.0.1", sink.port), 5) as slow:
        sent_s = time.monotonic()
        slow.sendall(get("/sink/delay_ms=400"))
        assert talk(sink, get("/sink/close"))[1] == FIN
        assert time.monotonic() - sent_s < 0.4
        assert receive(slow) == USUAL
        assert time.monotonic() - sent_s >= 0.4


@pytest.mark.timing
def test_a_stall_holds_up_all(sink: Sink) -> None:
    with socket.create_connection(("127.0.0.1", sink.port), 5) as client:
        sent_s = time.monotonic()
        client.sendall(get("/sink/stall_ms=250"))
        assert talk(sink, get("/sink/close"), quiet_s=2)[1] == FIN
        assert time.monotonic() - sent_s >= 0.2
        assert receive(client) == USUAL
        assert time.monotonic() - sent_s >= 0.25
    sink.stall(0.2)
    stalled_s = time.monotonic()
    assert talk(sink, get("/sink/close"), quiet_s=2)[1] == FIN
    assert time.monotonic() - stalled_s >= 0.15


@pytest.mark.timing
def test_a_drip_comes_in_drops(sink: Sink) -> None:
    sent_s = time.monotonic()
    with socket.create_connection(("127.0.0.1", sink.port), 5) as client:
        client.sendall(get("/sink/drip_ms=10/step=9"))
        answer, drops = b"", 0
        while len(answer) < len(USUAL):
            answer += client.recv(1_000)
            drops += 1
    assert answer == USUAL
    assert drops > 2
    assert time.monotonic() - sent_s >= 0.05


@pytest.mark.timing
def test_a_client_that_leaves_is_forgotten(sink: Sink) -> None:
    clients = [socket.create_connection(("127.0.0.1", sink.port), 5) for _ in range(20)]
    for number, client in enumerate(clients):
        client.sendall(get(("/sink/never", "/sink/delay_ms=60000", "/sink/body=9000000", "/")[number % 4]))
    for client in clients:
        client.close()
    deadline_s = time.monotonic() + 5
    while sink.word(SinkWords.OPEN) and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert sink.word(SinkWords.OPEN) == 0


def test_a_head_that_is_too_long_is_reset(sink: Sink) -> None:
    assert talk(sink, b"GET / HTTP/1.1\r\nLong: " + b"a" * 20_000) == (b"", RST)


def test_what_the_array_cannot_hold_is_counted() -> None:
    with Sink(capacity=3) as sink:
        talk(sink, *(get("/", f"X-Replay: r-{number}\r\n") for number in range(5)))
        assert sink.stamps()["seq"].tolist() == [0, 1, 2]
        assert sink.arrivals == 5


def test_connections_over_the_cap_are_closed() -> None:
    with Sink(capacity=1, connections=2) as sink:
        held = [socket.create_connection(("127.0.0.1", sink.port), 5) for _ in range(2)]
        time.sleep(0.05)
        with socket.create_connection(("127.0.0.1", sink.port), 5) as third:
            assert third.recv(10) == b""
        assert sink.word(SinkWords.REFUSED) == 1
        for client in held:
            client.close()


@pytest.mark.timing
def test_it_ends_by_itself_and_when_told() -> None:
    with Sink(capacity=1, run_s=0.1) as sink:
        deadline_s = time.monotonic() + 5
        while sink.running and time.monotonic() < deadline_s:
            time.sleep(0.01)
        assert not sink.running
    sink.stop()
    with Sink(capacity=1) as sink, socket.create_connection(("127.0.0.1", sink.port), 5) as client:
        client.sendall(get("/sink/never"))
        sink.stop()
        assert not sink.running
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_a_port_in_use_is_said_so(sink: Sink) -> None:
    with pytest.raises(UsageError, match=rf"cannot listen on 127\.0\.0\.1:{sink.port}"):
        Sink(port=sink.port, capacity=1).start()


def test_stamps_that_are_none_are_said_so(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"short")
    for path in (tmp_path / "absent", tmp_path / "short"):
        with pytest.raises(InputError, match="no stamps of a sink"):
            SinkMemory.open(path)


@pytest.mark.timing
def test_a_process_shares_its_stamps(tmp_path: Path) -> None:
    path = tmp_path / "stamps"
    command = [
        sys.executable,
        "-m",
        "replay.staging.sink",
        "--stamps",
        os.fspath(path),
        "--body",
        "5",
        "--seconds",
        "30",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("listening on 127.0.0.1:")
        memory = SinkMemory.open(path)
        with socket.create_connection(("127.0.0.1", memory.port), 5) as client:
            client.sendall(get("/", "X-Replay: far-5\r\n"))
            assert client.recv(1_000).endswith(b"Content-Length: 5\r\n\r\nxxxxx")
        assert memory.stamps()["seq"].tolist() == [5]
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == "1 requests\n"
    assert process.returncode == 0
