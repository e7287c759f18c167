"""`replay peak` on a real service: a climb, a surge, and what is said where there is nothing to find."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.whole


@contextmanager
def serving(module: str, *arguments: str) -> Iterator[str]:
    """A staging target in a process of its own: its URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdin is not None
    yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    process.stdin.close()
    process.wait(10)


@pytest.fixture
def service() -> Iterator[str]:
    with serving("replay.staging.service") as target:
        yield target


def command(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "replay.cli", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, timeout=150, check=False, cwd=cwd)


def peak(
    service: str, folder: Path, *arguments: object, rate: str = "200/s", length: str = "30s"
) -> tuple[int, dict[str, Any], str]:
    """Run `replay peak` on a Poisson trace; its exit code, peak.json and stderr."""
    assert command("generate", "-o", "t.trace", "-d", length, "--poisson", rate, cwd=folder).returncode == 0
    done = command("peak", "t.trace", "--target", service, "-o", "out", "--plain", *arguments, cwd=folder)
    found = folder / "out" / "peak.json"
    return done.returncode, json.loads(found.read_text()) if found.exists() else {}, done.stderr


def test_a_service_is_climbed_up_and_down_again(service: str, tmp_path: Path) -> None:
    code, found, said = peak(
        service, tmp_path, "--trial", "500ms", "--hold", "1s", "--votes", "1", "--width", "60%", "--slo",
        "p90<60ms", "--slo", "errors<100%", "--lowest", "0.5", "--highest", "64",
    )  # fmt: skip
    assert found["verdict"] in ("FOUND", "NO_LIMIT", "GENERATOR_LIMITED"), said
    if found["verdict"] != "FOUND":
        pytest.skip("this machine is too busy to overload the service")
    assert code in (0, 99)
    assert 0.5 <= found["peak"] < found["above"] <= 1.61 * found["peak"]
    stages = [trial["stage"] for trial in found["trials"]]
    assert {"up", "hold", "down"} <= set(stages)
    page = (tmp_path / "out" / "peak.html").read_text()
    assert (
        "answered within, by load" in page
        and " src=" not in page.partition("<style>")[0]
        and "<iframe" not in page
    )
    runs = [path for path in (tmp_path / "out").iterdir() if (path / "run.json").exists()]
    assert len(runs) >= len(found["trials"])
    assert not [path.name for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("retries", "verdict", "exit_code"), [(0, "RECOVERED", 0), (8, "DID_NOT_RECOVER", 99)]
)
def test_a_service_with_a_retry_storm_does_not_come_back_and_one_without_does(
    retries: int, verdict: str, exit_code: int, tmp_path: Path
) -> None:
    storm = ("--servers", "2", "--service", "10ms", "--patience", "300ms", "--retries", str(retries))
    with serving("replay.staging.queue", *storm) as target:
        code, found, said = peak(
            target, tmp_path, "--surge", "3", "--trigger", "2s", rate="90/s", length="11s"
        )
    if found["verdict"] == "UNKNOWN":
        pytest.skip("this machine is too busy to hold the baseline")
    assert (found["verdict"], code) == (verdict, exit_code), said
    document = json.loads((tmp_path / "out" / "surge" / "run.json").read_text())
    assert document["accounts"]["planned"] == pytest.approx(90 * (2 + 6 + 6), rel=0.15)
    page = (tmp_path / "out" / "peak.html").read_text()
    assert verdict in page and "Response over time" in page


def test_a_surge_begins_where_the_window_does(tmp_path: Path) -> None:
    with serving("replay.staging.service") as target:
        flags = ("--surge", "3", "--trigger", "1s", "--from", "+4s")
        _, found, said = peak(target, tmp_path, *flags, rate="90/s", length="11s")
    assert found, said
    document = json.loads((tmp_path / "out" / "surge" / "run.json").read_text())
    assert document["accounts"]["planned"] == pytest.approx(90 * (1 + 3 + 3), rel=0.2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--slo", "p50<1ns", "--trial", "300ms", "--votes", "1"],
            ["misses p50<1ns at the lowest load already"],
        ),
        (["--surge", "3", "--trigger", "20s"], ["too short for this surge"]),
        (["--lowest", "9", "--highest", "2"], ["makes no sense"]),
        (["--trial", "1ms"], ["--trial"]),
        (["--width", "none"], ["'none' is not a share"]),
        (["--target", "http://127.0.0.1:1"], ["does not take connections"]),
    ],
)
def test_what_cannot_be_searched_is_one_line(
    arguments: list[str], words: list[str], service: str, tmp_path: Path
) -> None:
    code, found, said = peak(service, tmp_path, *arguments)
    line = [line for line in said.splitlines() if line.startswith("replay: ")]
    assert code == 2 and not found and len(line) == 1, said
    assert all(word in line[0] for word in words)
