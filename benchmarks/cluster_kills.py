"""Kills of agents, coordinators and Dask workers at random instants of runs over agents of this machine.

`python -m benchmarks.cluster_kills --agents 40 --coordinators 10 --workers 10 --seed 1` kills as often, each in a run of
its own, and prints what was killed, when, and how the run ended. A kill that finds nothing to kill is repeated. What is
checked: nothing is sent twice, the accounts balance and agree with what the sink got, a lost agent is reported within
2 s and its run is not VALID, agents that have the order to start are gone within 5 s without a coordinator, the requests
of a run go on without its Dask workers and nannies, and no traceback is printed. It ends with 1 if one of these does
not hold, or if `--budget` seconds were too few for all kills.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from replay.staging.sink import Sink
from tests.cluster.support import Command, evening, running, until
from tests.cluster.test_transports import dask
from tests.support.waiting import is_alive

SECONDS, PER_SECOND = 6, 100
LOST_S, LEAVE_S = 2.0, 5.0
WAIT_S = 600.0
BEFORE_START = 0.3
"""The share of the kills before the order to start."""


class Lines:
    """What a run prints on standard error, with the moment of each line."""

    def __init__(self, command: Command) -> None:
        self.lines: list[tuple[float, str]] = []
        self._stream = command.process.stderr
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._stream is not None
        for line in self._stream:
            self.lines.append((time.monotonic(), line))

    def first(self, word: str) -> float | None:
        """When a line with this word was printed."""
        return next((at for at, line in self.lines if word in line), None)

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(line for _, line in self.lines)


def agents_of(folder: Path) -> list[int]:
    """The processes of the agents of a run, which work in its folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().split(b"\0")
            place = (entry.parent / "cwd").readlink()
        except OSError:
            continue
        if b"agent" in words and place == folder:
            found.append(int(entry.parent.name))
    return sorted(found)


def check_run(run: Command, seqs: list[int], printed: str) -> list[str]:
    """What is wrong with the result of a run that lost something."""
    wrong = []
    if len(seqs) != len(set(seqs)):
        wrong.append(f"{len(seqs) - len(set(seqs))} requests were sent twice")
    if "Traceback" in printed:
        wrong.append("a traceback was printed")
    if not (run.out / "run.json").exists():
        if seqs:
            wrong.append(f"{len(seqs)} requests were sent, and there is no result")
        return wrong
    accounts = run.document()["accounts"]
    if accounts["planned"] != accounts["sent"] + accounts["unsent"] + accounts["unknown"]:
        wrong.append(f"the accounts do not balance: {accounts}")
    if run.document()["validity"]["verdict"] == "VALID" and any(a["lost"] for a in run.document()["agents"]):
        wrong.append("an agent was lost, and the run is VALID")
    if not accounts["sent"] - 1 <= len(seqs) <= accounts["sent"] + accounts["unknown"] + 1:
        wrong.append(f"the sink got {len(seqs)}, the accounts say {accounts}")
    return wrong


@dataclass
class Outcome:
    """One kill: what was killed (empty: it came too late), after how many requests, and what did not hold."""

    moment: str
    victim: str = ""
    requests: int = 0
    ended: str = ""
    wrong: list[str] = field(default_factory=list)


def ended(run: Command) -> str:
    """How a run ended, for the line of its kill."""
    code = f"exit code {run.process.returncode}"
    if not (run.out / "run.json").exists():
        return f"{code}, no run"
    document = run.document()
    accounts = ", ".join(f"{name} {document['accounts'][name]}" for name in ("sent", "unsent", "unknown"))
    return f"{code}, {document['validity']['verdict']}, {accounts}"


def await_moment(run: Command, lines: Lines, draw: random.Random) -> str:
    """Wait for a random moment: before the start, while both agents get ready, or after it; says which."""
    until(lambda: len(agents_of(run.folder)) == 2 or run.process.poll() is not None, WAIT_S)
    if draw.random() < BEFORE_START:
        at_s = draw.uniform(0, 4)
        time.sleep(at_s)
        return f"{at_s:.2f} s after both agents came"
    until(lambda: lines.first("they start in") is not None or run.process.poll() is not None, WAIT_S)
    at_s = draw.uniform(0, SECONDS + 2.5)
    time.sleep(at_s)
    return f"{at_s:.2f} s after the order to start"


def kill_agent(folder: Path, draw: random.Random) -> Outcome:
    """Kill one agent of two."""
    with (
        Sink() as sink,
        running(folder, *_words(sink), "--cluster", "local:2", "--on-lost", "continue") as run,
    ):
        lines = Lines(run)
        found = Outcome(moment=await_moment(run, lines, draw), requests=len(sink.stamps()))
        pids = agents_of(run.folder)
        killed_at = time.monotonic()
        if pids:
            pid = draw.choice(pids)
            os.kill(pid, signal.SIGKILL)
            found.victim = f"agent (pid {pid})"
        run.process.wait(WAIT_S)
        found.ended = ended(run)
        found.wrong = check_run(run, sink.stamps()["seq"].tolist(), lines.text)
        lost_at = lines.first("LOST") or lines.first("lost before") or lines.first("ended before it came")
        if pids and lost_at is None:
            found.wrong += _unnamed(run, pid, lines.text)
        if lost_at is not None and lost_at - killed_at > LOST_S:
            found.wrong.append(f"the agent was reported after {lost_at - killed_at:.2f} s")
        return found


def _unnamed(run: Command, pid: int, printed: str) -> list[str]:
    """What is wrong if an agent was killed and no line said so: nothing, if it had sent all of its share before."""
    if not (run.out / "run.json").exists():
        return [f"the agent was not reported: {printed[-300:]}"]
    own = [agent for agent in run.document()["agents"] if agent["pid"] == pid]
    if own and own[0]["ending"] == "whole" and own[0]["accounts"]["sent"] == own[0]["planned"]:
        return []
    return [f"the agent was not reported, and had not ended: {own}"]


def kill_coordinator(folder: Path, draw: random.Random) -> Outcome:
    """Kill the coordinator; its agents have to end, with folders that can be merged."""
    with Sink() as sink, running(folder, *_words(sink), "--cluster", "local:2") as run:
        lines = Lines(run)
        found = Outcome(moment=await_moment(run, lines, draw), requests=len(sink.stamps()))
        if run.process.poll() is not None:
            return found
        run.process.kill()
        run.process.wait()
        found.victim = f"coordinator (pid {run.process.pid})"
        began = time.monotonic()
        until(lambda: not agents_of(run.folder), WAIT_S)
        took_s = time.monotonic() - began
        seqs = sink.stamps()["seq"].tolist()
        found.ended = f"agents gone after {took_s:.2f} s"
        if run.out.exists():
            found.wrong = check_run(run, seqs, lines.text)
            return found
        if "Traceback" in lines.text:
            found.wrong.append("a traceback was printed")
        if took_s > LEAVE_S and lines.first("they start in") is not None:
            found.wrong.append(f"the agents were gone after {took_s:.2f} s")
        if len(seqs) != len(set(seqs)):
            found.wrong.append("requests were sent twice")
        found.wrong += _merge_folders(run, seqs)
        return found


def _merge_folders(run: Command, seqs: list[int]) -> list[str]:
    """Merge what the agents left; what is wrong with it."""
    folders = sorted(str(path.parent) for path in run.agents.glob("agent-*/run.json"))
    if not folders:
        return [f"{len(seqs)} requests were sent, and no folder is left"] if seqs else []
    merged = run.folder / "merged"
    words = [sys.executable, "-m", "replay.cli", "merge", *folders, "-o", str(merged)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if not (merged / "run.json").exists():
        return [f"the folders do not merge: {done.stderr[-300:]}"]
    accounts = json.loads((merged / "run.json").read_text())["accounts"]
    if accounts["sent"] != len(seqs):
        return [f"the sink got {len(seqs)}, the agents' folders say {accounts}"]
    return []


def await_dask_moment(run: Command, lines: Lines, draw: random.Random) -> str:
    """Wait for a random moment: before there are agents, while they get ready, or after the start; says which."""
    if draw.random() < BEFORE_START:
        at_s = draw.uniform(0, 6)
        time.sleep(at_s)
        return f"{at_s:.2f} s after the command"
    until(lambda: lines.first("they start in") is not None or run.process.poll() is not None, WAIT_S)
    at_s = draw.uniform(0, SECONDS + 1.5)
    time.sleep(at_s)
    return f"{at_s:.2f} s after the order to start"


def kill_worker(folder: Path, draw: random.Random) -> Outcome:
    """Kill a Dask worker or a nanny: their agents are separate processes, and nothing is started twice."""
    with Sink() as sink, dask(folder, 2) as at:
        place = at.partition("//")[2]
        nannies = [pid for pid in _processes("dask_worker") if place in _words_of(pid)]
        with running(folder, *_words(sink), "--cluster", at, "--on-lost", "continue") as run:
            lines = Lines(run)
            found = Outcome(moment=await_dask_moment(run, lines, draw), requests=len(sink.stamps()))
            if run.process.poll() is not None:
                return found
            nanny, role = draw.choice(nannies), draw.choice(("nanny", "worker"))
            pid = nanny if role == "nanny" else _worker_of(nanny)
            os.kill(pid, signal.SIGKILL)
            found.victim = f"Dask {role} (pid {pid})"
            run.process.wait(WAIT_S)
            found.ended = ended(run)
            found.wrong = check_run(run, sink.stamps()["seq"].tolist(), lines.text)
            if found.requests and "unsent 0, unknown 0" not in found.ended:
                found.wrong.append(f"a run that had begun needed its Dask {role}: {lines.text[-300:]}")
            return found


def _processes(word: str) -> list[int]:
    """Processes with a word in their command line."""
    pids = [int(entry.name) for entry in Path("/proc").glob("[0-9]*")]
    return [pid for pid in pids if word in _words_of(pid) and is_alive(pid)]


def _words_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _worker_of(nanny: int) -> int:
    """The worker that a nanny started: a child by multiprocessing, beside its resource tracker."""
    children = [
        int(pid)
        for path in Path(f"/proc/{nanny}/task").glob("*/children")
        for pid in path.read_text().split()
    ]
    return next(pid for pid in children if "spawn_main" in _words_of(pid))


def _words(sink: Sink) -> list[str]:
    return ["t.trace", "--target", f"http://127.0.0.1:{sink.port}", "-t", "1"]


KINDS = {"agents": kill_agent, "coordinators": kill_coordinator, "workers": kill_worker}


def kill_many(kind: str, wanted: int, draw: random.Random, ends: float) -> tuple[int, int]:
    """Kill so often, in a run each; (kills, runs in which something did not hold)."""
    done = faults = 0
    while done < wanted and time.monotonic() < ends:
        with tempfile.TemporaryDirectory(prefix="replay-kills-") as folder:
            evening(Path(folder) / "t.trace", seconds=SECONDS, per_second=PER_SECOND)
            outcome = KINDS[kind](Path(folder), draw)
        if not outcome.victim:
            continue
        done += 1
        faults += bool(outcome.wrong)
        print(
            f"{kind} {done}: {outcome.victim} killed {outcome.moment}, {outcome.requests} requests: "
            f"{outcome.ended}; {'; '.join(outcome.wrong) or 'all held'}",
            flush=True,
        )
    return done, faults


def main() -> int:
    """Kill, and print what did not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    for kind in KINDS:
        parser.add_argument(f"--{kind}", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--budget", type=float, default=1_800.0, help="seconds")
    given = parser.parse_args()
    draw, ends = random.Random(given.seed), time.monotonic() + given.budget
    faults = missing = 0
    for kind in KINDS:
        wanted = getattr(given, kind)
        done, wrong = kill_many(kind, wanted, draw, ends)
        faults, missing = faults + wrong, missing + wanted - done
        print(f"{kind}: {done} of {wanted} killed", flush=True)
    print(f"{faults} runs with faults")
    return 1 if faults or missing else 0


if __name__ == "__main__":
    raise SystemExit(main())
