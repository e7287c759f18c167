"""Shares of one run as processes, without a coordinator: what `replay agent` does with an order, in the smallest form.

    python -m tests.support.shares TRACE SCENARIO OUT AGENT AGENTS LANES INSTANT_NS PLANNED_WHOLE

INSTANT_NS is by CLOCK_MONOTONIC, which all processes of a machine share.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import msgspec
import trio

from replay.cluster.cut import share_of
from replay.cluster.share import Share, ShareClock, write_share
from replay.cluster.share_run import due_by_second
from replay.engine.order import Order
from replay.engine.prepare import prepare
from replay.engine.run_state import RunState
from replay.plan.schedule import make_schedules
from replay.settings.file import load
from replay.trace import Trace
from replay.units import SECOND_NS

RUN_ID = "5ba5e001"
LEAD_S = 12.0
"""Time for processes to import, plan and warm up on a busy machine."""


def run_share(arguments: list[str]) -> None:
    """Run one share to its end."""
    trace_path, scenario_path, out = map(Path, arguments[:3])
    agent, agents, lanes, instant_ns, planned_whole = map(int, arguments[3:])
    scenario = msgspec.structs.replace(load(scenario_path), threads=lanes)
    lane_range = share_of(agent, agents, lanes)
    offset_ns = int(os.environ.get("TEST_CLOCK_OFFSET_NS", "0"))

    async def instant(state: RunState) -> int:
        due = due_by_second(state)
        share = Share(
            run_id=RUN_ID, epoch="1", agent=agent, agents=agents, host=f"host-{agent}", pid=os.getpid(),
            first_lane=lane_range.first, after_lane=lane_range.first + lane_range.count, of_lanes=lane_range.of,
            planned=sum(due), planned_whole=planned_whole, due_by_second=due, instant_ns=instant_ns - offset_ns,
            start_ns=instant_ns, clock=ShareClock(offset_ns=offset_ns, bound_ns=20_000),
        )  # fmt: skip
        write_share(state.folder.path, share)
        return instant_ns

    order = Order(RUN_ID, lane_range, instant)
    with prepare(Trace.open(trace_path), scenario) as prepared:
        trio.run(partial(prepared.run_async, out, order=order, signals=False))


def start_shares(
    trace: Path, scenario: Path, folder: Path, agents: int, lanes: int = 1, lead_s: float = LEAD_S
) -> tuple[list[subprocess.Popen[bytes]], list[Path], int]:
    """Start every share; their processes, their run folders, and when they begin by CLOCK_MONOTONIC."""
    found = load(scenario)
    rows = sum(one.plan.rows or 0 for one in make_schedules(Trace.open(trace), found))
    instant_ns = time.monotonic_ns() + round(lead_s * SECOND_NS)
    folders = [folder / f"agent-{agent}" for agent in range(agents)]
    processes = [
        subprocess.Popen([
            sys.executable, "-m", "tests.support.shares", str(trace), str(scenario), str(folders[agent]),
            *map(str, (agent, agents, lanes, instant_ns, rows)),
        ])
        for agent in range(agents)
    ]  # fmt: skip
    return processes, folders, instant_ns


def run_shares(trace: Path, scenario: Path, folder: Path, agents: int, lanes: int = 1) -> list[Path]:
    """Run every share to its end; their run folders."""
    processes, folders, _ = start_shares(trace, scenario, folder, agents, lanes)
    codes = [process.wait(timeout=300) for process in processes]
    assert codes == [0] * agents
    return folders


if __name__ == "__main__":
    run_share(sys.argv[1:])
