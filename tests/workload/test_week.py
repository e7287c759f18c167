"""The ordinary week of `traces/week.toml`, and the Monday that users fear made of it, by the commands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from replay.trace import Trace
from tests.support.places import ROOT
from tests.support.workload_data import columns, route_rows

pytestmark = pytest.mark.whole

RECIPES = ROOT / "traces"
RULES = ("--scale", "POST /v1/users=5", "--scale", "* /v1/training/*=2")
DAY_NS = 86_400 * 1_000_000_000


def replay(*arguments: str | Path, cores: set[int] | None = None, **environment: str) -> None:
    """Run the command, on these cores alone where they are given."""
    command = [sys.executable, "-m", "replay.cli", *map(str, arguments)]
    subprocess.run(
        command,
        check=True,
        capture_output=True,
        env=os.environ | environment,
        preexec_fn=None if cores is None else lambda: os.sched_setaffinity(0, cores),
    )


@pytest.fixture(scope="module")
def week(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    path = tmp_path_factory.mktemp("week") / "week.trace"
    replay("generate", RECIPES / "week.toml", "-o", path)
    return Trace.open(path)


def monday(week: Trace, out: Path, *flags: str) -> Trace:
    replay("transform", week.path, "-o", out, "--until", "+1d", *flags)
    return Trace.open(out)


def factor(route: str) -> int:
    """By how much a route is to grow."""
    return 5 if route == "POST /v1/users" else 2 if " /v1/training/" in route else 1


def test_each_route_grows_by_its_factor_and_the_others_stay_to_the_event(week: Trace, tmp_path: Path) -> None:
    before = monday(week, tmp_path / "before.trace")
    after = monday(week, tmp_path / "after.trace", *RULES)
    old, new = route_rows(before), route_rows(after)
    assert old["POST /v1/users"] > 100
    assert new == {route: rows * factor(route) for route, rows in old.items()}
    others = [number for number, route in enumerate(before.requests.routes) if factor(route) == 1]
    kept = [_events_of(trace, others) for trace in (before, after)]
    assert len(kept[0]) > 1_000 and np.array_equal(kept[0], kept[1])


def _events_of(trace: Trace, routes: list[int]) -> np.ndarray:
    """When, and what, of the events of some routes."""
    route_of = np.array([trace.requests.get(number).route for number in range(trace.requests.rows)])
    rows = columns(trace)
    mine = np.isin(route_of[rows["request"]], routes)
    return np.column_stack([rows["at_ns"][mine], rows["request"][mine]])


def test_cloned_sessions_keep_their_order(week: Trace, tmp_path: Path) -> None:
    before = monday(week, tmp_path / "before.trace")
    after = monday(week, tmp_path / "after.trace", *RULES, "--grow", "sessions")
    old, new = _sessions(before), _sessions(after)
    assert set(new) == set(old)
    for steps, clients in old.items():
        times = max(factor(before.requests.routes[before.requests.get(step).route]) for step in steps)
        assert new[steps] == times * clients
    assert route_rows(after)["POST /v1/users"] == 5 * route_rows(before)["POST /v1/users"]


def _sessions(trace: Trace) -> dict[tuple[int, ...], int]:
    """What clients asked for, in order, and how many did so."""
    rows = columns(trace)
    done: dict[int, list[int]] = {}
    for client, request in zip(rows["client"].tolist(), rows["request"].tolist(), strict=True):
        done.setdefault(client, []).append(request)
    found: dict[tuple[int, ...], int] = {}
    for steps in done.values():
        found[tuple(steps)] = found.get(tuple(steps), 0) + 1
    return found


def test_a_trace_is_the_same_bit_for_bit_on_any_number_of_cores(tmp_path: Path) -> None:
    available = sorted(os.sched_getaffinity(0))
    made: list[dict[Path, bytes]] = []
    for cores in (available[:1], available):
        folder = tmp_path / str(len(made))
        folder.mkdir()
        threads = {"NUMBA_NUM_THREADS": str(len(cores)), "OMP_NUM_THREADS": str(len(cores))}
        generated, changed = folder / "g.trace", folder / "t.trace"
        recipe = (RECIPES / "lockdown.toml", "-d", "6h", "--seed", "7")
        replay("generate", *recipe, "-o", generated, cores=set(cores), **threads)
        flags = ("--sample", "80%", "--scale", "2.5", "--grow", "sessions", "--peak", "2/s", "--seed", "7")
        replay("transform", generated, "-o", changed, *flags, cores=set(cores), **threads)
        made.append({path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*.*"))
                     if path.is_file()})  # fmt: skip
    assert len(made[0]) >= 6 and made[0] == made[1]
