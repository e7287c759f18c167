"""`--start-at`: which instant it is, the wait for it, and that nothing is sent before it or after an interrupt."""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from replay.cli.starting import wait_for
from replay.engine import prepare
from replay.errors import UsageError
from replay.settings.file import load
from replay.settings.instant import instant_of, moment_text
from replay.settings.scenario import Scenario
from replay.staging.sink import Sink
from replay.trace import Trace
from replay.units import SECOND_NS
from tests.support.trace_data import Row, write_trace

NOON_NS = int(dt.datetime(2026, 7, 1, 12, 0, tzinfo=dt.UTC).timestamp()) * SECOND_NS
HOUR_NS = 3_600 * SECOND_NS


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine in Berlin: 12:00 UTC in July is 14:00."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def scenario(text: object) -> Scenario:
    return load(None, {"target": "http://127.0.0.1:1", "start_at": text}, {"start_at": "--start-at"})


@pytest.mark.parametrize(
    ("text", "after_ns"),
    [
        ("18:00", 4 * HOUR_NS),
        ("14:00:01.5", 1_500_000_000),
        ("2026-07-01T18:00", 4 * HOUR_NS),
        ("2026-12-01T18:00", 153 * 24 * HOUR_NS + 5 * HOUR_NS),
        ("2026-07-01T18:00:00+00:00", 6 * HOUR_NS),
        ("2026-07-01T18:00:00Z", 6 * HOUR_NS),
        ("2026-07-01 18:00:00-04:00", 10 * HOUR_NS),
        ("2026-07-02", 10 * HOUR_NS),
        ("+10m", 600 * SECOND_NS),
        (dt.time(18, 0), 4 * HOUR_NS),
        (dt.datetime(2026, 7, 1, 18, 0), 4 * HOUR_NS),
    ],
)
def test_an_instant_is_of_this_machines_clock_unless_it_has_a_zone(
    berlin: None, text: object, after_ns: int
) -> None:
    found = instant_of(scenario(text), NOON_NS)
    assert found is not None
    assert found - NOON_NS == after_ns


@pytest.mark.parametrize("text", ["13:59", "14:00", "2026-07-01T13:00", "2020-01-01T00:00Z", "+0s"])
def test_a_time_that_is_over_is_refused(berlin: None, text: str) -> None:
    with pytest.raises(UsageError, match=r"--start-at: .* (was .* ago|is now) \(") as refused:
        instant_of(scenario(text), NOON_NS)
    assert "give a later one" in refused.value.hint


def test_what_is_no_moment_is_refused() -> None:
    for text in ("soon", "25:00", "18", ""):
        with pytest.raises(UsageError, match="--start-at"):
            scenario(text)


def test_without_it_nothing_is_waited_for() -> None:
    assert instant_of(load(None, {"target": "http://127.0.0.1:1"}, {})) is None


def test_the_wait_follows_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    now_ns = [NOON_NS]
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now_ns[0] += 60 * SECOND_NS if len(slept) == 3 else round(seconds * SECOND_NS)

    monkeypatch.setattr(time, "time_ns", lambda: now_ns[0])
    monkeypatch.setattr(time, "sleep", sleep)
    said: list[str] = []
    wait_for(NOON_NS + 80 * SECOND_NS, said.append, plain=True)
    assert now_ns[0] == NOON_NS + 70 * SECOND_NS
    assert len(slept) == 2 + 1 + 8, "a clock that was set forward by a minute shortens the wait"
    assert moment_text(NOON_NS + 80 * SECOND_NS) in said[0]


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    write_trace(tmp_path / "t.trace", [Row(n * 10_000_000) for n in range(100)])
    return tmp_path / "t.trace"


def words(trace: Path, port: int, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "replay.cli", "run", str(trace), "--target", f"http://127.0.0.1:{port}", "-o",
        str(trace.parent / "run"), "--plain", *more,
    ]  # fmt: skip


@pytest.mark.whole
def test_the_first_request_is_due_at_that_instant(trace: Path) -> None:
    with Sink(capacity=5_000) as target:
        at = dt.datetime.now(dt.UTC).replace(microsecond=0) + dt.timedelta(seconds=15)
        done = subprocess.run(
            words(trace, target.port, "--start-at", at.isoformat()),
            capture_output=True,
            timeout=120,
            check=False,
        )
        assert done.returncode in (0, 4), done.stderr
        document = json.loads((trace.parent / "run" / "run.json").read_text())
        assert abs(document["start"]["wall_ns"] - int(at.timestamp()) * SECOND_NS) < 50_000_000
        offset_ns = document["start"]["wall_ns"] - document["start"]["monotonic_ns"]
        assert (
            int(target.stamps()[0]["arrival_ns"]) + offset_ns >= int(at.timestamp()) * SECOND_NS - 50_000_000
        )
    assert b"the first request is due at" in done.stderr


@pytest.mark.whole
@pytest.mark.parametrize(("wait", "kept"), [("+1h", False), ("+12s", True)])
def test_an_interrupt_of_the_wait_sends_nothing(trace: Path, wait: str, kept: bool) -> None:
    with Sink(capacity=5_000) as target:
        process = subprocess.Popen(
            words(trace, target.port, "--start-at", wait),
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        assert process.stderr is not None
        while "the first request is due at" not in (line := process.stderr.readline()):
            assert line, "the command ended"
        time.sleep(5 if kept else 1)
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(30) == 130
        assert target.arrivals == 0
    folder = trace.parent / "run"
    assert folder.exists() == kept
    if kept:
        assert json.loads((folder / "run.json").read_text())["accounts"]["sent"] == 0


def test_an_instant_that_passes_while_targets_are_opened_is_refused(trace: Path, tmp_path: Path) -> None:
    with Sink(capacity=5_000) as target:
        made = load(None, {"target": f"http://127.0.0.1:{target.port}"}, {})
        with (
            prepare(Trace.open(trace), made) as prepared,
            pytest.raises(UsageError, match="cannot start at its instant"),
        ):
            prepared.run(tmp_path / "late", start_at_ns=time.time_ns() + 100_000_000)
        assert target.arrivals == 0
    assert not (tmp_path / "late").exists()
