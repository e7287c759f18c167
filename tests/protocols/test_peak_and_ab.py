"""`replay peak` and `replay ab` plan each target by its own protocol, and several targets at once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from replay.cli.peak import command as peak_command
from replay.comparison.session import url_of_builds
from replay.errors import UsageError
from replay.results.run import load_run
from replay.settings.file import load
from replay.staging.sink import Sink
from tests.kafka.test_mock import mock
from tests.support.trace_data import Row, write_trace

__all__ = ["mock"]

pytestmark = pytest.mark.whole
MS = 1_000_000
PEAK = [
    "--trial",
    "500ms",
    "--hold",
    "500ms",
    "--votes",
    "1",
    "--width",
    "60%",
    "--lowest",
    "1",
    "--highest",
    "2",
]


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink(capacity=20_000) as sink:
        yield sink


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return orders(tmp_path)


def orders(tmp_path: Path) -> Path:
    """Two seconds of reads and writes in turn."""
    methods = ("GET", "POST")
    rows = [Row(n * 10 * MS, methods[n % 2], b"/orders", client=n % 4) for n in range(200)]
    return Path(write_trace(tmp_path / "t.trace", rows).path)


def command(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "replay.cli", *map(str, words)],
        capture_output=True, text=True, timeout=170, check=False, cwd=cwd,
    )  # fmt: skip


def runs_of(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob("*/run.json"))


def test_a_peak_of_a_topic_is_found_by_acknowledged_records(mock: str, trace: Path, tmp_path: Path) -> None:
    check_peak_of_a_topic(mock, trace, tmp_path)


def check_peak_of_a_topic(broker: str, trace: Path, tmp_path: Path) -> None:
    """Trials produce records, and a load holds by what is acknowledged."""
    done = command(
        "peak", trace, "--target", f"kafka://{broker}/peak", "--methods", "all", "-o", "out", "--plain", *PEAK,
        cwd=tmp_path,
    )  # fmt: skip
    found = json.loads((tmp_path / "out" / "peak.json").read_text())
    assert done.returncode in (0, 4), done.stderr
    assert found["verdict"] in ("NO_LIMIT", "GENERATOR_LIMITED", "FOUND")
    documents = [load_run(folder).document for folder in runs_of(tmp_path / "out")]
    assert len(documents) >= 2
    for document in documents:
        assert document.generator.engine == "kafka" and document.kafka is not None
        assert document.accounts.ok == document.accounts.planned > 0
    assert all(trial["done_per_s"] > 0 for trial in found["trials"])


def test_a_peak_of_several_targets_scales_all_of_them(
    mock: str, sink: Sink, trace: Path, tmp_path: Path
) -> None:
    scenario = tmp_path / "both.toml"
    scenario.write_text(
        f'trace = "t.trace"\ntarget = "http://127.0.0.1:{sink.port}"\nmethods = "GET"\n'
        f'[[also]]\ntarget = "kafka://{mock}/both"\nmethods = "all"\nonly = ["POST *"]\n'
    )
    done = command("peak", scenario, "-o", "out", "--plain", *PEAK, cwd=tmp_path)
    assert done.returncode in (0, 4), done.stderr
    by_load: dict[float, list[int]] = {}
    for folder in runs_of(tmp_path / "out"):
        document = load_run(folder).document
        http, kafka = document.targets
        assert (http.engine, kafka.engine) == ("native", "kafka")
        assert document.accounts.planned == http.accounts.planned + kafka.accounts.planned
        assert kafka.accounts.ok == kafka.accounts.planned > 0
        _, stage, load_text = folder.name.split("-")
        if stage == "up":
            by_load.setdefault(float(load_text), []).append(kafka.accounts.planned)
        assert kafka.accounts.planned == pytest.approx(http.accounts.planned, rel=0.3), "half are writes"
    # A busy machine may reach its own limit before the second load.
    assert 2.0 not in by_load or max(by_load[2.0]) > 1.5 * min(by_load[1.0])


def test_two_brokers_are_compared_as_two_builds(mock: str, trace: Path, tmp_path: Path) -> None:
    target = f"kafka://{mock}/ab"
    done = command(
        "ab", trace, "--base", target, "--new", target, "--methods", "all", "-d", "400ms", "--cool-down", "10ms",
        "-o", "out", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode in (0, 4, 99), done.stderr
    runs = runs_of(tmp_path / "out")
    assert len(runs) >= 12
    for folder in runs:
        document = load_run(folder).document
        assert document.generator.engine == "kafka" and document.accounts.ok > 0


@pytest.mark.parametrize(
    ("target", "url"),
    [
        ("", "http://127.0.0.1:{port}"),
        ("https://staging.example/base", "http://127.0.0.1:{port}"),
        ("kafka://127.0.0.1/orders", "kafka://127.0.0.1:{port}/orders"),
    ],
)
def test_a_build_that_is_started_is_reached_by_the_protocol_of_the_scenario(target: str, url: str) -> None:
    assert url_of_builds(load(None, {"target": target} if target else {})) == url


def test_a_write_that_was_not_allowed_is_refused_before_the_first_trial(
    mock: str, trace: Path, tmp_path: Path
) -> None:
    words = [str(trace), "--target", f"kafka://{mock}/peak", "-o", str(tmp_path / "out"), *PEAK]
    with pytest.raises(UsageError, match="a write"):
        peak_command.main(words, standalone_mode=False)
    assert not (tmp_path / "out").exists()
