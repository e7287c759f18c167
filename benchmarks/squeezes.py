"""Is the verdict on the generator right? Random runs in which the generator, the target, or neither is at fault.

- `squeezed`: the generator alone is starved: stopped in turns, crowded out by others on its core, niced, under a CPU quota.
- `target`: the generator is at ease, and the target is slow, stalled, capped, dead or silent.
- `together`: target and generator share two cores with other work, as on a CI runner.

The truth comes from the server's own stamps: its arrival less the due time, plus the time that the server was asked to
take. A VALID run whose response is wrong is a fault; so is a run that is not VALID although its generator was at ease.
`python -m benchmarks squeezes --count 15` is a short form.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from replay.staging.sink import SinkMemory
from replay.trace import TraceWriter

from . import https, peers

COUNT = 100
"""Runs of each kind."""

SECONDS = 8.0
SEED = 20_260_105
OFF_SHARE, OFF_NS = 0.25, 2_000_000
"""A response is wrong where it is off by more than both."""

GAP_MS = 1.0
"""A run in which a heartbeat on the generator's core was kept waiting for longer shows nothing about the generator."""

INVALID_MOST, SUSPECT_MOST, SET_ASIDE_MOST = 0.02, 0.10, 0.20
"""Shares of the runs at ease that may be judged so, or set aside."""

MAX_WAIT_S = 10
RUN_BOUND_S = 150.0
CLIENTS = 50
CGROUP = Path("/sys/fs/cgroup/cpu")

_HEART = """
import sys, time
longest = 0.0
sys.stdin.readline()
end = time.monotonic() + float(sys.argv[1])
while (now := time.monotonic()) < end:
    time.sleep(0.002)
    longest = max(longest, time.monotonic() - now - 0.002)
print(1e3 * longest)
"""
_HOG = "while True: pass"
_WORK = """
import sys, time
share = float(sys.argv[1])
while True:
    until = time.monotonic() + 0.01 * share
    while time.monotonic() < until: pass
    time.sleep(0.01 * (1 - share))
"""


@dataclass(frozen=True)
class Case:
    """One run: what is sent, and what happens to whom. `delay_ms` is the time that the server is asked to take."""

    kind: str
    what: str
    rate: int
    secured: bool
    connect: str
    delay_ms: int
    figures: tuple[float, ...] = ()
    connections: int = 0


@dataclass(frozen=True)
class Result:
    """What a run said of itself beside the truth, ms; `unsent` is a share of the plan."""

    case: Case
    verdict: str
    reasons: list[str]
    measured_ms: tuple[float, float]
    truth_ms: tuple[float, float]
    unsent: float
    gap_ms: float
    ending: str

    @property
    def off(self) -> bool:
        """Whether its response p50 or p99 is wrong."""
        return any(
            abs(said - true) > max(OFF_SHARE * true, OFF_NS / 1e6)
            for said, true in zip(self.measured_ms, self.truth_ms, strict=True)
        )

    @property
    def fault(self) -> str:
        """What is wrong with the verdict; nothing where it is right, or cannot be judged."""
        if self.case.kind == "squeezed":
            if self.unsent > 1 / 2 and self.verdict != "INVALID":
                return "most of the plan is unsent, and the run is not INVALID"
            return "VALID, and its response is wrong" if self.off and self.verdict == "VALID" else ""
        return "" if self.verdict == "VALID" or self.set_aside else f"{self.verdict} at ease"

    @property
    def set_aside(self) -> bool:
        """Whether the machine kept the generator waiting."""
        return self.case.kind != "squeezed" and self.gap_ms > GAP_MS


def cases(kind: str, count: int, seed: int = SEED) -> list[Case]:
    """Random ones, always the same for a seed."""
    random = np.random.default_rng([seed, ["squeezed", "target", "together"].index(kind)])
    return [_CASES[kind](random) for _ in range(count)]


def _squeezed(random: np.random.Generator) -> Case:
    what = str(random.choice(["stop", "stop", "hogs", "nice", "quota", "shares"]))
    figures: tuple[float, ...] = (float(random.integers(1, 5)),)
    if what == "stop":
        figures = (float(random.uniform(0.02, 0.8)), float(random.choice([0.03, 0.1, 0.3, 1.0])))
    elif what == "quota":
        figures = (float(random.uniform(0.03, 0.3)),)
    return Case(
        "squeezed", what, int(random.choice([50, 200, 500, 1_000, 1_500, 3_000])), bool(random.integers(2)),
        str(random.choice(["pool", "per-request", "per-client"])), int(random.choice([0, 0, 5, 20, 100])), figures,
    )  # fmt: skip


def _target(random: np.random.Generator) -> Case:
    what = str(random.choice(["slow", "stalled", "capped", "silent", "killed"]))
    delay_ms = {"slow": int(random.integers(200, 2_000)), "capped": int(random.integers(20, 200))}.get(
        what, 0
    )
    connections = int(random.integers(2, 20)) if what == "capped" else 0
    figures = (float(random.uniform(0.5, 4.0)),)
    return Case(
        "target", what, int(random.choice([20, 100, 300])), bool(random.integers(2)) and what != "silent",
        str(random.choice(["pool", "per-request", "per-client"])), delay_ms, figures, connections,
    )  # fmt: skip


def _together(random: np.random.Generator) -> Case:
    return Case(
        "together", "load", int(random.choice([20, 100, 300])), bool(random.integers(2)),
        str(random.choice(["pool", "per-request", "per-client"])), int(random.choice([0, 5, 50])), (0.3,),
    )  # fmt: skip


_CASES: dict[str, Callable[[np.random.Generator], Case]] = {
    "squeezed": _squeezed,
    "target": _target,
    "together": _together,
}


def _trace(path: Path, case: Case, seconds: float) -> np.ndarray:
    """Evenly spaced requests of a few clients; their times from the first one on, ns."""
    at_ns = np.arange(int(case.rate * seconds), dtype=np.int64) * 1_000_000_000 // case.rate
    with TraceWriter(path) as writer:
        target = f"/sink/delay_ms={case.delay_ms}".encode() if case.delay_ms else b"/"
        ids = np.full(at_ns.size, writer.add_request("GET", target), np.uint32)
        clients = (np.arange(at_ns.size) % CLIENTS).astype(np.uint32)
        writer.add_events(1_577_836_800_000_000_000 + at_ns, ids, clients)
    return at_ns


@contextlib.contextmanager
def _others(scripts: list[list[str]], core: int | None = None) -> Iterator[list[subprocess.Popen[str]]]:
    """Python programs beside the run, ended with it."""
    started = []
    try:
        for script in scripts:
            command = [sys.executable, "-S", "-c", *script]
            started.append(
                subprocess.Popen(
                    peers.pinned(core, command) if core is not None else command,
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                )
            )  # fmt: skip
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


@contextlib.contextmanager
def _quota(pid: int, share: float | None, shares: int | None) -> Iterator[None]:
    """A control group of its own for a process, under a quota of a core or with few shares; v1 alone has these files."""
    group = CGROUP / f"squeezes-{pid}"
    group.mkdir()
    try:
        if share is not None:
            (group / "cpu.cfs_period_us").write_text("100000")
            (group / "cpu.cfs_quota_us").write_text(str(max(round(share * 100_000), 1_000)))
        if shares is not None:
            (group / "cpu.shares").write_text(str(shares))
        (group / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        # The process has ended, unless its time limit was reached.
        with contextlib.suppress(OSError):
            (CGROUP / "cgroup.procs").write_text(str(pid))
        group.rmdir()


def _squeeze(process: subprocess.Popen[bytes], case: Case, bound: float) -> None:
    """Starve the generator until it ends, or until the bound."""
    with contextlib.ExitStack() as stack:
        if case.what in ("hogs", "nice", "shares"):
            hogs = int(case.figures[0]) if case.what == "hogs" else 1
            stack.enter_context(_others([[_HOG]] * hogs, peers.GENERATOR_CORE))
        if case.what == "nice":
            for thread in Path(f"/proc/{process.pid}/task").iterdir():
                with contextlib.suppress(ProcessLookupError):
                    os.setpriority(os.PRIO_PROCESS, int(thread.name), round(4 * case.figures[0]))
        if case.what in ("quota", "shares") and os.access(CGROUP / "cpu.shares", os.W_OK):
            share = case.figures[0] if case.what == "quota" else None
            stack.enter_context(_quota(process.pid, share, None if share else round(50 * case.figures[0])))
        if case.what != "stop":
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(bound - time.monotonic(), 1))
            return
        off_s, on_s = case.figures
        while process.poll() is None and time.monotonic() < bound:
            process.send_signal(signal.SIGSTOP)
            time.sleep(off_s)
            process.send_signal(signal.SIGCONT)
            time.sleep(on_s)


def _harm(case: Case, port: int, memory: SinkMemory | None, server: list[int]) -> None:
    """What happens to the target, two seconds into the load."""
    if case.what == "stalled" and memory is not None:
        memory.stall(case.figures[0], time.monotonic_ns() + 2_000_000_000)
    if case.what == "killed":
        time.sleep(2.0)
        os.kill(server[0], signal.SIGKILL)


@contextlib.contextmanager
def _server(
    case: Case, folder: Path, rows: int, identity: peers.Identity | None
) -> Iterator[tuple[int, Any, list[int]]]:
    """The target: a sink in a process of its own, or a port that takes connections and never answers."""
    if case.what == "silent":
        with socket.create_server(("127.0.0.1", 0), backlog=4_096) as listener:
            yield listener.getsockname()[1], None, []
        return
    with peers.sink_process(
        2 * rows + 1_000,
        spin=False,
        identity=identity,
        core=None if case.kind == "together" else peers.SERVER_CORE,
    ) as (port, memory, process):
        yield port, memory, [process.pid]


def _command(case: Case, trace: Path, out: Path, port: int, trusted: Path) -> list[str]:
    more = ["-c", str(case.connections)] if case.connections else []
    more += ["--ca", str(trusted)] if case.secured else []
    command = [
        sys.executable, "-m", "replay.cli", "run", str(trace),
        "--target", f"http{'s' if case.secured else ''}://127.0.0.1:{port}", "--connect", case.connect,
        "--max-wait", f"{MAX_WAIT_S}s", "--timeout", "10s", "-o", str(out), "--plain", *more,
    ]  # fmt: skip
    return command if case.kind == "together" else peers.pinned(peers.GENERATOR_CORE, command)


def run(case: Case, folder: Path, seconds: float = SECONDS) -> Result:
    """One run from its start to its verdict. RuntimeError where it left none."""
    folder.mkdir()
    at_ns = _trace(folder / "a.trace", case, seconds)
    identity, trusted = https.certificates(folder) if case.secured else (None, folder)
    out = folder / "run"
    cores = [None, None] if case.kind == "together" else [peers.GENERATOR_CORE]
    with contextlib.ExitStack() as stack:
        port, memory, server = stack.enter_context(_server(case, folder, at_ns.size, identity))
        if case.kind == "together":
            stack.enter_context(_others([[_WORK, str(case.figures[0])]] * 2))
        hearts = [
            stack.enter_context(_others([[_HEART, str(seconds)]], core))[0]
            for core in (range(2) if case.kind == "together" else cores if case.kind == "target" else [])
        ]
        said = stack.enter_context((folder / "said").open("wb"))
        process = subprocess.Popen(
            _command(case, folder / "a.trace", out, port, trusted), stdout=said, stderr=subprocess.STDOUT
        )
        bound = time.monotonic() + RUN_BOUND_S
        try:
            while not (out / "latency.hlog").exists() and process.poll() is None and time.monotonic() < bound:
                time.sleep(0.05)
            for heart in hearts:
                print(file=heart.stdin, flush=True)
            if case.kind == "squeezed":
                _squeeze(process, case, bound)
            else:
                _harm(case, port, memory, server)
            process.wait(max(bound - time.monotonic(), 10))
        finally:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()
        gap_ms = max((float(heart.stdout.readline()) for heart in hearts if heart.stdout), default=0.0)
        stamps = memory.stamps() if memory is not None else None
    if not (out / "run.json").exists():
        raise RuntimeError(f"{case} left no run: {(folder / 'said').read_text()[-2_000:]}")
    document = json.loads((out / "run.json").read_text())
    shutil.rmtree(folder)
    return _result(case, document, at_ns, stamps, gap_ms)


def _result(
    case: Case, document: dict[str, Any], at_ns: np.ndarray, stamps: np.ndarray | None, gap_ms: float
) -> Result:
    response, accounts = document["latency"]["response"], document["accounts"]
    measured = (response["p50_ns"] / 1e6, response["p99_ns"] / 1e6)
    truth = (
        measured
        if stamps is None
        else _truth_ms(case, document["start"]["monotonic_ns"], at_ns, stamps, accounts)
    )
    return Result(
        case=case,
        verdict=document["validity"]["verdict"],
        reasons=[reason["code"] for reason in document["validity"]["reasons"]],
        measured_ms=measured,
        truth_ms=truth,
        unsent=accounts["unsent"] / max(accounts["planned"], 1),
        gap_ms=round(gap_ms, 3),
        ending=document["ending"]["how"],
    )


def _truth_ms(
    case: Case, start_ns: int, at_ns: np.ndarray, stamps: np.ndarray, accounts: dict[str, int]
) -> tuple[float, float]:
    """By the server's stamps: the first arrival of each request less its due time, plus what it was asked to take. What
    never came was felt for `max_wait` at least, as in the run's own histogram.
    """
    stamps = stamps[(stamps["seq"] >= 0) & (stamps["seq"] < at_ns.size)]
    seqs, first = np.unique(stamps["seq"], return_index=True)
    felt = stamps["arrival_ns"][first] - start_ns - at_ns[seqs] + case.delay_ms * 1_000_000
    felt = np.concatenate(
        [felt, np.full(max(accounts["planned"] - felt.size, 0), MAX_WAIT_S * 1_000_000_000)]
    )
    p50, p99 = np.percentile(felt / 1e6, [50, 99]) if felt.size else (0.0, 0.0)
    return float(p50), float(p99)


def within(results: list[Result]) -> bool:
    """Whether the verdicts of one kind's runs are as right as they must be."""
    if results[0].case.kind == "squeezed":
        return not any(result.fault for result in results)
    counts = Counter(result.verdict for result in results if not result.set_aside)
    return (
        counts["INVALID"] <= INVALID_MOST * len(results)
        and counts["SUSPECT"] <= SUSPECT_MOST * len(results)
        and sum(result.set_aside for result in results) <= SET_ASIDE_MOST * len(results)
    )


def report(folder: Path, count: int = COUNT, seed: int = SEED) -> bool:
    """Runs of each kind, one after another, and what came of them; False where the verdicts are not right enough."""
    found = {}
    for kind in _CASES:
        results, lost = [], 0
        for number, case in enumerate(cases(kind, count, seed)):
            try:
                results.append(run(case, folder / f"{kind}-{number}"))
            except RuntimeError as error:
                lost += 1
                print(f"{kind} {number}: {error}", flush=True)
                continue
            print(f"{kind} {number}: {_line(results[-1])}", flush=True)
        found[kind] = bool(results) and not lost and within(results)
        verdicts = Counter(result.verdict for result in results if not result.set_aside)
        print(
            f"{kind}: {'right' if found[kind] else 'WRONG'}; {dict(verdicts)}; {sum(r.off for r in results)} off;"
            f" {sum(r.set_aside for r in results)} set aside; {sum(bool(r.fault) for r in results)} faults;"
            f" {lost} left no run",
            flush=True,
        )
    return all(found.values())


def _line(result: Result) -> str:
    case = result.case
    figures = ", ".join(f"{figure:.3g}" for figure in case.figures)
    pairs = zip(result.measured_ms, result.truth_ms, strict=True)
    said = ", ".join(f"{measured:.3g} ms (truth {truth:.3g})" for measured, truth in pairs)
    return (
        f"{case.what}({figures}) {case.rate}/s {'https' if case.secured else 'http'} {case.connect}"
        f" delay {case.delay_ms} ms: {result.verdict} {','.join(result.reasons)}; p50, p99 {said};"
        f" unsent {result.unsent:.0%}; gap {result.gap_ms} ms; {result.ending}"
        f"{'; OFF' if result.off else ''}{'; FAULT: ' + result.fault if result.fault else ''}"
    )
