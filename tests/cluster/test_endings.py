"""Every way in which a run over agents can end: its accounts are those of the whole plan, and the exit code fits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from replay.staging.sink import Sink
from tests.support.ports import free_port
from tests.support.waiting import is_alive

from .support import AGENT, Command, evening, running, ssh_of, until, url

pytestmark = [pytest.mark.whole, pytest.mark.timing]

PLANNED, PER_SECOND = 800, 100
BEGUN = 120
"""Requests that have arrived when something happens to a run."""

FINISHED = (0, 4)
"""Exit codes of a run that ended by itself. A busy machine makes it INVALID (4)."""


def nothing(run: Command) -> None:
    """The run ends by itself."""


def to_coordinator(number: signal.Signals) -> Callable[[Command], None]:
    return lambda run: run.process.send_signal(number)


def to_an_agent(number: signal.Signals) -> Callable[[Command], None]:
    return lambda run: os.kill(run.agent_pids()[1], number)


@dataclass(frozen=True)
class Way:
    """What happens to a run, and what follows. `reason` is why requests are unsent."""

    name: str
    happens: Callable[[Command], None]
    codes: tuple[int, ...]
    reason: str = ""
    flags: tuple[str, ...] = ()
    begun: int = BEGUN
    is_killed: bool = False


CONTINUE = ("--on-lost", "continue")
WAYS = [
    Way("end", nothing, FINISHED, begun=0),
    Way("SIGINT of the coordinator", to_coordinator(signal.SIGINT), (130,), "ended_early"),
    Way("SIGTERM of the coordinator", to_coordinator(signal.SIGTERM), (130,), "ended_early"),
    Way("SIGTERM of an agent", to_an_agent(signal.SIGTERM), (1,), "ended_early"),
    Way("SIGTERM, continue", to_an_agent(signal.SIGTERM), FINISHED, "ended_early", CONTINUE),
    Way("SIGKILL of an agent", to_an_agent(signal.SIGKILL), (1,), "agent_lost", is_killed=True),
    Way("SIGKILL, continue", to_an_agent(signal.SIGKILL), FINISHED, "agent_lost", CONTINUE, is_killed=True),
    Way("loss before the start", to_an_agent(signal.SIGKILL), FINISHED, "agent_lost", CONTINUE, begun=0,
        is_killed=True),
    Way("death of the coordinator", to_coordinator(signal.SIGKILL), (1,), "ended_early"),
]  # fmt: skip


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name.replace(" ", "_"))
def test_the_accounts_are_those_of_the_whole_plan(tmp_path: Path, way: Way) -> None:
    evening(tmp_path / "t.trace", seconds=PLANNED // PER_SECOND, per_second=PER_SECOND)
    with Sink() as sink:
        target = ("t.trace", "--target", url(sink), "-t", "1")
        with running(tmp_path, *target, "--cluster", "local:2", *way.flags) as run:
            run.await_start(2)
            until(lambda: len(sink.stamps()["seq"]) >= way.begun)
            way.happens(run)
            code, printed = run.wait()
            if code == -signal.SIGKILL:
                code, printed = merged_by_hand(run)
            received = sink.stamps()["seq"].tolist()
    assert code in way.codes, printed
    document = run.document()
    assert_whole(document)
    assert len(set(received)) == len(received)
    # A process that is killed may have sent the request that it had not counted yet.
    assert abs(len(received) - document["accounts"]["sent"]) <= way.is_killed
    if way.codes == FINISHED:
        assert document["agents"][0]["accounts"]["ok"] == PLANNED // 2, "the other agent went on"
    assert (document["ending"]["how"] == "interrupted") == (way.codes == (130,))
    unsent = document["accounts_detail"]["unsent"]
    codes = {reason["code"] for reason in document["validity"]["reasons"]}
    assert (way.reason == "") == (document["accounts"]["unsent"] == 0), printed
    assert not way.reason or unsent[way.reason] > 0, printed
    assert ("AGENT_LOST" in codes) == ("LOST agent 1" in printed) == (way.reason == "agent_lost"), printed
    assert ("AGENT_ENDED_EARLY" in codes) == (way.reason == "ended_early" and way.flags == CONTINUE), printed


def merged_by_hand(run: Command) -> tuple[int, str]:
    """`replay merge` of the folders that the agents left; its exit code and output."""
    pids = run.agent_pids()
    until(lambda: not any(map(is_alive, pids)))
    folders = sorted(str(path.parent) for path in run.agents.glob("agent-*/share.json"))
    command = [sys.executable, "-m", "replay.cli", "merge", *folders, "-o", "RUN", "--plain"]
    done = subprocess.run(command, cwd=run.folder, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout + done.stderr


def assert_whole(document: dict[str, Any]) -> None:
    """The accounts of a run and of its agents balance, and cover the plan."""
    accounts = document["accounts"]
    assert accounts["planned"] == PLANNED
    assert accounts["planned"] == accounts["sent"] + accounts["unsent"] + accounts["unknown"]
    assert sum(document["accounts_detail"]["unsent"].values()) == accounts["unsent"]
    for name in ("planned", "sent", "unsent", "unknown"):
        assert sum(agent["accounts"].get(name, 0) for agent in document["agents"]) == accounts[name], name


def test_a_breaker_that_opens_at_an_agent_ends_the_whole(tmp_path: Path) -> None:
    evening(tmp_path / "t.trace", seconds=8, per_second=100, path="/sink/status=503?n={}")
    (tmp_path / "day.toml").write_text('trace = "t.trace"\n[breaker]\nover = "2s"\n')
    with Sink() as sink:
        target = ("day.toml", "--target", url(sink), "-t", "1")
        with running(tmp_path, *target, "--cluster", "local:2") as run:
            code, printed = run.wait()
    document = run.document()
    assert_whole(document)
    assert code in (99, 4) and document["ending"]["how"] == "circuit_breaker", printed
    assert document["accounts_detail"]["unsent"]["ended_early"] > 0


def test_an_agent_that_is_interrupted_before_the_start_fails_the_run(tmp_path: Path) -> None:
    """The coordinator was not interrupted, so its exit code is 1."""
    evening(tmp_path / "t.trace", seconds=2, per_second=10)
    command = f"exec {AGENT} --stdio --folder {tmp_path / 'store'}"
    (tmp_path / "hosts.txt").write_text(f"h echo $$ > {tmp_path / 'pid'}; {command}\n")
    target = ("t.trace", "--target", f"http://127.0.0.1:{free_port()}", "-t", "1")
    env = {"REPLAY_SSH": ssh_of(tmp_path)}
    with running(tmp_path, *target, "--cluster", "ssh:hosts.txt", env=env) as run:
        log = run.agents / "agent-0.log"
        until(lambda: log.exists() and "accepted by the coordinator" in log.read_text())
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGTERM)
        code, printed = run.wait()
    assert code == 1 and "SIGTERM" in printed
