"""The live page's server: who gets what, what everyone sees, and what a viewer cannot do to a run."""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from replay.engine.recording import Recording
from replay.engine.sinks import Sink
from replay.errors import UsageError
from replay.ledger.histogram import NS_3, Histogram
from replay.live_page import app, feed
from replay.live_page.history import COLUMNS_MAX, ROWS_MAX, History
from replay.live_page.page import COLUMNS, page
from replay.live_page.sections import SECTIONS
from replay.live_page.server import LiveServer
from replay.live_page.sink import LiveSink
from replay.results.deltas import RunEvent
from replay.results.document import Ending, RouteStart
from replay.results.folder import RunFolder
from replay.results.timeline import Second
from replay.web import listen
from replay_native.ledger import lane_metrics
from tests.support.certificates import Authority
from tests.support.metrics_data import Lane, at_s, started

NASTY = "GET /</script><script>alert(1)</script>\"'&<img src=x onerror=alert(2)>"


@pytest.fixture
def server() -> Iterator[LiveServer]:
    made = LiveServer("127.0.0.1:0")
    made.start()
    try:
        yield made
    finally:
        made.close()


def ask(
    server: LiveServer, path: str = "/", method: str = "GET", key: str | None = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """One request; `key` is the one to send."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    given |= {"Authorization": f"Bearer {key}"} if key is not None else {}
    connection.putrequest(method, path, skip_host="Host" in given, skip_accept_encoding=True)
    for name, value in given.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    is_stream = answer.status == 200 and path.startswith("/stream") and method == "GET"
    content = b"" if is_stream else answer.read()
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, content


class Viewer:
    """Reads the stream."""

    def __init__(self, server: LiveServer, after: int = 0) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        head = {"Authorization": f"Bearer {server.token}"}
        self._connection.request("GET", f"/stream?after={after}", headers=head)
        self._answer = self._connection.getresponse()
        assert self._answer.status == 200

    def lines(self) -> Iterator[dict[str, Any]]:
        """What comes, until the stream ends."""
        while text := self._answer.readline():
            if text.strip():
                yield json.loads(text)

    def numbered(self, count: int) -> list[dict[str, Any]]:
        """The next messages that have a number."""
        found = []
        for message in self.lines():
            found += [message] if "id" in message else []
            if len(found) == count:
                break
        return found

    def leave(self) -> None:
        """Cut the connection."""
        self._connection.close()


def run_into(folder: Path, sink: Sink, seconds: int = 5, **more: Any) -> list[bytes]:
    """A run by the recorder with this sink; the lines of its timeline.jsonl."""
    start = started(**more)
    made = RunFolder.create(folder)
    metrics = lane_metrics.create(made.lane(0), len(start.routes), lane_metrics.ARENA_BYTES, 0)
    lane = Lane(metrics)
    recording = Recording(made, [metrics], start, [sink])
    for second in range(seconds):
        lane.many(40, seed=second)
        lane.request(1, "reset", service_ms=120)
        recording.tick(at_s(second + 1))
    recording.finish(at_s(seconds + 0.5))
    return (folder / "timeline.jsonl").read_bytes().splitlines()


REFUSED = [
    (421, {"Host": "evil.example"}),
    (421, {"Host": "127.0.0.1.evil.example"}),
    (421, {"Host": "10.1.2.3:80"}),
    (421, {"Host": ""}),
    (403, {"Origin": "http://evil.example"}),
    (403, {"Origin": "null"}),
    (403, {"Origin": "https://127.0.0.1"}),
]


@pytest.mark.parametrize(("status", "headers"), REFUSED)
@pytest.mark.parametrize("path", ["/", "/stream"])
def test_another_host_and_another_origin_are_refused(
    server: LiveServer, status: int, headers: dict[str, str], path: str
) -> None:
    found, given, content = ask(server, path, key=server.token, **headers)
    assert found == status
    assert server.token.encode() not in content
    assert "default-src 'none'" in given["content-security-policy"]


def test_names_of_this_machine_are_taken_whatever_the_port_is(server: LiveServer) -> None:
    for host in ("localhost", "LOCALHOST:9", "127.0.0.1:8089", "[::1]:1", f"127.0.0.1:{server.port}"):
        assert ask(server, Host=host)[0] == 200, host
        assert ask(server, Host=host, Origin=f"http://{host}")[0] == 200, host


def test_the_stream_needs_the_key_in_a_header(server: LiveServer) -> None:
    assert ask(server, "/stream")[0] == 401
    assert ask(server, "/stream", key="")[0] == 401
    assert ask(server, "/stream", key=server.token[:-1])[0] == 401
    assert ask(server, f"/stream?token={server.token}&key={server.token}")[0] == 401
    assert ask(server, "/stream", Cookie=f"token={server.token}")[0] == 401
    assert ask(server, "/stream", key=server.token, Sec_Fetch_Site="cross-site")[0] == 403
    assert ask(server, "/stream", key=server.token, Sec_Fetch_Site="same-origin")[0] == 200
    assert ask(server, "/stream?after=-1", key=server.token)[0] == 400


@pytest.mark.parametrize(
    "path",
    ["/../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/stream/", "//etc/passwd", "/page.css", "/run.json"],
)
def test_there_is_nothing_else_to_be_had(server: LiveServer, path: str) -> None:
    assert ask(server, path, key=server.token)[0] in (400, 404)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
def test_it_can_only_be_read(server: LiveServer, method: str) -> None:
    assert ask(server, "/", method)[0] == 405
    assert ask(server, "/stream", method, key=server.token)[0] == 405


def test_the_page_is_self_contained_and_holds_nothing_secret(server: LiveServer) -> None:
    status, headers, content = ask(server)
    assert status == 200
    assert server.token.encode() not in content
    assert not {"set-cookie", "server"} & headers.keys()
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"
    policy = headers["content-security-policy"]
    assert "unsafe" not in policy and "connect-src 'self'" in policy and "frame-ancestors 'none'" in policy
    assert not re.search(rb"""(?:src|href)=["'](?!data:)""", content.split(b"<style>")[0])
    assert b"http://" not in content.replace(b"http://www.w3.org/2000/svg", b"")
    assert not set(COLUMNS) - set(Second.__struct_fields__)
    assert all(f'id="s-{name}"'.encode() in content for name in SECTIONS)
    assert page()[0] == content


def test_everyone_sees_the_whole_run_and_its_rows_are_those_of_the_timeline(
    server: LiveServer, tmp_path: Path
) -> None:
    early = Viewer(server)
    rows = run_into(tmp_path / "run", LiveSink(server.feed))
    late = Viewer(server)
    seen = [viewer.numbered(8) for viewer in (early, late)]
    assert seen[0] == seen[1]
    assert [next(iter(message.keys() - {"id"})) for message in seen[0]] == ["start", *["second"] * 6, "end"]
    assert [message["second"]["row"] for message in seen[0][1:-1]] == [json.loads(row) for row in rows]
    raw = b"".join(server.feed.messages_after(0, 100)[0])
    assert all(row in raw for row in rows)


def test_a_viewer_that_lost_its_connection_misses_nothing(server: LiveServer, tmp_path: Path) -> None:
    run_into(tmp_path / "run", LiveSink(server.feed))
    viewer = Viewer(server)
    before = viewer.numbered(4)
    viewer.leave()
    after = Viewer(server, before[-1]["id"]).numbered(4)
    assert [message["id"] for message in before + after] == list(range(1, 9))


def test_lines_that_are_not_kept_are_counted(server: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "MESSAGES_MAX", 3)
    small = feed.Feed()
    for number in range(10):
        small.append("n", str(number).encode())
    messages, last, lost = small.messages_after(2, 100)
    assert (lost, last) == (5, 10)
    assert [json.loads(message)["n"] for message in messages] == [7, 8, 9]
    assert small.messages_after(last, 100) == ([], 10, 0)
    assert small.messages_after(99, 100)[2] == 7, "numbers of an earlier server count from the start again"


def test_the_end_is_told_and_the_port_is_closed(tmp_path: Path) -> None:
    server = LiveServer("127.0.0.1:0")
    server.start()
    run_into(tmp_path / "run", LiveSink(server.feed))
    viewer = Viewer(server)
    closing = threading.Thread(target=server.close)
    closing.start()
    assert list(viewer.lines())[-1] == {"over": True}
    closing.join()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), 1)


def test_names_of_others_are_escaped_in_every_section(server: LiveServer, tmp_path: Path) -> None:
    run_into(
        tmp_path / "run", LiveSink(server.feed), routes=[NASTY, "POST /b", "GET /c"], target=f"http://{NASTY}"
    )
    drawn = json.loads(server.feed.sections_after(0)[0])["sections"]
    live = "".join(drawn.values())
    assert "alert(1)" in live
    assert "<script>alert" not in live and "<img" not in live
    assert " onerror" not in re.sub(r"&[a-z#0-9]+;.*?&[a-z#0-9]+;", "", live) or "&lt;img src" in live


def test_a_viewer_that_never_reads_delays_nobody(server: LiveServer) -> None:
    stuck = socket.create_connection(("127.0.0.1", server.port))
    stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    head = f"GET /stream HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {server.token}\r\n\r\n"
    stuck.sendall(head.encode())
    longest_s = 0.0
    for number in range(200):
        begin_s = time.monotonic()
        server.feed.append("n", b'"%s"' % (b"x" * 50_000))
        longest_s = max(longest_s, time.monotonic() - begin_s)
        if number == 100:
            assert ask(server)[0] == 200
    assert Viewer(server).numbered(200)[-1]["id"] == 200
    assert longest_s < 1
    stuck.close()


def test_viewers_that_leave_are_forgotten_and_too_many_are_refused(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "VIEWERS_MAX", 3)
    server.feed.append("n", b"1")
    viewers = [Viewer(server) for _ in range(3)]
    assert [viewer.numbered(1)[0]["n"] for viewer in viewers] == [1, 1, 1]
    assert ask(server, "/stream", key=server.token)[0] == 503
    for viewer in viewers:
        viewer.leave()
    until = time.monotonic() + 10
    while server.feed.viewers and time.monotonic() < until:
        server.feed.append("n", b"2")
        time.sleep(0.02)
    assert server.feed.viewers == 0


def test_a_port_in_use_and_an_address_of_others_are_named(server: LiveServer) -> None:
    with pytest.raises(UsageError, match=f"127.0.0.1:{server.port} is in use"):
        LiveServer(f"127.0.0.1:{server.port}")
    with pytest.raises(UsageError, match=r"192\.0\.2\.1:9 cannot be listened on"):
        LiveServer("192.0.2.1:9")


def test_with_a_certificate_it_speaks_tls(authority: Authority, tmp_path: Path) -> None:
    identity = authority.issue()
    server = LiveServer("127.0.0.1:0", cert=str(identity.cert), key=str(identity.key))
    server.start()
    try:
        assert server.link.startswith("https://127.0.0.1:")
        assert not server.is_open_to_others
        context = ssl.create_default_context(cafile=str(authority.path))
        link = urlsplit(server.link)
        connection = http.client.HTTPSConnection("127.0.0.1", link.port, context=context, timeout=10)
        connection.request("GET", "/", headers={"Origin": f"https://127.0.0.1:{link.port}"})
        assert connection.getresponse().status == 200
        connection.close()
    finally:
        server.close()
    (tmp_path / "broken.pem").write_text("no certificate")
    with pytest.raises(UsageError, match=r"broken\.pem cannot be used"):
        LiveServer("127.0.0.1:0", cert=str(tmp_path / "broken.pem"))


def test_actions_outcomes_events_and_the_plan_are_shown_while_it_goes(tmp_path: Path) -> None:
    made = feed.Feed()
    sink = LiveSink(made)
    made.viewers = 1
    named = [
        RouteStart("GET /a", action="browsing"),
        RouteStart("POST /b", action="registration"),
        RouteStart("GET /c"),
    ]
    start = started(named=named, slo=["p50<1us"], plan={"rows": 500, "length_ns": 5_000_000_000})
    folder = RunFolder.create(tmp_path / "run")
    metrics = lane_metrics.create(folder.lane(0), 3, lane_metrics.ARENA_BYTES, 0)
    lane, recording = Lane(metrics), Recording(folder, [metrics], start, [sink])
    for second in range(12):
        lane.many(40, seed=second)
        lane.unsent(1)
        events = [RunEvent(second + 0.5, "address", f"svc is now at <{second}>")] if second == 3 else []
        recording.tick(at_s(second + 1), events=events)
    drawn = json.loads(made.sections_after(0)[0])["sections"]
    assert "RUNNING" in drawn["headline"] and "480 of 500 requests sent" in drawn["headline"]
    assert "p50&lt;1us is in breach" in drawn["headline"]
    assert "registration" in drawn["actions"] and "browsing" in drawn["actions"]
    assert "unsent (max wait 12)" in drawn["outcomes"]
    assert "svc is now at &lt;3&gt;" in drawn["events"] and "breach of p50&lt;1us" in drawn["events"]
    assert "500" in drawn["plan"]
    charts = {name for name, text in drawn.items() if "<figure>" in text}
    assert charts >= {
        "heat-response", "heat-service", "heat-lateness", "rates", "statuses", "failed", "lag", "percentiles", "route-heat",
    }  # fmt: skip
    recording.tick(at_s(12.5), last=True, events=[RunEvent(12.5, "circuit_breaker", "too many failed")])
    recording.finish(at_s(12.5), ending=Ending(how="circuit_breaker", detail="too many failed", at_s=12.5))
    ended = json.loads(made.sections_after(0)[0])["sections"]
    assert "too many failed" in ended["events"]
    assert "Accounts" in ended["report"] and not ended["routes"]


def test_watched_figures_are_drawn_while_the_run_goes_and_after_its_end(tmp_path: Path) -> None:
    made = feed.Feed()
    made.viewers = 1
    folder = RunFolder.create(tmp_path / "run")
    metrics = lane_metrics.create(folder.lane(0), 3, lane_metrics.ARENA_BYTES, 0)
    lane, recording = Lane(metrics), Recording(folder, [metrics], started(), [LiveSink(made)])
    for second in range(4):
        lane.many(40, seed=second)
        samples = {NASTY: float(second), "pods": 0.0, "degrees": -5.0 - second, "gone": None}
        recording.tick(at_s(second + 1), watched=samples)
    drawn = json.loads(made.sections_after(0)[0])["sections"]
    assert drawn["watched"].count("<figure>") == 3, "a figure that is 0 or below is drawn, too"
    assert "Watched: gone" in drawn["watched"] and "no sample" in drawn["watched"]
    assert "<script>alert" not in drawn["watched"]
    recording.tick(at_s(4.5), last=True, watched={NASTY: 4.0, "pods": 0.0, "degrees": None, "gone": None})
    recording.finish(at_s(4.5))
    assert json.loads(made.sections_after(0)[0])["sections"]["watched"].count("<figure>") == 3


def test_a_long_run_takes_bounded_memory_and_keeps_its_beginning() -> None:
    history = History()
    for number in range(5_000):
        row = Second(
            t_s=float(number), length_s=1.0, wall_ns=0, planned=1, sent=1, ok=1, error=0, timeout=0, unsent=0, in_flight=0,
            waiting=0, open=1, bytes_sent=0, bytes_received=0, outcomes={"2xx": 1}, response_p99_ns=number,
            watched={"queue": 90.0 if number == 3_333 else None if number % 2 else 1.0},
        )  # fmt: skip
        history.add(row, retries=2)
        counts = np.zeros(NS_3.length, np.uint64)
        counts[5 + number % 3] = 7
        history.add_column("response", float(number), Histogram(counts))
    assert len(history.rows) <= ROWS_MAX and len(history.heat("response")) <= COLUMNS_MAX
    assert history.rows[0].t_s == 0.0 and history.end_s == 5_000.0
    assert sum(row.ok for row in history.rows) == 5_000 and sum(history.retries) == 10_000
    assert sum(int(counts.sum()) for _, _, counts in history.heat("response")) == 35_000
    assert max(row.response_p99_ns or 0 for row in history.rows) == 4_999
    assert max(row.watched["queue"] or 0.0 for row in history.rows) == 90.0, "a peak of one second stays"


def test_before_the_first_second_it_says_when_the_first_request_is_due() -> None:
    made = feed.Feed()
    sink = LiveSink(made)
    sink.waiting("Planning the run.")
    assert "Planning the run" in json.loads(made.sections_after(0)[0])["sections"]["headline"]
    sink.start(started())
    assert "STARTING" in json.loads(made.sections_after(0)[0])["sections"]["headline"]


def test_a_viewer_that_never_reads_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "USER_TIMEOUT_S", 1)
    server = LiveServer("127.0.0.1:0")
    server.start()
    stuck = socket.socket()
    try:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        stuck.connect(("127.0.0.1", server.port))
        head = f"GET /stream HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {server.token}\r\n\r\n"
        stuck.sendall(head.encode())
        until = time.monotonic() + 30
        while not server.feed.viewers and time.monotonic() < until:
            time.sleep(0.02)
        for _ in range(300):
            server.feed.append("n", b'"%s"' % (b"x" * 50_000))
        while server.feed.viewers and time.monotonic() < until:
            time.sleep(0.1)
        assert server.feed.viewers == 0
    finally:
        stuck.close()
        server.close()
