"""Kills of agents, coordinators and Dask workers at random moments of runs over agents of this machine.

`python -m benchmarks.cluster_kills --agents 40 --coordinators 10 --workers 10 --seed 1` makes 60 kills, each in a run of
its own, and prints what was killed, when, and how the run ended. If the run ended before its kill, it is repeated. The
checks: no request is sent twice, the accounts balance and agree with the sink, a lost agent is reported within 2 s and
its run is not VALID, agents that have the order to start end within 5 s of their coordinator's death, a run that has
begun does not need its Dask workers and nannies, and no traceback is printed. The exit code is 1 if a check fails, or if
`--budget` seconds do not suffice for all kills.
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
"""The probability that a kill does not wait for the order to start."""


class Lines:
    """The lines that a run prints on standard error, each with its time."""

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
        """Return when the first line with this text was printed, or None."""
        return next((at for at, line in self.lines if word in line), None)

    @property
    def text(self) -> str:
        """All lines so far."""
        return "".join(line for _, line in self.lines)


def agents_of(folder: Path) -> list[int]:
    """Return the processes of a run's agents, found by their command and working folder."""
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
    """Return what is wrong with a run in which a process was killed, judged by its accounts and the sink's stamps."""
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
        wrong.append(f"the sink received {len(seqs)} requests, which contradicts the accounts {accounts}")
    return wrong


@dataclass
class Outcome:
    """One kill: its moment, its victim, the requests before it, how the run ended, and the checks that failed.

    `victim` is empty if the run had ended before the kill.
    """

    moment: str
    victim: str = ""
    requests: int = 0
    ended: str = ""
    wrong: list[str] = field(default_factory=list)


def ended(run: Command) -> str:
    """Return how a run ended: its exit code, verdict and accounts."""
    code = f"exit code {run.process.returncode}"
    if not (run.out / "run.json").exists():
        return f"{code}, no run"
    document = run.document()
    accounts = ", ".join(f"{name} {document['accounts'][name]}" for name in ("sent", "unsent", "unknown"))
    return f"{code}, {document['validity']['verdict']}, {accounts}"


def await_moment(run: Command, lines: Lines, draw: random.Random) -> str:
    """Wait for a random moment after both agents have started, or after the order to start; return it in words.

    If the run ends before that, the moment is counted from its end.
    """
    until(lambda: len(agents_of(run.folder)) == 2 or run.process.poll() is not None, WAIT_S)
    if draw.random() < BEFORE_START:
        at_s = draw.uniform(0, 4)
        time.sleep(at_s)
        return f"{at_s:.2f} s after both agents started"
    until(lambda: lines.first("they start in") is not None or run.process.poll() is not None, WAIT_S)
    at_s = draw.uniform(0, SECONDS + 2.5)
    time.sleep(at_s)
    return f"{at_s:.2f} s after the order to start"


def kill_agent(folder: Path, draw: random.Random) -> Outcome:
    """Kill one agent of two, and check the run."""
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
            found.wrong.append(f"the agent was reported only after {lost_at - killed_at:.2f} s")
        return found


def _unnamed(run: Command, pid: int, printed: str) -> list[str]:
    """Return what is wrong if no line reported the kill of an agent: nothing, if it had sent its whole share before."""
    if not (run.out / "run.json").exists():
        return [f"the agent was not reported; the run printed: {printed[-300:]}"]
    own = [agent for agent in run.document()["agents"] if agent["pid"] == pid]
    if own and own[0]["ending"] == "whole" and own[0]["accounts"]["sent"] == own[0]["planned"]:
        return []
    return [f"the agent was not reported, although it had not sent its whole share: {own}"]


def kill_coordinator(folder: Path, draw: random.Random) -> Outcome:
    """Kill the coordinator, and check that its agents end and leave folders that can be merged."""
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
            found.wrong.append(f"the agents ended only after {took_s:.2f} s")
        if len(seqs) != len(set(seqs)):
            found.wrong.append("requests were sent twice")
        found.wrong += _merge_folders(run, seqs)
        return found


def _merge_folders(run: Command, seqs: list[int]) -> list[str]:
    """Merge the folders that the agents left, and return what is wrong with the result."""
    folders = sorted(str(path.parent) for path in run.agents.glob("agent-*/run.json"))
    if not folders:
        return [f"{len(seqs)} requests were sent, but the agents left no folder"] if seqs else []
    merged = run.folder / "merged"
    words = [sys.executable, "-m", "replay.cli", "merge", *folders, "-o", str(merged)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if not (merged / "run.json").exists():
        return [f"the agents' folders cannot be merged: {done.stderr[-300:]}"]
    accounts = json.loads((merged / "run.json").read_text())["accounts"]
    if accounts["sent"] != len(seqs):
        return [f"the sink received {len(seqs)} requests, but the merged accounts are {accounts}"]
    return []


def await_dask_moment(run: Command, lines: Lines, draw: random.Random) -> str:
    """Wait for a random moment within 6 s of the command, or after the order to start; return it in words."""
    if draw.random() < BEFORE_START:
        at_s = draw.uniform(0, 6)
        time.sleep(at_s)
        return f"{at_s:.2f} s after the command"
    until(lambda: lines.first("they start in") is not None or run.process.poll() is not None, WAIT_S)
    at_s = draw.uniform(0, SECONDS + 1.5)
    time.sleep(at_s)
    return f"{at_s:.2f} s after the order to start"


def kill_worker(folder: Path, draw: random.Random) -> Outcome:
    """Kill a Dask worker or a nanny, and check that a run that has begun sends everything.

    Agents are separate processes, so that they outlive their worker.
    """
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
    """Return the live processes with a word in their command line."""
    pids = [int(entry.name) for entry in Path("/proc").glob("[0-9]*")]
    return [pid for pid in pids if word in _words_of(pid) and is_alive(pid)]


def _words_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _worker_of(nanny: int) -> int:
    """Return the worker that a nanny started by multiprocessing, which starts a resource tracker as well."""
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
    """Kill `wanted` times, or until `ends`, each in a run of its own; return the kills, and those with a failed check."""
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
            f"{kind} {done}: {outcome.victim} killed {outcome.moment}, after {outcome.requests} requests: "
            f"{outcome.ended}; {'; '.join(outcome.wrong) or 'all checks passed'}",
            flush=True,
        )
    return done, faults


def main() -> int:
    """Kill, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    for kind in KINDS:
        parser.add_argument(f"--{kind}", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--budget", type=float, default=1_800.0, help="time limit in s")
    given = parser.parse_args()
    draw, ends = random.Random(given.seed), time.monotonic() + given.budget
    faults = missing = 0
    for kind in KINDS:
        wanted = getattr(given, kind)
        done, wrong = kill_many(kind, wanted, draw, ends)
        faults, missing = faults + wrong, missing + wanted - done
        print(f"{kind}: {done} of {wanted} killed", flush=True)
    print(f"{faults} runs with failed checks")
    return 1 if faults or missing else 0


if __name__ == "__main__":
    raise SystemExit(main())
