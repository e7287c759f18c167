"""Runs over agents that are processes of this machine, by the real command."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from replay.results.run import load_run
from replay.staging.sink import Sink
from tests.support.trace_data import Row, write_trace
from tests.support.waiting import is_alive

from .support import SECOND_NS, evening, running, until, url

pytestmark = [pytest.mark.whole, pytest.mark.timing]


def test_two_agents_send_each_request_once_and_the_run_looks_like_any_other(tmp_path: Path) -> None:
    evening(tmp_path / "t.trace", seconds=3, per_second=200)
    with (
        Sink() as sink,
        running(tmp_path, "t.trace", "--target", url(sink), "--cluster", "local:2", "-t", "1") as run,
    ):
        _, printed = run.wait()
        stamps = sink.stamps()
    document = run.document()
    assert document["accounts"]["planned"] == document["accounts"]["ok"] == 600, printed
    assert sorted(stamps["seq"].tolist()) == list(range(600))
    assert [agent["planned"] for agent in document["agents"]] == [300, 300]
    for agent in document["agents"]:
        assert set(agent) >= {"agent", "host", "pid", "accounts", "validity", "clock"}
        assert agent["clock"]["bound_ns"] == 0  # one machine, one clock
    # The total is the sum of the agents' own folders, which are kept in the run.
    own = [load_run(run.out / "agents" / f"agent-{n}").document.accounts for n in range(2)]
    assert sum(accounts.ok for accounts in own) == 600
    assert not run.agents.exists() and not (run.out / "agents" / "token").exists()


def test_agents_start_at_a_given_instant(tmp_path: Path) -> None:
    evening(tmp_path / "t.trace", seconds=1, per_second=100)
    at = datetime.datetime.now(datetime.UTC).replace(microsecond=0) + datetime.timedelta(seconds=45)
    how = ("--cluster", "local:2", "-t", "1", "--start-at", at.isoformat())
    with Sink() as sink, running(tmp_path, "t.trace", "--target", url(sink), *how) as run:
        _, printed = run.wait()
        first_ns = int(sink.stamps()["arrival_ns"].min())
    at_ns = round(at.timestamp() * SECOND_NS)
    start = run.document()["start"]
    assert abs(start["wall_ns"] - at_ns) < SECOND_NS // 10, (
        "the two clocks of one machine, read one after the other"
    )
    assert first_ns >= start["monotonic_ns"] - SECOND_NS // 10, printed
    assert "all agents are ready; the first request is due at" in printed


def test_a_client_stays_whole_and_in_order(tmp_path: Path) -> None:
    evening(tmp_path / "t.trace", seconds=2, per_second=300, clients=11)
    settings = ("--order", "client", "-t", "1")
    with (
        Sink() as sink,
        running(tmp_path, "t.trace", "--target", url(sink), "--cluster", "local:2", *settings) as run,
    ):
        run.wait()
        stamps = sink.stamps()
    by_client = defaultdict(list)
    for seq in stamps["seq"][stamps["arrival_ns"].argsort(kind="stable")].tolist():
        by_client[seq % 11].append(seq)
    assert sum(map(len, by_client.values())) == 600
    assert all(seqs == sorted(seqs) for seqs in by_client.values())


def test_a_silent_agent_is_named_within_two_seconds(tmp_path: Path) -> None:
    evening(tmp_path / "t.trace", seconds=6, per_second=50)
    how = ("--cluster", "local:2", "--on-lost", "continue", "-t", "1")
    with Sink() as sink, running(tmp_path, "t.trace", "--target", url(sink), *how) as run:
        run.await_start(2)
        time.sleep(2.5)
        pid = run.agent_pids()[1]
        os.kill(pid, signal.SIGSTOP)
        time.sleep(5)  # The network is partitioned, then restored.
        os.kill(pid, signal.SIGCONT)
        _, printed = run.wait()
    document = run.document()
    assert "LOST agent 1" in printed and "silent" in printed
    lost = next(agent for agent in document["agents"] if agent["lost"])
    assert float(lost["lost"].split("silent for ")[1].split(" s")[0]) < 2.0
    accounts = document["accounts"]
    assert accounts["planned"] == accounts["sent"] + accounts["unsent"] + accounts["unknown"] == 300


def test_a_coordinator_that_is_stopped_for_a_while_loses_no_agent(tmp_path: Path) -> None:
    evening(tmp_path / "t.trace", seconds=6, per_second=50)
    with (
        Sink() as sink,
        running(tmp_path, "t.trace", "--target", url(sink), "--cluster", "local:2", "-t", "1") as run,
    ):
        run.await_start(2)
        time.sleep(2)
        run.process.send_signal(signal.SIGSTOP)
        time.sleep(2)
        run.process.send_signal(signal.SIGCONT)
        _, printed = run.wait()
    document = run.document()
    assert "LOST" not in printed and not any(agent["lost"] for agent in document["agents"]), printed
    assert [note["code"] for note in document["notes"]].count("COORDINATOR_PAUSED") == 1


def test_when_the_coordinator_dies_agents_end_in_order_with_folders_that_merge(tmp_path: Path) -> None:
    evening(tmp_path / "t.trace", seconds=30, per_second=50)
    with (
        Sink() as sink,
        running(tmp_path, "t.trace", "--target", url(sink), "--cluster", "local:2", "-t", "1") as run,
    ):
        run.await_start(2)
        time.sleep(2.5)
        pids = run.agent_pids()
        run.process.kill()
        run.process.wait()
        began = time.monotonic()
        until(lambda: not any(map(is_alive, pids)), 20)
        assert time.monotonic() - began < 5
        sent = len(sink.stamps()["seq"])
    folders = sorted(path.parent for path in run.agents.glob("*/run.json"))
    assert len(folders) == 2
    command = [sys.executable, "-m", "replay.cli", "merge", *map(str, folders), "-o", "merged"]
    subprocess.run(command, cwd=tmp_path, timeout=60, check=False, capture_output=True)
    accounts = json.loads((tmp_path / "merged" / "run.json").read_text())["accounts"]
    assert accounts["sent"] == sent and accounts["in_flight"] == 0


def test_the_token_is_its_owners_alone(tmp_path: Path) -> None:
    evening(tmp_path / "t.trace", seconds=5, per_second=20)
    with (
        Sink() as sink,
        running(tmp_path, "t.trace", "--target", url(sink), "--cluster", "local:1", "-t", "1") as run,
    ):
        until((run.agents / "token").exists)
        assert stat.S_IMODE((run.agents / "token").stat().st_mode) == 0o600
        run.process.send_signal(signal.SIGINT)
        code, printed = run.wait()
    assert code == 130 and "Traceback" not in printed


def test_each_trial_of_a_search_for_the_peak_is_a_run_over_agents(tmp_path: Path) -> None:
    evening(tmp_path / "t.trace", seconds=4, per_second=40)
    command = [
        sys.executable, "-m", "replay.cli", "peak", "t.trace", "-o", "PEAK", "--plain", "--cluster", "local:2", "-t", "1",
        "--trial", "1s", "--hold", "2s", "--lowest", "1", "--highest", "2", "--votes", "1", "--slo", "errors<50%",
    ]  # fmt: skip
    with Sink() as sink:
        command += ["--target", url(sink)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=400, check=False)
    # A busy machine limits the generator (4), or loses an agent (1).
    assert done.returncode in (0, 4), done.stderr
    trials = sorted((tmp_path / "PEAK").glob("*/run.json"))
    assert len(trials) >= (3 if done.returncode == 0 else 1), done.stderr
    for path in trials:
        document = json.loads(path.read_text())
        assert [agent["agent"] for agent in document["agents"]] == [0, 1]
        assert document["accounts"]["planned"] == document["accounts"]["sent"] > 0
    assert not list((tmp_path / "PEAK").glob("*.agents")), "agents' folders are in the runs"


@contextmanager
def slowed(pid: int, *, runs_s: float = 0.02, stops_s: float = 0.18) -> Iterator[None]:
    """A process that runs for a tenth of the time: it is stopped and continued by turns."""
    over = threading.Event()

    def take_turns() -> None:
        with contextlib.suppress(ProcessLookupError):
            while not over.is_set():
                os.kill(pid, signal.SIGSTOP)
                time.sleep(stops_s)
                os.kill(pid, signal.SIGCONT)
                time.sleep(runs_s)

    thread = threading.Thread(target=take_turns)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_an_agent_that_is_ten_times_slower_is_named(tmp_path: Path) -> None:
    evening(tmp_path / "t.trace", seconds=8, per_second=100)
    how = ("--cluster", "local:2", "--on-lost", "continue", "-t", "1")
    with Sink() as sink, running(tmp_path, "t.trace", "--target", url(sink), *how) as run:
        run.await_start(2)
        until(lambda: len(sink.stamps()["seq"]) > 50)
        with slowed(run.agent_pids()[1]):
            _, printed = run.wait()
        received = sink.stamps()["seq"].tolist()
    document = run.document()
    assert len(set(received)) == len(received), "nothing is sent twice"
    accounts = document["accounts"]
    assert accounts["planned"] == 800 == accounts["sent"] + accounts["unsent"] + accounts["unknown"], printed
    for name in ("planned", "sent", "unsent", "unknown"):
        assert sum(agent["accounts"].get(name, 0) for agent in document["agents"]) == accounts[name], name
    assert document["validity"]["verdict"] in ("SUSPECT", "INVALID")
    # One finding is enough: LATE where requests were taken up late, STARVED where they were held up afterwards.
    late = ("LATE", "STARVED")
    own = {reason["code"] for reason in document["agents"][1]["validity"]["reasons"]}
    assert own & set(late), printed
    found = [reason["message"] for reason in document["validity"]["reasons"] if reason["code"] in late]
    assert any("agent 1" in message for message in found), printed


def test_agents_get_the_files_of_a_scenario_and_the_run_names_those_of_the_coordinator(
    tmp_path: Path,
) -> None:
    rows = [Row(n * SECOND_NS // 100, "POST", b"/orders", client=n % 7) for n in range(100)]
    write_trace(tmp_path / "t.trace", rows)
    (tmp_path / "order.json").write_text('{"n": {n}}')
    (tmp_path / "day.toml").write_text(
        'trace = "t.trace"\nmethods = "all"\n[[body]]\nroute = "POST *"\nfile = "order.json"\n'
    )
    with Sink() as sink:
        how = ("--target", url(sink), "--cluster", "local:2", "-t", "1")
        with running(tmp_path, "day.toml", *how) as run:
            _, printed = run.wait()
        received = sink.stamps()["seq"].tolist()
    assert sorted(received) == list(range(100)), printed
    assert run.document()["scenario"]["body"][0]["file"] == "order.json"
