"""Kills of agents, coordinators and Dask workers at random instants of runs over agents of this machine.

`python -m benchmarks.cluster_kills --agents 40 --coordinators 10 --workers 10 --seed 1` kills as often, each in a run of
its own, and checks: nothing is sent twice, the accounts balance and agree with what the sink got, a lost agent is
reported within 2 s, agents without a coordinator are gone within 5 s, and no traceback is printed. It ends with 1 if
one of these does not hold, or after `--budget` seconds with what was done until then.
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
from pathlib import Path

from replay.staging.sink import Sink
from tests.cluster.support import Command, evening, is_alive, running, until
from tests.cluster.test_transports import dask

SECONDS, PER_SECOND = 6, 100
LOST_S, LEAVE_S = 2.0, 5.0


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
    if not accounts["sent"] - 1 <= len(seqs) <= accounts["sent"] + accounts["unknown"] + 1:
        wrong.append(f"the sink got {len(seqs)}, the accounts say {accounts}")
    return wrong


def kill_agent(folder: Path, at_s: float) -> list[str]:
    """Kill one agent of two, `at_s` after both were there."""
    with (
        Sink() as sink,
        running(folder, *_words(sink), "--cluster", "local:2", "--on-lost", "continue") as run,
    ):
        lines = Lines(run)
        until(lambda: len(agents_of(run.folder)) == 2 or run.process.poll() is not None)
        time.sleep(at_s)
        pids = agents_of(run.folder)
        killed_at = time.monotonic()
        if pids:
            os.kill(pids[-1], signal.SIGKILL)
        run.process.wait(60)
        wrong = check_run(run, sink.stamps()["seq"].tolist(), lines.text)
        lost_at = (
            lines.first("LOST") or lines.first("lost before") or lines.first("ended before it connected")
        )
        if pids and lost_at is None and run.process.returncode not in (0, 4, 99):
            wrong.append(f"the agent was not reported: {lines.text[-300:]}")
        if lost_at is not None and lost_at - killed_at > LOST_S:
            wrong.append(f"the agent was reported after {lost_at - killed_at:.2f} s")
        return wrong


def kill_coordinator(folder: Path, at_s: float) -> list[str]:
    """Kill the coordinator; its agents have to end, with folders that can be merged."""
    with Sink() as sink, running(folder, *_words(sink), "--cluster", "local:2") as run:
        lines = Lines(run)
        until(lambda: len(agents_of(run.folder)) == 2 or run.process.poll() is not None)
        time.sleep(at_s)
        run.process.kill()
        run.process.wait()
        began = time.monotonic()
        until(lambda: not agents_of(run.folder), 20)
        took_s = time.monotonic() - began
        seqs = sink.stamps()["seq"].tolist()
        if run.out.exists():
            return check_run(run, seqs, lines.text)
        wrong = [] if "Traceback" not in lines.text else ["a traceback was printed"]
        if took_s > LEAVE_S:
            wrong.append(f"the agents were gone after {took_s:.2f} s")
        if len(seqs) != len(set(seqs)):
            wrong.append("requests were sent twice")
        folders = sorted(str(path.parent) for path in run.agents.glob("agent-*/run.json"))
        if folders:
            words = [sys.executable, "-m", "replay.cli", "merge", *folders, "-o", str(folder / "merged")]
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            document = folder / "merged" / "run.json"
            if not document.exists():
                return [*wrong, f"the folders do not merge: {done.stderr[-300:]}"]
            accounts = json.loads(document.read_text())["accounts"]
            if accounts["sent"] != len(seqs):
                wrong.append(f"the sink got {len(seqs)}, the agents' folders say {accounts}")
        elif seqs:
            wrong.append(f"{len(seqs)} requests were sent, and no folder is left")
        return wrong


def kill_worker(folder: Path, at_s: float) -> list[str]:
    """Kill a Dask worker with its nanny: its agent is a separate process, and nothing is started twice."""
    with Sink() as sink, dask(folder, 2) as at:
        workers = _processes(f"dask_worker\0{at}")
        with running(folder, *_words(sink), "--cluster", at, "--on-lost", "continue") as run:
            lines = Lines(run)
            time.sleep(at_s)
            os.kill(random.choice(workers), signal.SIGKILL)
            run.process.wait(60)
            return check_run(run, sink.stamps()["seq"].tolist(), lines.text)


def _processes(mark: str) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if mark.split("\0")[1].encode() in entry.read_bytes() and b"worker" in entry.read_bytes():
                found.append(int(entry.parent.name))
        except OSError:
            continue
    return [pid for pid in found if is_alive(pid)]


def _words(sink: Sink) -> list[str]:
    return ["t.trace", "--target", f"http://127.0.0.1:{sink.port}", "-t", "1"]


KINDS = {"agents": kill_agent, "coordinators": kill_coordinator, "workers": kill_worker}
UNTIL_S = {"agents": 12.0, "coordinators": 12.0, "workers": 16.0}
"""Kills happen until then, so that some come before the start and some near the end."""


def main() -> int:
    """Kill, and print what did not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    for kind in KINDS:
        parser.add_argument(f"--{kind}", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--budget", type=float, default=1_800.0, help="seconds")
    given = parser.parse_args()
    draw, ends = random.Random(given.seed), time.monotonic() + given.budget
    faults = 0
    for kind, kill in KINDS.items():
        done = 0
        for _ in range(getattr(given, kind)):
            if time.monotonic() > ends:
                break
            at_s = draw.uniform(0, UNTIL_S[kind])
            with tempfile.TemporaryDirectory(prefix="replay-kills-") as folder:
                evening(Path(folder) / "t.trace", seconds=SECONDS, per_second=PER_SECOND)
                wrong = kill(Path(folder), at_s)
            done += 1
            faults += bool(wrong)
            for what in wrong:
                print(f"{kind}, killed after {at_s:.2f} s: {what}", flush=True)
        print(f"{kind}: {done} killed", flush=True)
    print(f"{faults} runs with faults")
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
