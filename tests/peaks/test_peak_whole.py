"""`replay peak` on a real service: a climb, a surge, and what is said where there is nothing to find."""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from replay.settings.kinds import Duration, Rate
from replay.staging.sink import Sink
from replay.workload.generate import generate
from replay.workload.recipe import Recipe

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


def command(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "replay.cli", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, timeout=150, check=False, cwd=cwd)


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty seconds of Poisson arrivals, 100 a second."""
    recipe = Recipe(rate_per_s=Rate(100.0), duration_ns=Duration(20 * 10**9), seed=1)
    path = tmp_path_factory.mktemp("peak") / "t.trace"
    generate(recipe, path)
    return path


def peak(trace: Path, service: str, folder: Path, *arguments: object) -> tuple[int, dict[str, Any], str]:
    """Run `replay peak`; its exit code, peak.json and stderr."""
    done = command("peak", trace, "--target", service, "-o", "out", "--plain", *arguments, cwd=folder)
    found = folder / "out" / "peak.json"
    return done.returncode, json.loads(found.read_text()) if found.exists() else {}, done.stderr


@pytest.mark.timing
def test_a_service_is_climbed_up_and_down_again(trace: Path, tmp_path: Path) -> None:
    with serving("replay.staging.queue", "--servers", "8", "--service", "20ms") as target:
        code, found, said = peak(
            trace, target, tmp_path, "--trial", "600ms", "--hold", "1s", "--votes", "1", "--width", "60%",
            "--slo", "p90<100ms", "--lowest", "2", "--highest", "8",
        )  # fmt: skip
    assert found["verdict"] in ("FOUND", "NO_LIMIT", "GENERATOR_LIMITED"), said
    if found["verdict"] != "FOUND":
        pytest.skip("this machine is too busy to overload the service")
    assert code in (0, 99)
    assert 2 <= found["peak"] < 5.7 and found["peak"] < found["above"] <= 8, "it does 400 a second"
    stages = [trial["stage"] for trial in found["trials"]]
    assert {"up", "hold", "down"} <= set(stages)
    assert found["window"]["trial_until_ns"] - found["window"]["trial_from_ns"] == pytest.approx(
        6e8, rel=0.03
    )
    rates = {
        stage: [t["rate_per_s"] for t in found["trials"] if t["stage"] == stage] for stage in ("up", "hold")
    }
    assert min(abs(rate / rates["hold"][0] - 1) for rate in rates["up"]) < 0.02
    page = (tmp_path / "out" / "peak.html").read_text()
    assert "scaled to the same mean rate" in page
    assert (
        "p99 of the response by load" in page
        and " src=" not in page.partition("<style>")[0]
        and "<iframe" not in page
    )
    assert re.search(r">\d+ ms</text>", page) and re.search(r">[\d.]+×</text>", page), (
        "both axes are labelled"
    )
    runs = [path for path in (tmp_path / "out").iterdir() if (path / "run.json").exists()]
    assert len(runs) >= len(found["trials"])
    assert not [path.name for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]


@pytest.mark.timing
@pytest.mark.parametrize(
    ("retries", "verdict", "exit_code", "begins"),
    [(0, "RECOVERED", 0, "+5s"), (8, "DID_NOT_RECOVER", 99, "+0s")],
)
def test_a_service_with_a_retry_storm_does_not_come_back_and_one_without_does(
    retries: int, verdict: str, exit_code: int, begins: str, trace: Path, tmp_path: Path
) -> None:
    storm = ("--servers", "2", "--service", "10ms", "--patience", "300ms", "--retries", str(retries))
    with serving("replay.staging.queue", *storm) as target:
        flags = ("--surge", "3", "--trigger", "2s", "--from", begins)
        code, found, said = peak(trace, target, tmp_path, *flags)
    if found["verdict"] == "UNKNOWN":
        pytest.skip("this machine is too busy to hold the baseline")
    assert (found["verdict"], code) == (verdict, exit_code), said
    document = json.loads((tmp_path / "out" / "surge" / "run.json").read_text())
    # The surge is inside the window, wherever the window begins.
    assert document["accounts"]["planned"] == pytest.approx(100 * (2 + 6 + 6), rel=0.15)
    page = (tmp_path / "out" / "peak.html").read_text()
    assert verdict in page and "Response over time" in page


@pytest.mark.timing
def test_a_target_that_misses_its_objectives_at_the_lowest_load_is_reported(
    trace: Path, tmp_path: Path
) -> None:
    flags = ("--slo", "p50<1ns", "--trial", "2s", "--votes", "1", "--lowest", "0.1")
    with Sink(capacity=1_000) as sink:
        code, found, said = peak(trace, f"http://127.0.0.1:{sink.port}", tmp_path, *flags)
    if found["verdict"] == "GENERATOR_LIMITED":
        pytest.skip("this machine is too busy for the lowest load")
    assert (found["verdict"], code) == ("FAILS_AT_LOWEST", 3), said
    page = html.unescape((tmp_path / "out" / "peak.html").read_text())
    assert "misses p50<1ns even at the lowest load" in page
    assert found["window"]["trial_per_s"] > 0 and found["window"]["words"] in " ".join(said.split())


@pytest.mark.timing
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--surge", "3", "--trigger", "20s"], ["too short for this surge"]),
        (["--lowest", "9", "--highest", "2"], ["is not possible"]),
        (["--trial", "1ms"], ["--trial"]),
        (["--width", "none"], ["--width: 'none' is not a share"]),
        (["--lowest", "0"], ["--lowest: '0' is not a factor"]),
        (["--hold", "x"], ["--hold: 'x' is not a time"]),
        (["--surge", "nan"], ["--surge: 'nan' is not a factor"]),
        (["--target", "http://127.0.0.1:1"], ["--target"]),
    ],
)
def test_what_cannot_be_searched_is_one_line(
    arguments: list[str], words: list[str], trace: Path, tmp_path: Path
) -> None:
    with Sink(capacity=1_000) as sink:
        code, found, said = peak(trace, f"http://127.0.0.1:{sink.port}", tmp_path, *arguments)
    line = [line for line in said.splitlines() if line.startswith("replay: ")]
    assert code == 2 and not found and len(line) == 1, said
    assert all(word in line[0] for word in words)
