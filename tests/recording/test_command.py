"""`replay record http` by the real command: what it leaves behind, however it ends."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import stat
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from replay.trace import Trace
from replay.trace.importing import import_files
from tests.support.recording import Recorder, recording, replay
from tests.support.waiting import is_alive, wait_until

pytestmark = pytest.mark.whole


class _Service(BaseHTTPRequestHandler):
    """Answers with what it was sent."""

    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, str, bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.seen.append((self.command, self.path, body))
        self.send_response(201 if body else 200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def service() -> Iterator[ThreadingHTTPServer]:
    handler = type("Handler", (_Service,), {"seen": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def upstream(service: ThreadingHTTPServer) -> tuple[str, str]:
    return "--upstream", f"http://127.0.0.1:{service.server_address[1]}"


def ask(recorder: Recorder, path: str, body: bytes | None = None, **headers: str) -> bytes:
    request = urllib.request.Request(recorder.url + path, data=body, headers=headers)
    with urllib.request.urlopen(request, timeout=20) as response:
        return bytes(response.read())


def targets(trace: Trace) -> list[bytes]:
    return [trace.requests.get(int(row)).target for batch in trace.batches() for row in batch.request]


def test_a_recording_becomes_a_trace_when_it_ends(service, tmp_path):
    out = tmp_path / "day.trace"
    with recording(out, *upstream(service), "--keep-responses") as recorder:
        assert ask(recorder, "/a?token=s3cr3tvalue", b"x=1&password=hunter22") == b"x=1&password=hunter22"
        assert ask(recorder, "/b") == b""
        assert recorder.stop() == 0
    trace = recorder.trace()
    (batch,) = trace.batches()
    assert batch.status.tolist() == [201, 200]
    assert (batch.took_ns > 0).all()
    assert trace.manifest.responses == 2
    assert trace.manifest.scrubbed
    raw = b"".join(file.read_bytes() for file in out.iterdir())
    assert b"s3cr3tvalue" not in raw
    assert b"hunter22" not in raw
    assert stat.S_IMODE(out.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in out.iterdir()} == {0o600}
    assert not recorder.journal.exists()
    for line in ("requests 2, recorded 2", "statuses ", "routes ", f"replay inspect {out}"):
        assert line in recorder.printed


def test_the_users_rules_for_secrets_hold(service, tmp_path):
    key = tmp_path / "key"
    key.write_bytes(bytes(range(32)))
    traces = []
    for number in range(2):
        rules = ("--scrub", "form:nick=pseudonym", "--scrub", "form:never=drop", "--scrub-key-file", str(key))
        with recording(tmp_path / f"{number}.trace", *upstream(service), *rules) as recorder:
            for _ in range(3):
                ask(recorder, "/a", b"nick=rumpelstilz&x=1", Authorization="Bearer abcdefgh12345678")
            assert recorder.stop() == 0
        traces.append(recorder.trace())
    bodies = [trace.requests.body(0) for trace in traces]
    assert bodies[0] == bodies[1] and bodies[0].endswith(b"&x=1")
    assert b"rumpelstilz" not in bodies[0] and len(bodies[0]) == len(b"nick=rumpelstilz&x=1")
    manifest = traces[0].manifest
    counts = {(change["place"], change["name"]): change["count"] for change in manifest.scrubbed}
    assert counts["form", "nick"] == 3
    assert {count for (place, _), count in counts.items() if place == "header"} <= {3}
    assert any("form:never=drop matches no value" in each for each in manifest.assumptions)
    assert manifest.options["scrub"] == ["form:nick=pseudonym", "form:never=drop"]


def test_a_trace_without_bodies_has_the_usual_mode(service, tmp_path):
    with recording(tmp_path / "day.trace", *upstream(service)) as recorder:
        ask(recorder, "/a")
        assert recorder.stop(signal.SIGINT) == 0
    assert stat.S_IMODE(recorder.out.stat().st_mode) == 0o777 & ~_umask()


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def test_kept_secrets_are_sent_again_byte_by_byte(service, tmp_path):
    seen = service.RequestHandlerClass.seen
    bodies = [b"", b"password=hunter2&token=abc", bytes(range(256)), "grün".encode(), b'{"password":"x"}']
    with recording(tmp_path / "day.trace", *upstream(service), "--keep-secrets") as recorder:
        for number, body in enumerate(bodies):
            ask(recorder, f"/a/{number}?token=%C3%A4&session=1", body or None, Authorization="Bearer abc")
        assert recorder.stop() == 0
    assert "secrets are recorded unchanged" in recorder.printed
    assert recorder.trace().manifest.options["keep_secrets"] is True
    first = list(seen)
    seen.clear()
    done = replay(
        "run", str(recorder.out), "--target", f"http://127.0.0.1:{service.server_address[1]}", "--methods", "GET,POST",
        "-o", str(tmp_path / "run"),
    )  # fmt: skip
    assert done.returncode in (0, 4), done.stderr
    assert sorted(seen) == sorted(first)


def test_a_body_over_the_limit_passes_and_is_never_replayed(service, tmp_path):
    seen = service.RequestHandlerClass.seen
    limits = ("--body-limit", "1KiB", "--body-limit", "POST /upload*=0")
    with recording(tmp_path / "day.trace", *upstream(service), *limits) as recorder:
        assert ask(recorder, "/a", bytes(2_000)) == bytes(2_000)
        assert ask(recorder, "/upload/1?x", b"short") == b"short"
        assert ask(recorder, "/a", b"short") == b"short"
        assert recorder.stop() == 0
    assert "body over the limit 2" in recorder.printed
    manifest = recorder.trace().manifest
    assert manifest.methods == ["POST(body-cut)", "POST"]
    assert manifest.lost == {"only a part: body over the limit": 2}
    seen.clear()
    url = f"http://127.0.0.1:{service.server_address[1]}"
    done = replay("run", str(recorder.out), "--target", url, "--methods", "all", "-o", str(tmp_path / "run"))
    assert "POST(body-cut)" in done.stdout + done.stderr
    assert seen == [("POST", "/a", b"short")]
    shown = " ".join(replay("inspect", str(recorder.out)).stdout.split())
    assert "2 POST(body-cut): their bodies are incomplete, so they are never replayed" in shown
    exported = replay("export", str(recorder.out), "-o", str(tmp_path / "day.gor"))
    assert "1 request (2 left out, because their bodies are not complete)" in " ".join(
        exported.stdout.split()
    )
    assert b"body-cut" not in (tmp_path / "day.gor").read_bytes()


def test_a_mirror_is_recorded_without_responses(tmp_path):
    with recording(tmp_path / "day.trace", "--mirror", "--answer", "202") as recorder:
        for number in range(20):
            ask(
                recorder,
                f"/a/{number}",
                b"x",
                **{"X-Forwarded-For": f"203.0.113.{number % 4}", "Host": "shop.example"},
            )
        assert recorder.stop() == 0
    trace = recorder.trace()
    assert trace.rows == 20
    assert trace.manifest.clients == 4
    assert trace.manifest.hosts == ["shop.example"]
    (batch,) = trace.batches()
    assert set(batch.status.tolist()) == {-1}


def test_no_request_is_no_trace_and_no_failure(tmp_path):
    with recording(tmp_path / "day.trace", "--mirror") as recorder:
        assert recorder.stop() == 0
    assert "no request was recorded" in recorder.printed
    assert list(tmp_path.iterdir()) == []


class Load(threading.Thread):
    """Requests with numbers, one after the other; when each one's response was there."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__(daemon=True)
        self._port = recorder.port
        self.done: list[float] = []

    def run(self) -> None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port)) as sock:
            for number in range(1_000_000):
                sock.sendall(b"POST /a/%d HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc" % number)
                data = b""
                while b"\r\n\r\n" not in data:
                    if not (piece := sock.recv(4_096)):
                        return
                    data += piece
                self.done.append(time.monotonic())
                time.sleep(0.002)


@pytest.mark.timing
@pytest.mark.parametrize("kind", ["proxy", "mirror"])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_kill_leaves_what_came_up_to_the_last_second(kind, seed, service, tmp_path):
    draw = random.Random(seed)
    with recording(tmp_path / "day.trace", *options_of(kind, service)) as recorder:
        load = Load(recorder)
        load.start()
        time.sleep(draw.uniform(1.2, 2.5))
        recorder.kill()
        killed_s = time.monotonic()
    load.join(10)
    safe = sum(done < killed_s - 1.0 for done in load.done)
    assert safe > 10
    said = replay("inspect", str(recorder.out))
    assert said.returncode == 2
    command = f"replay import {recorder.journal} -o {recorder.out}"
    assert "did not end" in said.stderr and command in said.stderr
    again = replay("record", "http", "--mirror", "--listen", "127.0.0.1:0", "-o", str(recorder.out))
    assert again.returncode == 2 and command in again.stderr
    imported = replay(*command.split()[1:])
    assert imported.returncode == 0, imported.stderr
    found = set(targets(recorder.trace()))
    assert {b"/a/%d" % number for number in range(safe)} <= found


def options_of(kind: str, service: ThreadingHTTPServer) -> tuple[str, ...]:
    return upstream(service) if kind == "proxy" else ("--mirror",)


@pytest.mark.parametrize("kind", ["proxy", "mirror"])
def test_a_kill_of_the_server_alone_loses_nothing_that_was_answered(kind, service, tmp_path):
    with recording(tmp_path / "day.trace", *options_of(kind, service)) as recorder:
        load = Load(recorder)
        load.start()
        time.sleep(1.0)
        writer = recorder.writer_pid()
        recorder.process.kill()
        recorder.process.wait()
        load.join(10)
        wait_until(lambda: not is_alive(writer), 60)
    trace = import_files([recorder.journal], recorder.out)
    # What the proxy had not yet handed over dies with it; the receiver's ring does not.
    assert trace.rows >= len(load.done) * (0.8 if kind == "proxy" else 1)


def test_a_full_disk_loses_recordings_and_no_requests(service, tmp_path):
    """The limit on the size of a file fails writes as a full disk does."""
    limit = ("prlimit", f"--fsize={400 << 10}")
    with recording(tmp_path / "day.trace", *upstream(service), before=limit) as recorder:
        for number in range(40):
            body = random.Random(number).randbytes(30_000)
            assert ask(recorder, f"/a/{number}", body) == body
            time.sleep(0.02)
        recorder.stop()
    assert "requests 40, recorded " in recorder.printed
    assert "the disk took no more" in recorder.printed
    assert "Traceback" not in recorder.printed


def test_a_disk_that_stops_fills_the_queue_and_no_request_waits(service, tmp_path):
    with recording(tmp_path / "day.trace", *upstream(service)) as recorder:
        writer = recorder.writer_pid()
        os.kill(writer, signal.SIGSTOP)
        body = bytes(1 << 20)
        for number in range(150):
            assert ask(recorder, f"/a/{number}", body) == body
        os.kill(writer, signal.SIGCONT)
        assert recorder.stop() == 0
    manifest = recorder.trace().manifest
    assert manifest.lost["queue full"] > 0
    assert manifest.rows + manifest.lost["queue full"] == 150
    assert "too slow for the recording" in recorder.printed


@pytest.mark.parametrize("kind", ["proxy", "mirror"])
def test_requests_pass_when_the_writer_is_killed(kind, service, tmp_path):
    with recording(tmp_path / "day.trace", *options_of(kind, service)) as recorder:
        ask(recorder, "/before")
        time.sleep(0.6)
        os.kill(recorder.writer_pid(), signal.SIGKILL)
        time.sleep(0.2)
        for number in range(20):
            ask(recorder, f"/after/{number}")
            time.sleep(0.02)
        assert recorder.stop() == 0
    assert targets(recorder.trace()) == [b"/before"]
    assert "no longer recorded" in recorder.printed
    assert "the writer ended 20" in recorder.printed


def test_without_descriptors_new_connections_wait_and_nothing_is_refused(service, tmp_path):
    limit = ("prlimit", "--nofile=104:104")
    with recording(tmp_path / "day.trace", *upstream(service), before=limit) as recorder:
        idle = [socket.create_connection(("127.0.0.1", recorder.port)) for _ in range(20)]
        late = socket.create_connection(("127.0.0.1", recorder.port))
        late.sendall(b"GET /late HTTP/1.1\r\nHost: x\r\n\r\n")
        late.settimeout(1)
        with pytest.raises(TimeoutError):
            late.recv(100)
        late.settimeout(10)
        for sock in idle:
            sock.close()
        assert late.recv(100).startswith(b"HTTP/1.1 200")
        late.close()
        assert recorder.stop() == 0
    assert targets(recorder.trace()) == [b"/late"]
    assert "20 connections are open" in recorder.printed


def test_a_mirror_without_descriptors_lets_connections_wait(tmp_path):
    limit = ("prlimit", "--nofile=104:104")
    with recording(tmp_path / "day.trace", "--mirror", before=limit) as recorder:
        idle = [socket.create_connection(("127.0.0.1", recorder.port)) for _ in range(40)]
        late = socket.create_connection(("127.0.0.1", recorder.port))
        late.sendall(b"GET /late HTTP/1.1\r\nHost: x\r\n\r\n")
        late.settimeout(1)
        with pytest.raises(TimeoutError):
            late.recv(100)
        late.settimeout(10)
        for sock in idle:
            sock.close()
        assert late.recv(100).startswith(b"HTTP/1.1 204")
        late.close()
        assert recorder.stop() == 0
    assert targets(recorder.trace()) == [b"/late"]
    assert "40 connections are open" in recorder.printed


def test_a_mirror_whose_writer_stops_loses_recordings_and_answers(tmp_path):
    with recording(tmp_path / "day.trace", "--mirror") as recorder:
        os.kill(recorder.writer_pid(), signal.SIGSTOP)
        with socket.create_connection(("127.0.0.1", recorder.port)) as sock:
            for number in range(3_000):
                head = b"POST /a/%d HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n" % number
                sock.sendall(head + bytes(60_000))
                assert sock.recv(1_000).startswith(b"HTTP/1.1 204")
        os.kill(recorder.writer_pid(), signal.SIGCONT)
        assert recorder.stop() == 0
    manifest = recorder.trace().manifest
    assert manifest.lost["queue full"] > 0
    assert manifest.rows + manifest.lost["queue full"] == 3_000
    assert "too slow for the recording" in recorder.printed


def sent(recorder: Recorder, *pieces: bytes) -> bytes:
    """Send pieces on a connection of their own; what comes back until it ends."""
    with socket.create_connection(("127.0.0.1", recorder.port), 20) as sock:
        for piece in pieces:
            sock.sendall(piece)
            time.sleep(0.05)
        sock.shutdown(socket.SHUT_WR)
        back = b""
        while data := sock.recv(65_536):
            back += data
        return back


def test_a_mirror_reads_unusual_requests_as_strictly_as_the_proxy(tmp_path):
    post = b"POST /%b HTTP/1.1\r\nHost: x\r\n"
    with recording(tmp_path / "day.trace", "--mirror") as recorder:
        chunked = post % b"chunked" + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        usual = post % b"usual" + b"Content-Length: 3\r\n\r\nabc"
        assert sent(recorder, usual + chunked + usual, usual).count(b"204 No Content") == 4
        large = post % b"large" + b"Content-Length: 200000\r\n\r\n" + bytes(200_000)
        assert sent(recorder, large).startswith(b"HTTP/1.1 204")
        waits = post % b"waits" + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        assert sent(recorder, waits, b"abc").startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204")
        assert sent(recorder, usual[:30], usual[30:60], usual[60:]).startswith(b"HTTP/1.1 204")
        both = post % b"both" + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc"
        assert sent(recorder, usual + both).count(b"HTTP/1.1 400") == 1
        assert sent(recorder, usual + usual[:-2]).count(b"204 No Content") == 1
        assert b"Connection: close" in sent(recorder, b"GET /old HTTP/1.0\r\nConnection: close\r\n\r\n")
        assert recorder.stop() == 0
    trace = recorder.trace()
    found = sorted(targets(trace))
    assert found == sorted([b"/usual"] * 6 + [b"/chunked", b"/large", b"/waits", b"/old"])
    assert trace.manifest.lost == {"request broke off": 1}
    assert "both Content-Length and Transfer-Encoding 1" in recorder.printed


def test_an_existing_trace_is_refused_before_anything_is_recorded(service, tmp_path):
    with recording(tmp_path / "day.trace", *upstream(service)) as recorder:
        ask(recorder, "/a")
        recorder.stop()
    again = replay("record", "http", "--mirror", "-o", str(recorder.out))
    assert again.returncode == 2
    assert "exists" in again.stderr


def test_a_second_recording_to_the_same_trace_is_refused(tmp_path):
    with recording(tmp_path / "day.trace", "--mirror") as recorder:
        again = replay("record", "http", "--mirror", "--listen", "127.0.0.1:0", "-o", str(recorder.out))
        assert again.returncode == 2
        assert "being written by another recording" in again.stderr
        ask(recorder, "/a")
        assert recorder.stop() == 0
    assert recorder.trace().rows == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("http",), "neither --upstream nor --mirror"),
        (("http", "--mirror", "--upstream", "http://127.0.0.1:1"), "both --mirror and --upstream"),
        (("http", "--mirror", "--keep-responses"), "--keep-responses does not work with --mirror"),
        (("http", "--mirror", "--from", "18:00"), "--from is not for replay record http"),
        (("kafka://127.0.0.1:1/t", "--listen", "127.0.0.1:1"), "--listen is not for kafka://127.0.0.1:1/t"),
        (("http", "--mirror", "--listen", "nowhere"), "is not HOST:PORT"),
        (("http", "--mirror", "--body-limit", "lots"), "--body-limit 'lots'"),
        (("http", "--mirror", "--body-limit", "upload=0"), "is not a route"),
        (("http", "--mirror", "--record-headers", "a b"), "is not a header name"),
        (("http", "--mirror", "--key", "x.pem"), "--key needs --cert"),
        (("http", "--mirror", "--cert", "missing.pem"), "--cert missing.pem"),
        (("http", "--upstream", "http://192.0.2.1"), "--allow 192.0.2.1"),
        (("http", "--upstream", "http://localhost:8080", "--listen", "0.0.0.0:8080"), "a port of its own"),
        (("http", "--upstream", "http://127.0.0.1:9000/api"), "give http://127.0.0.1:9000"),
        (
            ("http", "--upstream", "https://127.0.0.1", "--upstream-ca", "missing.pem"),
            "--upstream-ca missing.pem",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(words, said, tmp_path):
    done = replay("record", *words, "-o", str(tmp_path / "day.trace"))
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
