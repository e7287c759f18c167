"""Sources of other kinds: tables, JSON, recordings with bodies, mirrored requests."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from replay.trace import Trace
from tests.support.followed import MS_FORMAT, Followed, line
from tests.support.ports import free_port
from tests.support.waiting import answers, wait_until

pytestmark = [pytest.mark.whole, pytest.mark.timing]

Seen = list[tuple[float, str, str, dict[str, str], bytes]]


class _Service(ThreadingHTTPServer):
    """A target that keeps what it got."""

    def __init__(self) -> None:
        self.seen: Seen = []
        super().__init__(("127.0.0.1", 0), _Handler)

    def targets(self) -> list[str]:
        """Sorted: requests of different connections may be seen in any order."""
        return sorted(seen[2] for seen in self.seen)

    def wait_for(self, count: int) -> None:
        wait_until(lambda: len(self.seen) >= count)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        assert isinstance(self.server, _Service)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.seen.append((time.time(), self.command, self.path, headers, body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST = do_PUT = _answer

    def log_message(self, *arguments: object) -> None:
        """Nothing."""


@pytest.fixture
def service() -> Iterator[_Service]:
    server = _Service()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_table_is_followed_over_a_rotation(tmp_path: Path, service: _Service) -> None:
    """The header of each file names the columns; only the first one is read."""
    path, header = tmp_path / "a.csv", "at,path,status\n"

    def row(target: str) -> str:
        return f"{time.time():.6f},{target},200\n"

    path.write_text(header + row("/before"))
    follow = Followed(tmp_path, "a.csv", service.server_port)
    follow.wait_for_plan()
    for number in range(20):
        if number == 10:
            path.rename(tmp_path / "a.csv.1")
            path.write_text(header)
        with path.open("a") as file:
            file.write(row(f"/{number}"))
        time.sleep(0.02)
    service.wait_for(20)
    ended = follow.end()
    assert ended.source["format"] == "csv" and ended.source["rejected"] == {}
    assert service.targets() == sorted(f"/{number}" for number in range(20))


def test_json_lines_are_followed(tmp_path: Path, service: _Service) -> None:
    path = tmp_path / "a.jsonl"

    def row(target: str) -> str:
        at_s = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at_s)) + f".{int(at_s % 1 * 1000):03d}Z"
        return json.dumps({"time": stamp, "method": "GET", "path": target, "status": 200}) + "\n"

    path.write_text(row("/before"))
    follow = Followed(tmp_path, "a.jsonl", service.server_port)
    follow.wait_for_plan()
    path.open("a").write(row("/one") + "garbage\n" + row("/two"))
    service.wait_for(2)
    ended = follow.end()
    assert service.targets() == ["/one", "/two"]
    assert sum(ended.source["rejected"].values()) == 1 and "LINES_REJECTED" in ended.out


def _payload(number: int, body: bytes) -> bytes:
    head = f"1 {number:024x} {time.time_ns()} 0\n".encode()
    message = (
        b"POST /orders/%d HTTP/1.1\r\nHost: shop.example\r\nContent-Type: application/json\r\nX-Tenant: t%d\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (number, number % 2, len(body), body)
    )
    return head + message + "\n🐵🙈🙉\n".encode()


def test_a_recording_with_bodies_is_followed(tmp_path: Path, service: _Service) -> None:
    path = tmp_path / "a.gor"
    path.write_bytes(_payload(0, b"{}"))
    follow = Followed(
        tmp_path, "a.gor", service.server_port, "--methods", "all", "--send-headers", "x-tenant", "--keep", "kept.trace"
    )  # fmt: skip
    follow.wait_for_plan()
    bodies = [json.dumps({"order": number}).encode() for number in range(1, 30)]
    for number, body in enumerate(bodies, 1):
        with path.open("ab") as file:
            file.write(_payload(number, body))
        time.sleep(0.01)
    service.wait_for(29)
    ended = follow.end()
    assert ended.planned == 29 and ended.balanced()
    expected = {f"/orders/{number}": body for number, body in enumerate(bodies, 1)}
    assert {seen[2]: seen[4] for seen in service.seen} == expected
    assert {seen[3]["x-tenant"] for seen in service.seen} == {"t0", "t1"}
    assert {seen[3]["content-type"] for seen in service.seen} == {"application/json"}
    trace = Trace.open(tmp_path / "kept.trace")
    assert trace.requests.body(0) == bodies[0] and trace.rows == 29


def test_mirrored_requests_are_followed(tmp_path: Path, service: _Service) -> None:
    port = free_port()
    follow = Followed(
        tmp_path, "http", service.server_port, "--mirror", "--listen", f"127.0.0.1:{port}", "--methods", "all", "--delay",
        "1s", "--scale", "2", "--grow", "sessions",
    )  # fmt: skip
    follow.wait_for_plan()
    wait_until(lambda: answers(port))
    connection = http.client.HTTPConnection("127.0.0.1", port)
    sent_s = []
    for number in range(20):
        sent_s.append(time.time())
        body = b"body %d" % number
        connection.request(
            "POST", f"/{number}", body, {"Content-Type": "text/plain", "X-Forwarded-For": f"10.1.1.{number}"}
        )
        assert connection.getresponse().read() == b""
        time.sleep(0.02)
    service.wait_for(40)
    ended = follow.end()
    assert ended.planned == len(service.seen) == 40 and ended.source["copies"] == 20
    assert ended.source["format"] == "mirror" and ended.source["late_at_source"] == 0
    first = {seen[2]: seen for seen in sorted(service.seen, reverse=True)}
    for number, at_s in enumerate(sent_s):
        seen = first[f"/{number}"]
        assert seen[4] == b"body %d" % number and seen[3]["content-type"] == "text/plain"
        assert seen[0] - at_s > 0.95


def test_a_live_page_shows_a_followed_run(tmp_path: Path, service: _Service) -> None:
    (tmp_path / "a.log").write_text(line("/before"))
    follow = Followed(
        tmp_path, "a.log", service.server_port, "--log-format", MS_FORMAT, "--live=127.0.0.1:0", "--only", "GET *",
        "--sample", "50%", "--scale", "2",
    )  # fmt: skip
    follow.wait_for_error("live page: ")
    follow.wait_for_plan()
    ended = follow.end()
    link = ended.err.split("live page: ")[1].split()[0]
    assert link.startswith("http://127.0.0.1:")
    shown = {" ".join(row.split()) for row in ended.out.splitlines()}
    assert {"only GET *", "sample 50%, drawn by request", "scale 2; grows requests"} <= shown


def test_a_kept_trace_with_secrets_says_so_and_is_private(tmp_path: Path, service: _Service) -> None:
    for flags, keeps in (((), False), (("--keep-secrets",), True)):
        (tmp_path / "a.log").write_text(line("/before"))
        name = f"{keeps}.trace"
        folder = tmp_path / str(keeps)
        folder.mkdir()
        given = ("--log-format", MS_FORMAT, "--keep", name, *flags)
        follow = Followed(folder, "../a.log", service.server_port, *given)
        follow.wait_for_plan()
        time.sleep(0.5)
        with (tmp_path / "a.log").open("a") as file:
            file.write(line("/a?token=0123456789ab"))
        time.sleep(1)
        follow.end()
        trace = Trace.open(folder / name)
        assert trace.manifest.options["keep_secrets"] is keeps
        assert bool(trace.manifest.secrets_by_name) is not keeps
        assert (trace.requests.get(0).target == b"/a?token=0123456789ab") is keeps
        assert (trace.path.stat().st_mode & 0o077 == 0) is keeps


def test_what_means_nothing_while_following_is_refused(tmp_path: Path, service: _Service) -> None:
    (tmp_path / "a.log").write_text(line("/"))
    (tmp_path / "later.toml").write_text('start_at = "+10m"\n')
    for flags, said in (
        (("a.log", "--start-at", "+5s"), "--start-at"),
        (("a.log", "--scenario", "later.toml"), "--start-at is not for a source that is followed"),
        (("a.log", "--acks", "all"), "--acks"),
    ):
        ended = Followed(tmp_path, flags[0], service.server_port, *flags[1:]).end(None)
        assert ended.code == 2 and said in ended.err, ended.err


def test_what_a_mirror_needs_is_said(tmp_path: Path, service: _Service) -> None:
    port = service.server_port
    for flags, said in (
        (("http",), "needs --mirror and --listen"),
        (("http", "--mirror", "--listen", f"127.0.0.1:{port}"), "is where the mirror listens"),
        (("a.log", "--mirror"), "SOURCE http belong together"),
        (("kafka://127.0.0.1:1/topic",), "cannot be followed"),
    ):
        (tmp_path / "a.log").write_text(line("/"))
        ended = Followed(tmp_path, flags[0], port, *flags[1:]).end(None)
        assert ended.code == 2 and said in ended.err, ended.err
