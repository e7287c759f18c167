"""What a coordinator costs: CPU time and bytes per agent and second, and an agent's generator lag beside a plain run's.

    python -m benchmarks.cluster_cost [--agents 1,4] [--seconds 20] [--rate 2000] [--rounds 5]

The coordinator runs in this process, so that its CPU time and its bytes can be read. Agents are processes of this machine.
The lag is measured by `replay run`, in turns without and with `--cluster local:1`. Compare ratios, not times, because a
busy machine delays both.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import trio

from benchmarks.cluster import made_trace, run
from replay.cluster.coordinator import Coordinator
from replay.cluster.messages import Report
from replay.cluster.orders import Order
from replay.cluster.result import merged
from replay.cluster.transports import Local, make_folder
from replay.engine.prepare import prepare
from replay.settings.kinds import Count
from replay.settings.scenario import Scenario
from replay.staging.sink import Sink
from replay.trace import Trace
from tests.cluster.support import until
from tests.support.ports import free_port


class Cost(NamedTuple):
    """The coordinator's CPU time in ms, and the bytes received and sent, per agent and second of the run."""

    cpu_ms: float
    received: float
    sent: float


class Meter:
    """The CPU time of this process between the first and the last report of all agents."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, float]] = []

    def reported(self, agent: int, report: Report) -> None:
        """Mark the time of a report; the coordinator calls this for each."""
        self.marks.append((time.monotonic(), time.process_time()))

    @property
    def cpu_ms_per_s(self) -> float:
        """CPU time in ms per second of wall-clock time; needs two reports."""
        (began_s, began_cpu_s), (ended_s, ended_cpu_s) = self.marks[0], self.marks[-1]
        return (ended_cpu_s - began_cpu_s) / (ended_s - began_s) * 1e3


@contextmanager
def sink_process() -> Iterator[int]:
    """Run a sink in a process of its own, and yield its port."""
    port = free_port()
    words = [sys.executable, "-m", "replay.staging.sink", "--port", str(port)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    try:
        until(lambda: takes_connections(port), 120)
        yield port
    finally:
        process.kill()
        process.wait()


def takes_connections(port: int) -> bool:
    """Return whether a server listens on a port of this machine."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def cost_of(agents: int, rate: int, seconds: float, area: Path) -> Cost:
    """Measure one run over `agents` agents, with the coordinator in this process and the sink in another one."""
    trace = made_trace(area / "t.trace", round(rate * seconds), seconds)
    folder, meter = area / "RUN.agents", Meter()
    with sink_process() as port:
        scenario = Scenario(target=f"http://127.0.0.1:{port}", threads=Count(1))
        with prepare(Trace.open(trace.path), scenario) as prepared:
            make_folder(folder)
            order = Order(prepared.trace, "t", prepared.scenario, prepared.schedules)
            coordinator = Coordinator(order, Local(agents), folder, reported=meter.reported)
            gathered = trio.run(coordinator.run)
        document = merged(gathered, folder, area / "RUN")
    assert document.accounts.sent == len(trace.due_ns), document.accounts
    seconds_of_all = agents * document.duration_s
    return Cost(
        meter.cpu_ms_per_s / agents,
        gathered.bytes_received / seconds_of_all,
        gathered.bytes_sent / seconds_of_all,
    )


def lag_ns(name: str, trace: Path, area: Path, *more: str) -> int:
    """Return the p90 of the generator lag of one `replay run`."""
    with Sink() as sink:
        document = run(trace, sink.port, area / name, *more)
    return int(document["latency"]["lateness"]["p90_ns"])


def main() -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--agents", default="1,4", help="numbers of agents, separated by commas")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rate", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    print("| agents | coordinator's CPU | from the agent | to the agent | (each per agent and second)")
    for agents in map(int, given.agents.split(",")):
        with tempfile.TemporaryDirectory(prefix="replay-") as name:
            cost = cost_of(agents, given.rate, given.seconds, Path(name))
        cells = f"{cost.cpu_ms:.2f} ms | {cost.received / 1e3:.1f} kB | {cost.sent / 1e3:.1f} kB"
        print(f"| {agents} | {cells} |", flush=True)
    ratios = []
    for number in range(given.rounds):
        with tempfile.TemporaryDirectory(prefix="replay-") as name:
            area = Path(name)
            trace = made_trace(area / "t.trace", round(given.rate * given.seconds), given.seconds).path
            ways = {"plain": (), "cluster": ("--cluster", "local:1")}
            names = list(ways) if number % 2 == 0 else list(ways)[::-1]
            found = {way: lag_ns(way, trace, area, *ways[way]) for way in names}
        ratios.append(found["cluster"] / found["plain"])
        print(f"generator lag p90 in ns: {found}, cluster / plain {ratios[-1]:.2f}", flush=True)
    if ratios:
        print(
            f"cluster / plain: median {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
