"""Whether the verdict on the generator is right: random runs in which the generator, the target, or neither is at fault.

- `squeezed`: only the generator is starved. It is stopped and continued, shares its core, is niced, or has a CPU quota.
- `target`: the generator has its core for itself, and the target is slow, stalled, capped, killed or silent.
- `together`: target and generator share two cores with other work, as on a CI runner.

The true response time is the arrival by the server's stamps minus the due time, plus the delay that the server adds. A
squeezed run has a wrong verdict if it is VALID with wrong response times, or if most of its plan is unsent and it is not
INVALID. A run of the other kinds has a wrong verdict if it is not VALID, unless the machine delayed its generator.
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
from collections.abc import Callable, Iterator, Sequence
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
"""A response time is wrong if it is off by more than both, the share of the truth and the time."""

GAP_MS = 1.0
"""A run is set aside if a heartbeat on the generator's core was delayed for longer."""

INVALID_MOST, SUSPECT_MOST, SET_ASIDE_MOST = 0.02, 0.10, 0.20
"""The largest shares of the runs with an unstarved generator that may be INVALID, SUSPECT, or set aside."""

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
    """One run: its requests, and what happens to generator or target. `delay_ms` is the delay that the server adds."""

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
    """The figures that a run reports, and the truth: p50 and p99 of the response time in ms.

    `unsent` is a share of the plan.
    """

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
        """Whether the reported p50 or p99 of the response time is wrong."""
        return any(
            abs(said - true) > max(OFF_SHARE * true, OFF_NS / 1e6)
            for said, true in zip(self.measured_ms, self.truth_ms, strict=True)
        )

    @property
    def fault(self) -> str:
        """What is wrong with the verdict; empty if it is right, or if the run is set aside."""
        if self.case.kind == "squeezed":
            if self.unsent > 1 / 2 and self.verdict != "INVALID":
                return "most of the plan is unsent, but the run is not INVALID"
            return "VALID, but its response times are wrong" if self.off and self.verdict == "VALID" else ""
        return (
            ""
            if self.verdict == "VALID" or self.set_aside
            else f"{self.verdict}, but the generator was not starved"
        )

    @property
    def set_aside(self) -> bool:
        """Whether the machine delayed a generator that was not starved on purpose."""
        return self.case.kind != "squeezed" and self.gap_ms > GAP_MS


def cases(kind: str, count: int, seed: int = SEED) -> list[Case]:
    """Draw random cases of a kind, the same ones for the same seed."""
    random = np.random.default_rng([seed, KINDS.index(kind)])
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
KINDS = tuple(_CASES)


def _trace(path: Path, case: Case, seconds: float) -> np.ndarray:
    """Write a trace of evenly spaced requests of CLIENTS clients; return their times in ns after the first one."""
    at_ns = np.arange(int(case.rate * seconds), dtype=np.int64) * 1_000_000_000 // case.rate
    with TraceWriter(path) as writer:
        target = f"/sink/delay_ms={case.delay_ms}".encode() if case.delay_ms else b"/"
        ids = np.full(at_ns.size, writer.add_request("GET", target), np.uint32)
        clients = (np.arange(at_ns.size) % CLIENTS).astype(np.uint32)
        writer.add_events(1_577_836_800_000_000_000 + at_ns, ids, clients)
    return at_ns


@contextlib.contextmanager
def _others(scripts: list[list[str]], core: int | None = None) -> Iterator[list[subprocess.Popen[str]]]:
    """Run Python programs, on one core if it is given, and kill them at the end of the context."""
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
    """Put a process into a control group of its own (cgroup v1), with a quota (a share of a core) or a number of shares."""
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
    """Starve the generator until it ends, or until the time `bound`."""
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
    """Stall or kill the target two seconds into the load, if that is the case's fault."""
    if case.what == "stalled" and memory is not None:
        memory.stall(case.figures[0], time.monotonic_ns() + 2_000_000_000)
    if case.what == "killed":
        time.sleep(2.0)
        os.kill(server[0], signal.SIGKILL)


@contextlib.contextmanager
def _server(
    case: Case, folder: Path, rows: int, identity: peers.Identity | None
) -> Iterator[tuple[int, Any, list[int]]]:
    """Run the target: a sink in a process of its own, or a port that accepts connections and never answers.

    Yields its port, its memory (None if silent), and a list with its pid (empty if silent).
    """
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
    """Make one run, and compare its figures with the truth; raise RuntimeError if it left no result."""
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
        raise RuntimeError(f"{case} left no result: {(folder / 'said').read_text()[-2_000:]}")
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
    """Return the true p50 and p99 of the response time: the first arrival minus the due time, plus the server's delay.

    A request that never arrived is counted with `max_wait`, as in the run's own histogram.
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
    """Return whether the runs of one kind have few enough wrong verdicts: none if squeezed, else at most the shares."""
    if results[0].case.kind == "squeezed":
        return not any(result.fault for result in results)
    counts = Counter(result.verdict for result in results if not result.set_aside)
    return (
        counts["INVALID"] <= INVALID_MOST * len(results)
        and counts["SUSPECT"] <= SUSPECT_MOST * len(results)
        and sum(result.set_aside for result in results) <= SET_ASIDE_MOST * len(results)
    )


def report(folder: Path, count: int = COUNT, seed: int = SEED, kinds: Sequence[str] = KINDS) -> bool:
    """Make and print `count` runs of each kind; return False if a kind has too many wrong verdicts, or a run no result."""
    found = {}
    for kind in kinds:
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
            f"{kind}: {'passed' if found[kind] else 'FAILED'}; {dict(verdicts)};"
            f" {sum(r.off for r in results)} with wrong response times; {sum(r.set_aside for r in results)} set aside;"
            f" {sum(bool(r.fault) for r in results)} wrong verdicts; {lost} without a result",
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
        f"{'; WRONG TIMES' if result.off else ''}{'; WRONG VERDICT: ' + result.fault if result.fault else ''}"
    )
