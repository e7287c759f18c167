"""Shares of one run as processes, merged by the real command, with the receiver as the witness."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from replay.results.answers import Answers
from replay.results.hlog import read_hlog
from replay.results.run import load_run
from replay.results.windows import windows_of
from replay.staging.sink import Sink
from replay.units import SECOND_NS
from tests.support.shares import run_shares, start_shares
from tests.support.trace_data import Row, write_trace

pytestmark = pytest.mark.whole

ROWS, SECONDS, CLIENTS, AGENTS = 50_000, 10, 997, 3


def made_trace(path: Path, rows: int = ROWS, seconds: float = SECONDS) -> Path:
    step_ns = round(seconds * 1e9 / rows)
    targets = (b"/users/%d", b"/items/%d", b"/sink/delay_ms=5?n=%d")
    write_trace(
        path,
        [
            Row(n * step_ns, target=targets[n % 3] % (n % 50), client=n * 7919 % CLIENTS, status=200)
            for n in range(rows)
        ],
    )
    return path


def scenario(path: Path, port: int, more: str = "") -> Path:
    path.write_text(f'target = "http://127.0.0.1:{port}"\nconnections = 24\n{more}')
    return path


def replay(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "replay.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)


def document(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return found


def counts_by_tag(path: Path) -> dict[str, np.ndarray]:
    """The sum of all intervals of each tag."""
    found: dict[str, np.ndarray] = {}
    log = read_hlog(path)
    assert not log.problem_count
    for interval in log.intervals:
        counts = interval.histogram.counts
        found[interval.tag] = found[interval.tag] + counts if interval.tag in found else counts.copy()
    return found


def assert_is_the_sum(whole: Path, parts: list[Path], name: str) -> None:
    merged = counts_by_tag(whole / name)
    each = [counts_by_tag(part / name) for part in parts]
    assert merged.keys() == set().union(*each)
    for tag, counts in merged.items():
        expected = sum(one[tag].astype(np.uint64) for one in each if tag in one)
        assert np.array_equal(counts, expected), tag


@pytest.fixture(scope="module")
def merged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("merging")
    with Sink(capacity=2 * ROWS) as sink:
        trace = made_trace(folder / "t.trace")
        day = scenario(folder / "day.toml", sink.port, 'order = "client"\nslo = ["p99<20s over 2s"]\n')
        parts = run_shares(trace, day, folder, AGENTS)
        stamps = sink.stamps().copy()
    done = replay("merge", *parts, "-o", folder / "whole")
    assert done.returncode in (0, 4), done.stderr
    return folder, parts, stamps, done


def test_every_request_is_sent_exactly_once_and_the_accounts_are_those_of_the_trace(merged):
    folder, _, stamps, _ = merged
    assert sorted(stamps["seq"].tolist()) == list(range(ROWS))
    accounts = document(folder / "whole")["accounts"]
    assert accounts == {
        "planned": ROWS, "skipped": 0, "sent": ROWS, "unsent": 0, "ok": ROWS, "error": 0, "timeout": 0,
        "in_flight": 0, "unknown": 0,
    }  # fmt: skip


def test_requests_of_a_client_come_in_their_order(merged):
    _, _, stamps, _ = merged
    in_order = stamps[np.argsort(stamps["arrival_ns"], kind="stable")]
    clients = in_order["seq"] * 7919 % CLIENTS
    for client in range(0, CLIENTS, 37):
        own = in_order["seq"][clients == client]
        assert np.all(np.diff(own) > 0)


@pytest.mark.parametrize("name", ["totals.hlog", "latency.hlog"])
def test_merged_histograms_are_the_sum_bit_for_bit(merged, name):
    folder, parts, _, _ = merged
    assert_is_the_sum(folder / "whole", parts, name)


def test_the_timeline_adds_up_to_the_accounts(merged):
    folder, _, _, _ = merged
    rows = load_run(folder / "whole").seconds()
    assert sum(row.planned for row in rows) == sum(row.ok for row in rows) == ROWS
    assert [round(row.t_s + row.length_s, 3) for row in rows[:-1]] == [row.t_s for row in rows[1:]]
    assert all(row.response_p99_ns is not None for row in rows if row.ok)
    assert sum(sum(row.outcomes.values()) for row in rows) == ROWS


def test_objectives_by_window_are_judged_by_merged_seconds(merged):
    folder, _, _, _ = merged
    (outcome,) = document(folder / "whole")["slo"]
    assert outcome["passed"] and outcome["value"]
    # A busy machine measures seconds that are longer than one. Each window ends with one of the merged ones.
    run = load_run(folder / "whole")
    windows = windows_of(run.folder, run.seconds(), "response", None, 2 * SECOND_NS, 10 * SECOND_NS)
    assert outcome["windows"]["count"] == sum(1 for _ in windows) > 0


def test_samples_are_the_slowest_of_all_agents_with_their_recorded_rows(merged):
    folder, parts, _, _ = merged
    each = [sample for part in parts for sample in load_run(part).samples()]
    for route in {sample.route for sample in each}:
        own = sorted((s.response_ns for s in each if s.route == route and s.kind == "slowest"), reverse=True)
        found = [s for s in load_run(folder / "whole").samples() if s.route == route and s.kind == "slowest"]
        assert [s.response_ns for s in found] == own[: len(found)] and len(found) == min(20, len(own))
        assert all(s.path and s.recorded_ns is not None and s.due_ns >= 0 for s in found)


def test_run_json_lists_the_agents(merged):
    folder, parts, _, done = merged
    found = document(folder / "whole")["agents"]
    assert [agent["agent"] for agent in found] == list(range(AGENTS))
    assert [agent["host"] for agent in found] == [f"host-{n}" for n in range(AGENTS)]
    for agent, part in zip(found, parts, strict=True):
        own = document(part)
        assert agent["accounts"] == {**own["accounts"], "unknown": 0} and agent["validity"] == own["validity"]
        assert agent["clock"]["bound_ns"] == 20_000 and agent["start_error_ns"] == 0
        assert agent["pid"] > 0
    assert "host-1" in done.stdout


@pytest.mark.parametrize(
    "verb", [["report"], ["report", "--json"], ["report", "--html"], ["compare"], ["runs"]], ids=" ".join
)
def test_other_verbs_read_a_merged_run(merged, verb):
    folder, parts, _, _ = merged
    whole = folder / "whole"
    if verb[0] == "compare" and not (folder / "again").exists():
        assert replay("merge", *reversed(parts), "-o", folder / "again").returncode in (0, 4)
    arguments = {"compare": [whole, folder / "again"], "runs": [folder]}.get(verb[0], [whole])
    done = replay(verb[0], *arguments, *verb[1:])
    # A busy machine makes runs INVALID, and then the comparison is inconclusive.
    assert done.returncode in ((0, 4) if verb[0] == "compare" else (0,)), done.stderr
    assert "Traceback" not in done.stderr


def test_a_killed_agent_is_completed_named_and_its_share_accounted_for(tmp_path):
    rows, seconds = 6_000, 6
    with Sink(capacity=2 * rows) as sink:
        trace = made_trace(tmp_path / "t.trace", rows, seconds)
        day = scenario(tmp_path / "day.toml", sink.port)
        processes, parts, instant_ns = start_shares(trace, day, tmp_path, 2)
        time.sleep((instant_ns - time.monotonic_ns()) / 1e9 + seconds / 2)
        processes[1].send_signal(signal.SIGKILL)
        for process in processes:
            process.wait(timeout=100)
        received = sink.stamps()["seq"].copy()
    done = replay("merge", *parts, "-o", tmp_path / "whole")
    assert done.returncode in (0, 4), done.stderr
    found = document(tmp_path / "whole")
    accounts, detail = found["accounts"], found["accounts_detail"]
    assert accounts["planned"] == rows == accounts["sent"] + accounts["unsent"] + accounts["unknown"]
    assert 0 < detail["unsent"]["agent_lost"] < rows / 2 and accounts["unknown"] == 0
    assert len(set(received.tolist())) == len(received)
    assert abs(len(received) - accounts["sent"]) <= 1
    assert found["validity"]["verdict"] != "VALID"
    (lost,) = [reason for reason in found["validity"]["reasons"] if reason["code"] == "AGENT_LOST"]
    assert "agent 1 (host-1)" in lost["message"]
    assert [bool(agent["lost"]) for agent in found["agents"]] == [False, True]

    # Without the folder of the killed agent, nothing about its share is known.
    done = replay("merge", parts[0], "-o", tmp_path / "half")
    assert done.returncode in (0, 4), done.stderr
    accounts = document(tmp_path / "half")["accounts"]
    assert accounts["planned"] == rows == accounts["sent"] + accounts["unsent"] + accounts["unknown"]
    assert accounts["unknown"] == rows // 2
    assert "agent 1" in done.stdout and "unknown 3,000" in done.stdout


def test_kept_responses_and_several_targets_are_merged(tmp_path):
    rows, seconds = 1_200, 3
    with Sink(capacity=4 * rows) as sink, Sink(capacity=4 * rows) as other:
        trace = made_trace(tmp_path / "t.trace", rows, seconds)
        more = f'[answers]\nkeep = "all"\n[[also]]\ntarget = "http://127.0.0.1:{other.port}"\n'
        parts = run_shares(trace, scenario(tmp_path / "day.toml", sink.port, more), tmp_path, 2, lanes=2)
        received = np.concatenate([sink.stamps()["seq"], other.stamps()["seq"]])
    assert sorted(received.tolist()) == list(range(2 * rows))
    done = replay("merge", *parts, "-o", tmp_path / "whole")
    assert done.returncode in (0, 4), done.stderr
    found = document(tmp_path / "whole")
    assert [target["accounts"]["sent"] for target in found["targets"]] == [rows, rows]
    assert [target["lanes"] for target in found["targets"]] == [4, 4]
    assert found["accounts"]["planned"] == 2 * rows and found["answers"]["kept"] == 2 * rows
    kept = [
        row for batch in Answers(tmp_path / "whole").batches("number", "copy") for row in batch.to_pylist()
    ]
    assert len(kept) == len({(row["number"], row["copy"]) for row in kept}) == 2 * rows
    assert_is_the_sum(tmp_path / "whole", parts, "totals.hlog")
    assert replay("report", tmp_path / "whole", "--html").returncode == 0
