"""Watched figures by the real command: sampled, reported, and never in the way of a run."""

from __future__ import annotations

import csv
import http.server
import json
import os
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio

import replay
from replay.errors import LimitError, UsageError
from replay.plan.safety import allowed_hosts
from replay.settings.file import load
from replay.settings.groups.output import Watch
from replay.staging.sink import Sink as Target
from replay.watching.sampler import Sampler
from replay.watching.sources import SampleError, source_of

NOBODY = allowed_hosts(())


class Handler(http.server.BaseHTTPRequestHandler):
    """A service's own figures, a Prometheus server, and sources that misbehave."""

    asked = 0
    """How often the figures were asked for: the queue is long from the eighth sample on."""

    def do_GET(self) -> None:
        Handler.asked += self.path.startswith("/stats")
        late = Handler.asked > 7
        query = self.path.partition("query=")[2]
        results = {
            "up": [{"value": [0, "1"]}],
            "two": [{"value": [0, "1"]}] * 2,
            "nan": [{"value": [0, "NaN"]}],
        }
        bodies: dict[str, Any] = {
            "/stats": {"queue": {"length": 90 if late else 2}, "a/b": ["7", None], "big": "x", "on": True},
            "/api/v1/query": {
                "status": "success", "data": {"resultType": "vector", "result": results.get(query, [])},
            },
        }  # fmt: skip
        path = self.path.partition("?")[0]
        if path == "/away":
            self.send_response(302)
            self.send_header("Location", "/stats")
            self.end_headers()
            return
        if path == "/hangs":
            time.sleep(30)
        body = (
            b"<html>"
            if path == "/html"
            else b" " * (2 << 20)
            if path == "/huge"
            else json.dumps(bodies.get(path, {})).encode()
        )
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def stats() -> Iterator[str]:
    Handler.asked = 0
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def place() -> Iterator[str]:
    with stats() as url:
        yield url


@pytest.mark.parametrize(
    ("fields", "value"),
    [
        ({"json": "/stats", "pointer": "/a~1b/0"}, 7.0),
        ({"json": "/stats", "pointer": "/on"}, 1.0),
        ({"prometheus": "", "query": "up"}, 1.0),
        ({"command": "echo 12.5 apples"}, 12.5),
    ],
)
def test_a_sample_is_a_number(place: str, fields: dict[str, str], value: float) -> None:
    given: dict[str, Any] = {
        key: place + text if key in ("json", "prometheus") else text for key, text in fields.items()
    }
    assert source_of(Watch(name="x", **given), NOBODY)() == value


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"json": "/stats", "pointer": "/queue"}, "is not a number"),
        ({"json": "/stats", "pointer": "/a~1b/1"}, "is not a number"),
        ({"json": "/stats", "pointer": "/big"}, "is not a number"),
        ({"json": "/stats", "pointer": "/none"}, "has no /none"),
        ({"json": "/html"}, "did not answer with JSON"),
        ({"json": "/huge"}, "more than 1 MiB"),
        ({"json": "/away"}, "answered 302"),
        ({"json": "/hangs"}, "timed out"),
        ({"prometheus": "", "query": "two"}, "has 2 results"),
        ({"prometheus": "", "query": "none"}, "has no result"),
        ({"prometheus": "", "query": "nan"}, "is not a finite number"),
        ({"command": "echo none"}, "printed no number"),
        ({"command": "false"}, "exit code 1"),
        ({"command": "sleep 30"}, "took more than 2 s"),
        ({"command": "/no/such/program"}, "cannot be run: no such file"),
    ],
)
def test_what_is_no_number_is_a_reason(place: str, fields: dict[str, str], words: str) -> None:
    given: dict[str, Any] = {
        key: place + text if key in ("json", "prometheus") else text for key, text in fields.items()
    }
    with pytest.raises(SampleError, match=words):
        source_of(Watch(name="x", **given), NOBODY)()


def test_a_host_that_is_not_allowed_is_not_asked() -> None:
    asked: list[str] = []

    class Nobody:
        def check(self, host: str, addresses: Any) -> None:
            asked.append(host)
            raise LimitError("no")

    with pytest.raises(
        SampleError, match=r"192\.0\.2\.1 is beyond this machine and not allowed; to allow it: --allow"
    ):
        source_of(Watch(name="x", json="http://192.0.2.1/stats"), Nobody())()
    assert asked == ["192.0.2.1"]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ('name = "x"', "no source"),
        ('name = "x"\njson = "http://127.0.0.1/"\ncommand = "date"', "has json and command"),
        ('json = "http://127.0.0.1/"', "the key name is missing"),
        ('name = "x"\nprometheus = "http://127.0.0.1/"', "prometheus and query belong together"),
        ('name = "x"\ngroup = "billing"', "group and brokers belong together"),
        ('name = "x"\ncommand = "ls"\nbrokers = "kafka://127.0.0.1"', "group and brokers belong together"),
        ('name = "x"\ngroup = "billing"\nbrokers = "127.0.0.1:9092"', "is not a Kafka URL"),
        ('name = "x"\ngroup = "billing"\nbrokers = "kafka://a:b@127.0.0.1"', "has credentials in it"),
        (
            'name = "x"\ngroup = "billing"\nmembers = true\nbrokers = "kafka://127.0.0.1"',
            "members needs json",
        ),
        ('name = "x"\njson = "127.0.0.1/stats"', "not an http or https URL"),
        ('name = "x"\njson = "http://me:secret@127.0.0.1/"', "credentials"),
        ('name = "x"\njson = "http://127.0.0.1/"\npointer = "queue"', "not a JSON Pointer"),
        ('name = "x"\njson = "http://127.0.0.1/"\npionter = "/queue"', "pointer"),
    ],
)
def test_a_wrong_table_is_refused_with_its_place(tmp_path: Path, table: str, words: str) -> None:
    path = tmp_path / "day.toml"
    path.write_text(f"[[watch]]\n{table}\n")
    with pytest.raises(UsageError) as refused:
        load(path)
    message = f"{refused.value} {refused.value.hint}"
    assert "watch" in message and words in message and "secret" not in message


def running(mark: str) -> list[str]:
    """The processes with a word in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = path.read_bytes().split(b"\0")
            found += [path.parent.name] if mark.encode() in words else []
    return found


def is_gone(mark: str) -> bool:
    """Whether no process has the word any more; one that was killed takes a moment to go."""
    deadline = time.monotonic() + 20
    while running(mark) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not running(mark)


def test_a_command_that_takes_too_long_is_ended_with_what_it_started() -> None:
    sample = source_of(Watch(name="x", command="sh -c 'sleep 61.25; echo 3'"), NOBODY)
    with pytest.raises(SampleError, match="more than 2 s"):
        sample()
    assert is_gone("61.25")


def test_a_command_that_prints_without_end_takes_no_memory() -> None:
    sample = source_of(Watch(name="x", command="yes 5"), NOBODY)
    tracemalloc.start()
    try:
        with pytest.raises(SampleError, match="more than 2 s"):
            sample()
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert source_of(Watch(name="x", command="seq 7 300000"), NOBODY)() == 7.0


def test_a_command_does_not_outlive_the_run() -> None:
    sampler = Sampler([Watch(name="x", command="sh -c 'sleep 62.25; echo 3'")], NOBODY)

    async def some_time() -> None:
        with trio.move_on_after(0.7):
            await sampler.run()

    trio.run(some_time)
    assert is_gone("62.25")


@pytest.mark.whole
@pytest.mark.timing
def test_a_run_records_what_it_watches(tmp_path: Path) -> None:
    log, out = tmp_path / "access.log", tmp_path / "run"
    log.write_text(
        "".join(
            f"10.0.0.{n % 9} - - [10/Oct/2025:13:55:{n // 10:02d} +0000]"
            f' "GET /sink/delay_ms={300 if n > 100 else 0} HTTP/1.1" 200 12\n'
            for n in range(130)
        )
    )
    with Target() as target, stats() as url:
        (tmp_path / "day.toml").write_text(
            f'target = "http://127.0.0.1:{target.port}"\ntrace = "access.log"\nslo = ["p99<100ms"]\n'
            f'[[watch]]\nname = "queue"\njson = "{url}/stats?token=abc"\npointer = "/queue/length"\n'
            f'[[watch]]\nname = "hung"\njson = "{url}/hangs"\n'
            '[[watch]]\nname = "shell"\ncommand = "echo 5 secret-word"\n'
        )
        done = subprocess.run(
            [sys.executable, "-m", "replay.cli", "run", str(tmp_path / "day.toml"), "-o", str(out), "--plain", "--html",
             "--sink", f"csv={tmp_path / 'seconds.csv'}"],
            capture_output=True, text=True, timeout=200, check=False, env=os.environ | {"COLUMNS": "80"},
        )  # fmt: skip
    assert done.returncode in (99, 4), done.stdout + done.stderr
    document = json.loads((out / "run.json").read_text())
    assert document["accounts"]["ok"] == 130
    rows = [json.loads(line) for line in (out / "timeline.jsonl").read_text().splitlines()]
    for name, values in document["watched"].items():
        assert values == [row["watched"][name] for row in rows]
    queue = [value for value in document["watched"]["queue"] if value is not None]
    assert set(queue) == {2.0, 90.0} and len(queue) >= len(rows) - 3
    assert set(document["watched"]["shell"]) <= {5.0, None} and set(document["watched"]["hung"]) == {None}
    with (tmp_path / "seconds.csv").open() as file:
        cells = [line["watched queue"] for line in csv.DictReader(file)]
    assert cells == ["" if value is None else str(value) for value in document["watched"]["queue"]]
    table = replay.load(out).timeline()
    for name, values in document["watched"].items():
        assert table[f"watched.{name}"].to_pylist() == values
    watches = {watch["name"]: watch for watch in document["watches"]}
    assert watches["hung"]["failed"] >= 3 and "timed out" in watches["hung"]["reason"]
    assert document["watched_first"].startswith("queue changed first")
    shown = " ".join(done.stdout.split())
    assert "queue: 2 at the start, 90 at the end, from 2 to 90" in shown and "queue changed first" in shown
    page = (out / "report.html").read_text()
    assert "Watched: queue" in page
    saved = (out / "run.json").read_text()
    assert "token=abc" not in saved and "secret-word" not in saved
