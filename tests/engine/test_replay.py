"""The whole way by the real command: a log in, a run folder out, and the receiver as the witness."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import replay
from replay.results.hlog import read_hlog
from replay.staging.sink import Sink
from tests.conftest import Java, read_by_java
from tests.support.places import SHARED_TRACES
from tests.support.waiting import wait_until

pytestmark = pytest.mark.whole

NASA = SHARED_TRACES / "nasa-http-1995-08-01.log"
KILLS = 20 if os.environ.get("CI") == "true" else 2
KILLS_AT_ONCE = 4


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "replay.cli", *map(str, arguments)]


def run(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=120, check=False, cwd=cwd
    )


def document(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return found


def balances(accounts: dict[str, int]) -> bool:
    return (
        accounts["planned"] == accounts["sent"] + accounts["unsent"]
        and accounts["sent"]
        == accounts["ok"] + accounts["error"] + accounts["timeout"] + accounts["in_flight"]
    )


def is_blameless(result: dict[str, Any]) -> bool:
    """Not invalid, or only since this machine had no time for it: that is never the target's doing."""
    codes = {reason["code"] for reason in result["validity"]["reasons"]}
    return result["validity"]["verdict"] != "INVALID" or "CPU_CONTENDED" in codes


@pytest.fixture
def sink():
    with Sink(capacity=200_000) as sink:
        yield sink


def steady_log(path: Path) -> Path:
    """A log of ten a second for a minute, of three routes."""
    lines = [
        f"10.0.0.{i % 7} - - [01/Jan/2020:18:{i // 600:02}:{i // 10 % 60:02} +0000]"
        f' "GET /{"abc"[i % 3]}?n={i} HTTP/1.1" 200 5'
        for i in range(600)
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def steady(tmp_path: Path) -> Path:
    return steady_log(tmp_path / "steady.log")


@pytest.mark.timing
def test_a_recorded_day_arrives_as_it_was_recorded(sink, tmp_path):
    if not NASA.exists():
        pytest.skip(f"the recording is not here: {NASA.name}")
    done = run("import", NASA, "-o", tmp_path / "nasa.trace")
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "nasa.trace" / "manifest.json").read_text())
    assert (manifest["rows"], manifest["rejected"]) == (30_969, {})

    out = tmp_path / "run"
    done = run(
        "run", tmp_path / "nasa.trace", "--target", f"http://127.0.0.1:{sink.port}", "--speed", 6_000,
        "--methods", "all", "--empty-bodies", "-o", out, "--quiet",
    )  # fmt: skip
    assert done.returncode in (0, 4), done.stderr
    result = document(out)
    assert result["accounts"]["planned"] == result["accounts"]["ok"] == 30_969
    assert balances(result["accounts"])

    trace = replay.open(tmp_path / "nasa.trace")
    recorded_ns = np.concatenate([batch.at_ns for batch in trace.batches()])
    due_ns = result["start"]["monotonic_ns"] + (recorded_ns - recorded_ns[0]) / 6_000
    stamps = sink.stamps()
    assert np.array_equal(np.sort(stamps["seq"][stamps["seq"] >= 0]), np.arange(30_969))
    late_ns = stamps["arrival_ns"] - due_ns[stamps["seq"]]
    assert late_ns.min() > -100_000, "nothing arrives before it is due"
    assert np.median(late_ns) < 50_000_000


@pytest.mark.timing
def test_a_log_is_replayed_directly_and_reported(sink, steady, tmp_path):
    done = run(
        "run", steady, "--target", f"http://127.0.0.1:{sink.port}", "--speed", 60, "-o", tmp_path / "r"
    )
    assert done.returncode in (0, 4), done.stderr
    assert done.stdout.count("Traceback") == 0
    assert "600" in done.stdout
    assert document(tmp_path / "r")["accounts"]["ok"] == 600
    again = run("report", tmp_path / "r")
    assert again.returncode == 0
    assert again.stdout.splitlines()[0].split()[0] in ("VALID", "SUSPECT", "INVALID")


@pytest.mark.timing
def test_a_closed_loop_counts_no_lateness(sink, steady, tmp_path):
    done = run(
        "run", steady, "--target", f"http://127.0.0.1:{sink.port}", "--rate", "max", "-d", "1s", "-c", 4, "-o",
        tmp_path / "r", "-q",
    )  # fmt: skip
    assert done.returncode in (0, 4), done.stderr
    result = document(tmp_path / "r")
    assert result["accounts"]["planned"] == result["accounts"]["sent"] > 600
    assert balances(result["accounts"])
    assert "lateness" not in result["latency"] and "response" not in result["latency"]


@pytest.mark.timing
@pytest.mark.parametrize(
    ("engine", "number"), [("native", signal.SIGINT), ("native", signal.SIGTERM), ("portable", signal.SIGINT)]
)
def test_an_interrupt_ends_in_order(engine, number, sink, steady, tmp_path):
    process = subprocess.Popen(
        command("run", steady, "--target", f"http://127.0.0.1:{sink.port}", "--speed", 6, "--engine", engine, "-o",
                tmp_path / "r"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_until(lambda: sink.arrivals >= 20)
    sink.stall(30.0)
    time.sleep(1.0)
    asked = time.monotonic()
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert time.monotonic() - asked < 15
    result = document(tmp_path / "r")
    assert result["interrupted"] and result["ending"]["how"] == "interrupted"
    assert balances(result["accounts"])
    assert 0 < result["accounts"]["planned"] < 600
    assert not (tmp_path / "r" / "lanes").exists()


def killed(sink: Sink, log: Path, out: Path, after_s: float) -> np.ndarray:
    """Kill a run so long after its first request; the receiver's stamps until then."""
    process = subprocess.Popen(
        command("run", log, "--target", f"http://127.0.0.1:{sink.port}", "--speed", 10, "-o", out, "--quiet"),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wait_until(lambda: sink.arrivals >= 1)
    time.sleep(after_s)
    stamps = sink.stamps()
    process.kill()
    process.wait(10)
    return stamps


def sure_count(out: Path, stamps: np.ndarray) -> int:
    """What must be in the interval log: all up to the last whole second but one, whose line may be on its way."""
    start_ns = json.loads((out / "started.json").read_text())["start"]["monotonic_ns"]
    last_s = (int(stamps["arrival_ns"].max()) - start_ns) // 1_000_000_000 - 1
    return int((stamps["arrival_ns"] < start_ns + last_s * 1_000_000_000).sum())


@pytest.fixture(scope="module")
def kills(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, np.ndarray]]:
    """Runs that were killed, some at a time, and the stamps of each one's receiver."""
    folder = tmp_path_factory.mktemp("kills")
    log = steady_log(folder / "steady.log")

    def one(number: int) -> tuple[Path, np.ndarray]:
        with Sink(capacity=10_000) as sink:
            after_s = 1.2 + 2.5 * random.Random(number).random()
            return folder / str(number), killed(sink, log, folder / str(number), after_s)

    with ThreadPoolExecutor(KILLS_AT_ONCE) as pool:
        return list(pool.map(one, range(KILLS)))


@pytest.mark.timing
@pytest.mark.parametrize("number", range(KILLS))
def test_a_killed_run_keeps_what_it_counted(number, kills):
    out, stamps = kills[number]
    intervals = [line for line in read_hlog(out / "latency.hlog").intervals if line.tag == "response.all"]
    assert sum(int(line.histogram.counts.sum()) for line in intervals) >= sure_count(out, stamps)

    done = run("report", out)
    assert done.returncode == 0, done.stderr
    result = document(out)
    assert result["ending"]["how"] == "killed"
    assert balances(result["accounts"])
    assert result["accounts"]["sent"] >= len(stamps) - 1


@pytest.mark.timing
def test_java_reads_the_logs_of_a_killed_run(java: Java, sink, steady, tmp_path):
    out = tmp_path / "r"
    stamps = killed(sink, steady, out, 2.5)
    intervals = [line for line in read_by_java(java, out / "latency.hlog") if line["tag"] == "response.all"]
    sure = sure_count(out, stamps)
    assert sum(line["count"] for line in intervals) >= sure

    assert run("report", out).returncode == 0
    totals = {line["tag"]: line["count"] for line in read_by_java(java, out / "totals.hlog")}
    assert totals["response.all"] == document(out)["latency"]["response"]["count"] >= sure


@pytest.mark.timing
def test_a_busy_generator_says_so_and_a_slow_target_is_not_to_blame(sink, steady, tmp_path):
    hog = [sys.executable, "-c", "while True: pass"]
    hogs = [subprocess.Popen(["taskset", "-c", "0", *hog]) for _ in range(3)]
    try:
        done = subprocess.run(
            ["taskset", "-c", "0", *command("run", steady, "--target", f"http://127.0.0.1:{sink.port}", "--speed", 20,
                                            "-o", tmp_path / "busy", "-q")],
            check=False, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
    finally:
        for process in hogs:
            process.kill()
            process.wait()
    assert document(tmp_path / "busy")["validity"]["verdict"] in ("SUSPECT", "INVALID"), done.stderr


@pytest.mark.timing
@pytest.mark.parametrize(
    ("name", "options"), [("slow", "/sink/delay_ms=80"), ("capped", "/sink/delay_ms=15")]
)
def test_a_slow_target_or_a_cap_is_never_invalid(name, options, sink, steady, tmp_path):
    slow = tmp_path / "slow.log"
    slow.write_text(steady.read_text().replace("GET /", f"GET {options}/"))
    more = ["-c", "2"] if name == "capped" else []
    done = run(
        "run",
        slow,
        "--target",
        f"http://127.0.0.1:{sink.port}",
        "--speed",
        20,
        "-o",
        tmp_path / "r",
        "-q",
        *more,
    )
    result = document(tmp_path / "r")
    assert is_blameless(result), (result["validity"], done.stderr)
    assert balances(result["accounts"])
    if name == "capped":
        assert "CONNECTION_LIMITED" in {note["code"] for note in result["notes"]}


@pytest.mark.timing
def test_a_stalled_target_is_felt_and_not_called_late(sink, steady, tmp_path):
    target = f"http://127.0.0.1:{sink.port}"
    process = subprocess.Popen(
        command("run", steady, "--target", target, "--speed", 6, "-o", tmp_path / "r", "-q")
    )
    wait_until(lambda: sink.arrivals >= 100)
    sink.stall(1.0)
    assert process.wait(60) in (0, 4)
    result = document(tmp_path / "r")
    assert is_blameless(result), result["validity"]
    assert result["latency"]["response"]["p99_ns"] > 500_000_000
    assert result["latency"]["lateness"]["p50_ns"] < 10_000_000
