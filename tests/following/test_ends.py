"""How a followed run ends: a disk that is full, signals with requests on their way, a kill."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from replay.staging.sink import Sink
from replay.trace import Trace
from tests.support.followed import MS_FORMAT, Ended, Followed, line
from tests.support.ports import free_port
from tests.support.waiting import answers, wait_until

pytestmark = [pytest.mark.whole, pytest.mark.timing]

MS = ("--log-format", MS_FORMAT)


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as found:
        yield found


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system that is full but for some pages."""
    folder = tmp_path / "full"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], check=False, capture_output=True
    )
    if made.returncode:
        pytest.skip("this user may not mount a file system")
    (folder / "other").write_bytes(bytes(48 << 10))
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def _lines_written(tmp_path: Path, sink: Sink, *flags: str, count: int = 50) -> Ended:
    path = tmp_path / "a.log"
    path.write_text(line("/before", at_s=time.time() - 60))
    follow = Followed(tmp_path, "a.log", sink.port, *MS, "--delay", "1s", *flags)
    follow.wait_for_plan()
    time.sleep(1)
    with path.open("a") as file:
        for number in range(count):
            file.write(line(f"/items/{number}/{'x' * 300}"))
    wait_until(lambda: sink.arrivals >= count)
    return follow.end()


def test_a_trace_that_cannot_be_kept_costs_the_exit_code(tmp_path: Path, sink: Sink, full_disk: Path) -> None:
    ended = _lines_written(tmp_path, sink, "--keep", "full/kept.trace")
    assert ended.code == 1 and "Traceback" not in ended.err
    assert "full/kept.trace was not made: 50 entries not kept" in ended.err and "no space left" in ended.err
    assert ended.planned == sink.arrivals == 50 and ended.balanced()
    assert ended.run["ending"]["how"] == "whole" and ended.source["kept_dropped"] == 50
    assert [path.name for path in full_disk.iterdir()] == ["other"]


@pytest.mark.parametrize("flag", ["--json", "--html", "--junit", "--markdown"])
def test_a_file_that_was_asked_for_costs_the_exit_code(
    tmp_path: Path, sink: Sink, full_disk: Path, flag: str
) -> None:
    with (full_disk / "rest").open("wb", buffering=0) as rest:
        rest.write(bytes(64 << 10))
    ended = _lines_written(tmp_path, sink, f"{flag}=full/file")
    assert ended.code == 1 and "full/file cannot be written: no space left" in ended.err
    assert ended.planned == 50 and ended.run["ending"]["how"] == "whole"


def test_a_trace_in_a_folder_that_is_not_there_is_refused_before_the_run(tmp_path: Path, sink: Sink) -> None:
    (tmp_path / "a.log").write_text(line("/before"))
    ended = Followed(tmp_path, "a.log", sink.port, *MS, "--keep", "nowhere/x.trace").end(None)
    assert ended.code == 2 and "nowhere/x.trace cannot be written" in ended.err
    assert not (tmp_path / "run").exists()


def _mirrored(port: int, count: int) -> int:
    """Send requests as a proxy does; returns how many were answered."""
    connection, answered = http.client.HTTPConnection("127.0.0.1", port, timeout=10), 0
    for number in range(count):
        try:
            connection.request("POST", f"/{number}", b'{"email": "ann@shop.example", "n": 1}',
                {"Content-Type": "application/json"})  # fmt: skip
            connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            break
        answered += 1
    connection.close()
    return answered


def _unsent(ended: Ended) -> int:
    accounts = ended.run["accounts"]
    return int(sum(count for name, count in accounts.items() if name.startswith("unsent")))


@pytest.mark.parametrize("delay", ["1s", "60s"])
def test_a_signal_loses_no_request_of_a_mirror(tmp_path: Path, sink: Sink, delay: str) -> None:
    """What the mirror was answered for is sent within the grace time, or counted as not due."""
    port, answered = free_port(), []
    follow = Followed(
        tmp_path, "http", sink.port, "--mirror", "--listen", f"127.0.0.1:{port}", "--methods", "all", "--delay",
        delay, "--max-duration", "1h", "--timeout", "1s",
    )  # fmt: skip
    follow.wait_for_plan()
    wait_until(lambda: answers(port))
    client = threading.Thread(target=lambda: answered.append(_mirrored(port, 100_000)))
    client.start()
    time.sleep(0.5)
    ended = follow.end()
    client.join()
    accounts = ended.run["accounts"]
    assert ended.source["entries"] + sum(ended.source["rejected"].values()) in (answered[0], answered[0] + 1)
    assert ended.balanced() and accounts["planned"] == accounts["sent"] + _unsent(ended) == sink.arrivals
    if delay == "1s":
        assert ended.source["not_due"] == 0 and ended.planned == ended.source["entries"] > 0
    else:
        assert ended.planned == 0 and ended.source["not_due"] == ended.source["entries"] > 0
        assert "NOT_DUE" in ended.out
    assert ended.run["ending"]["detail"] == "followed until SIGTERM"


def test_a_killed_run_keeps_the_account_of_its_source(tmp_path: Path, sink: Sink) -> None:
    path = tmp_path / "a.log"
    path.write_text(line("/before", at_s=time.time() - 60))
    follow = Followed(tmp_path, "a.log", sink.port, *MS, "--delay", "2s")
    follow.wait_for_plan()
    time.sleep(1)
    with path.open("a") as file:
        file.write("".join(line(f"/{number}") for number in range(40)))
        file.write(line("/late", at_s=time.time() - 9) * 5 + "garbage\n")
    time.sleep(3.5)
    os.kill(follow.process.pid, signal.SIGKILL)
    follow.process.communicate()
    done = subprocess.run(
        [sys.executable, "-m", "replay.cli", "report", "run"], cwd=tmp_path, check=False, capture_output=True, text=True
    )  # fmt: skip
    document = json.loads((tmp_path / "run" / "run.json").read_text())
    ended = Ended(done.returncode, done.stdout, done.stderr, document)
    assert document["ending"]["how"] == "killed" and "Traceback" not in done.stderr
    assert ended.source["entries"] == 45 and ended.source["late_at_source"] == 5
    assert sum(ended.source["rejected"].values()) == 1 and document["trace"]["rows"] == 45
    assert ended.planned == sink.arrivals == 40 and ended.balanced()
    assert "SOURCE_CUT" in done.stdout
    assert not (tmp_path / "run" / "source.json").exists()


class _Keeps(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))  # type: ignore[attr-defined]
        self.send_response(204)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Nothing."""


def test_rules_for_secrets_are_those_of_import(tmp_path: Path) -> None:
    port = free_port()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Keeps)
    server.bodies = []  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    follow = Followed(
        tmp_path, "http", server.server_port, "--mirror", "--listen", f"127.0.0.1:{port}", "--methods", "all", "--delay",
        "1s", "--scrub", "json:/n=drop", "--scrub", "json:/email=keep", "--scrub", "form:other=drop", "--keep", "k.trace",
    )  # fmt: skip
    follow.wait_for_plan()
    wait_until(lambda: answers(port))
    _mirrored(port, 3)
    time.sleep(1)
    ended = follow.end()
    server.shutdown()
    server.server_close()
    bodies = server.bodies  # type: ignore[attr-defined]
    assert len(bodies) == 3 and all(b"ann@shop.example" in body and b'"n": 1' not in body for body in bodies)
    trace = Trace.open(tmp_path / "k.trace")
    assert trace.requests.body(0) == bodies[0]
    assert {change["name"] for change in trace.manifest.scrubbed} == {"/n"}
    assert "--scrub form:other=drop" in ended.out and "--scrub json:/n=drop" not in ended.out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--scrub", "nowhere:x=drop"), "nowhere"),
        (("--scrub", "json:/n=drop", "--keep-secrets"), "have no effect"),
    ],
)
def test_a_wrong_rule_is_refused_before_the_run(
    tmp_path: Path, sink: Sink, flags: tuple[str, ...], said: str
) -> None:
    (tmp_path / "a.log").write_text(line("/before"))
    ended = Followed(tmp_path, "a.log", sink.port, *MS, *flags).end(None)
    assert ended.code == 2 and said in ended.err and "Traceback" not in ended.err
