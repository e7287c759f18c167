"""Comparisons of runs that did not take turns, of sessions, of sides in other numbers, and of logs of other lengths."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from replay.comparison.decision import Options
from replay.comparison.design import design_of
from replay.comparison.metrics import shift_of
from replay.comparison.order import NOT_INTERLEAVED, order_of, sessions_by_time
from replay.comparison.sides import Side, load_sides
from replay.comparison.verdict import compare
from replay.errors import UsageError
from replay.ledger.histogram import Layout
from replay_native.ground import jit
from tests.support.compare_data import make_run

from .test_compare import write_log

jit.warm(["statistics.rank", "statistics.student", "statistics.unequal"])
NIGHT = 24 * 60
"""Minutes between nights: `make_run` counts starts in minutes."""


def made(
    folder: Path, starts: dict[str, list[int]], levels: dict[str, list[float]], **more
) -> tuple[str, str]:
    """`base=...` and `new=...`: runs that start at these minutes, each as many times as slow."""
    sides: list[str] = []
    for label in ("base", "new"):
        paths = [
            make_run(
                folder / f"{label}{n}", seed=100 * len(sides) + n, number=start, run_sd=0.0,
                slower={0: level, 1: level}, **more,
            )
            for n, (start, level) in enumerate(zip(starts[label], levels[label], strict=True))
        ]  # fmt: skip
        sides.append(f"{label}=" + ",".join(map(str, paths)))
    return sides[0], sides[1]


def drifting(starts: dict[str, list[int]], by: float, per: float = 1.0) -> dict[str, list[float]]:
    """The level of a machine that gets slower by this share in so many minutes."""
    return {label: [1 + by * at / per for at in times] for label, times in starts.items()}


FIVE_THEN_FIVE = {"base": [0, 1, 2, 3, 4], "new": [5, 6, 7, 8, 9]}
TURNS = {"base": [0, 3, 5, 6, 8, 11], "new": [1, 2, 4, 7, 9, 10]}


@pytest.fixture(scope="module")
def drift(tmp_path_factory) -> tuple[str, str]:
    """One build, ten runs, on a machine that gets 5% slower from run to run."""
    return made(tmp_path_factory.mktemp("drift"), FIVE_THEN_FIVE, drifting(FIVE_THEN_FIVE, 0.05))


def test_a_drift_is_not_called_a_regression(drift):
    found = compare(*drift)
    assert (found.verdict, int(found.exit_code)) == ("INCONCLUSIVE", 0), found.reasons
    (reason,) = found.reasons
    assert reason.startswith(f"{NOT_INTERLEAVED}: all runs of base started before all runs of new")
    assert "replay ab" in reason and "--sequential" in reason
    assert found.sentence.count("%") and all(f.verdict == "INCONCLUSIVE" for f in found.findings)
    assert found.findings[0].change > 0.15


def test_new_before_base_is_the_same(drift):
    base, new = (text.partition("=")[2] for text in drift)
    found = compare("new=" + base, "base=" + new)
    assert (
        found.verdict == "INCONCLUSIVE"
        and "all runs of new started before all runs of base" in found.reasons[0]
    )


@pytest.mark.parametrize("design", ["auto", "labels"])
def test_sequential_restores_what_was(drift, design):
    found = compare(drift[0], drift[1], Options(sequential=True, design=design))
    assert found.verdict == "REGRESSION" and not found.reasons and found.labellings == 252


def test_a_design_that_was_asked_for_does_not_hide_the_order(drift):
    assert compare(drift[0], drift[1], Options(design="labels")).verdict == "INCONCLUSIVE"


def test_the_command_says_so_and_takes_the_flag(drift, tmp_path):
    command = [sys.executable, "-m", "replay.cli", "compare", *drift, "--json", "-"]
    for more, code, verdict in (([], 0, "INCONCLUSIVE"), (["--sequential"], 99, "REGRESSION")):
        done = subprocess.run(
            [*command, *more], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
        )
        document = json.loads(done.stdout)
        assert (done.returncode, document["verdict"]) == (code, verdict), done.stderr
        assert any(reason.startswith(NOT_INTERLEAVED) for reason in document["reasons"]) == (code == 0)


def test_runs_in_turns_share_the_drift(tmp_path):
    found = compare(*made(tmp_path, TURNS, drifting(TURNS, 0.05)), Options(tolerance=0.3))
    assert found.design == "labels within 3 blocks" and not found.reasons and not found.notes
    assert found.verdict == "NO_REGRESSION"


def times(base: list[int | None], new: list[int | None]) -> tuple[Side, Side]:
    class Run:
        def __init__(self, started: int | None) -> None:
            self.started_ns = self.ended_ns = started

    return Side("base", tuple(map(Run, base))), Side("new", tuple(map(Run, new)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("base", "new", "sequential", "note"),
    [
        ([1, 2, 3, 4], [5, 6, 7, 8], True, ""),
        ([5, 6, 7, 8], [1, 2, 3, 4], True, ""),
        ([1, 1, 1, 1], [2, 2, 2, 2], True, ""),
        ([1, 2, 3, 6], [4, 5, 7, 8], False, "most runs of new were made after most runs of base"),
        ([1, 4, 5, 8], [2, 3, 6, 7], False, ""),
        ([1, 3, 5, 7], [2, 4, 6, 8], False, ""),
        ([1, 2, 3, 4], [4, 5, 6, 7], False, "report the same start time"),
        ([1, 1, 1, 1], [1, 1, 1, 1], False, "report the same start time"),
        ([1, 2, 3, None], [5, 6, 7, 8], False, "1 of 8 runs do not record when they started"),
        ([None, None], [None, None], False, "4 of 4 runs do not record"),
        ([1], [2, 3, 4], False, ""),
    ],
)
def test_the_order_of_runs(base, new, sequential, note):
    found = order_of(*times(base, new))
    assert found.is_sequential == sequential
    assert len(found.notes) == bool(note) and (not note or note in found.notes[0])


def test_unknown_and_equal_times_change_no_verdict(tmp_path):
    starts = {"base": [0, 1, 2, 3], "new": [0, 1, 2, 3]}
    levels = {"base": [1.0, 1.01, 0.99, 1.0], "new": [1.5, 1.51, 1.52, 1.5]}
    found = compare(*made(tmp_path, starts, levels))
    assert found.verdict == "REGRESSION" and "report the same start time" in found.notes[0]


def nights(per_night: int) -> dict[str, list[int]]:
    at = [night * NIGHT + n for night in range(14) for n in range(per_night)]
    return {"base": at[: 7 * per_night], "new": at[7 * per_night :]}


def test_nights_against_nights_are_judged(tmp_path):
    starts = nights(1)
    rng = np.random.default_rng(3)
    levels = {label: (1 + rng.normal(0, 0.02, 7)).tolist() for label in starts}
    levels["new"] = [1.2 * level for level in levels["new"]]
    found = compare(*made(tmp_path, starts, levels), Options(tolerance=0.05))
    assert found.verdict == "REGRESSION" and not found.reasons
    assert found.design == "7 and 7 sessions, with a steady drift from session to session removed"
    assert found.labellings == 0


def test_a_drift_over_the_nights_is_not_called_a_regression(tmp_path):
    starts = nights(1)
    sides = made(tmp_path, starts, drifting(starts, 0.03, NIGHT))
    found = compare(sides[0], sides[1], Options(tolerance=0.05))
    assert found.verdict in ("INCONCLUSIVE", "NO_REGRESSION") and not found.reasons
    assert all(f.low <= 0 for f in found.findings)
    assert compare(sides[0], sides[1], Options(tolerance=0.05, sequential=True)).verdict == "REGRESSION"


def test_the_runs_of_a_night_are_one_session(tmp_path):
    starts = {
        label: [at for at in times if at < 11 * NIGHT and at >= 3 * NIGHT]
        for label, times in nights(2).items()
    }
    levels = {label: [1.0] * len(times) for label, times in starts.items()}
    base, new = load_sides(*made(tmp_path, starts, levels, requests=300))
    assert [len(session) for session in sessions_by_time(base) or []] == [2, 2, 2, 2]
    design = design_of(base, new, "auto", order_of(base, new))
    assert design.sizes == [8] and [len(unit) for unit in design.units] == [2] * 8


def test_three_nights_a_side_are_too_few(tmp_path):
    starts = {"base": [0, NIGHT, 2 * NIGHT], "new": [3 * NIGHT, 4 * NIGHT, 5 * NIGHT]}
    sides = made(tmp_path, starts, drifting(starts, 0.0), requests=300)
    assert compare(sides[0], sides[1]).reasons[0].startswith(NOT_INTERLEAVED)
    asked = compare(sides[0], sides[1], Options(design="sessions"))
    assert asked.verdict == "INCONCLUSIVE"
    assert "3 and 3 sessions are too few (4 per side are needed)" in asked.reasons[0]


def test_each_path_is_a_session_where_asked(tmp_path):
    starts = {"base": list(range(8)), "new": list(range(8, 16))}
    made(tmp_path, starts, drifting(starts, 0.0), requests=300)
    sides = []
    for label in ("base", "new"):
        folders = []
        for session in range(4):
            folder = tmp_path / "sessions" / f"{label}{session}"
            folder.mkdir(parents=True)
            for n in (2 * session, 2 * session + 1):
                (folder / str(n)).symlink_to(tmp_path / f"{label}{n}")
            folders.append(str(folder))
        sides.append(f"{label}=" + ",".join(folders))
    assert compare(sides[0], sides[1]).reasons[0].startswith(NOT_INTERLEAVED)
    found = compare(sides[0], sides[1], Options(design="sessions"))
    assert not found.reasons and found.design.startswith("4 and 4 sessions")


def test_sessions_that_took_turns_keep_their_labels(tmp_path):
    starts = {"base": [n * NIGHT for n in range(0, 10, 2)], "new": [n * NIGHT for n in range(1, 10, 2)]}
    sides = made(tmp_path, starts, drifting(starts, 0.01, NIGHT), requests=300)
    found = compare(sides[0], sides[1], Options(design="sessions"))
    assert (found.design, found.labellings) == ("labels of 5 and 5 sessions", 252)


def test_few_runs_beside_many_are_warned_of(tmp_path):
    starts = {"base": list(range(0, 24, 2)), "new": [5, 11, 17, 21]}
    sides = made(tmp_path, starts, drifting(starts, 0.0), requests=300)
    found = compare(sides[0], sides[1])
    assert found.labellings == 1820
    assert any(
        "new has 4 runs and the other side 12: 4 are too few to estimate how much they vary" in n
        for n in found.notes
    )
    base = sides[0].rpartition(",")[0].rpartition(",")[0]
    for _ in range(4):
        base = base.rpartition(",")[0]
    assert not any("do not show" in note for note in compare(base, sides[1]).notes)


def logs_of(folder: Path, label: str, requests: int, seed: int, header: str = "") -> str:
    paths = []
    for n in range(6):
        rng = np.random.default_rng(seed + n)
        values = rng.lognormal(8, 0.5, requests)
        paths.append(
            write_log(folder / f"{label}{n}.hlog", {"": values}, Layout(3), f"#unit: us\n{header.format(n)}")
        )
    return f"{label}=" + ",".join(map(str, paths))


def test_a_percentile_that_one_side_is_too_short_for_is_replaced(tmp_path):
    sides = logs_of(tmp_path, "base", 20_000, 0), logs_of(tmp_path, "new", 1_000, 50)
    found = compare(sides[0], sides[1])
    assert [f.metric.name for f in found.findings] == ["p50", "p90"]
    assert (
        "all p99: runs have on average 20,000 (base) and 1,000 (new) requests with this latency, and with such different"
        " numbers the percentiles are biased; p90 is compared instead" in found.left_out
    )
    assert [f.metric.name for f in compare(sides[0], sides[1], Options(metrics=("p99",))).findings] == ["p90"]


def test_sides_of_about_one_length_keep_their_percentiles(tmp_path):
    found = compare(logs_of(tmp_path, "base", 1_100, 0), logs_of(tmp_path, "new", 1_000, 50))
    assert [f.metric.name for f in found.findings] == ["p50", "p99"]


def test_a_percentile_that_nothing_can_replace_is_a_gap(tmp_path):
    sides = logs_of(tmp_path, "base", 100_000, 0), logs_of(tmp_path, "new", 25, 50)
    found = compare(sides[0], sides[1], Options(metrics=("p50",), tolerance=5.0))
    assert (
        found.verdict == "INCONCLUSIVE"
        and not found.findings
        and "the percentiles are biased" in found.sentence
    )


@pytest.mark.parametrize("percentile", [90.0, 99.0, 99.9])
def test_the_shift_is_what_order_statistics_say(percentile):
    """Of exponential requests, whose tail is the plainest: the shift of the mean, over the scatter within a run."""
    rng = np.random.default_rng(1)
    few, many = (round(tail / (1 - percentile / 100)) for tail in (10, 200))
    values = [
        [
            np.partition(rng.exponential(size=n), -round(n * (1 - percentile / 100)) - 1)[
                -round(n * (1 - percentile / 100)) - 1
            ]
            for _ in range(300)
        ]
        for n in (few, many)
    ]
    shift = abs(np.mean(values[0]) - np.mean(values[1])) / np.std(values[0])
    assert shift < 2 * shift_of(percentile, [[few], [many]]) < 1


def test_logs_with_start_times_are_ordered(tmp_path):
    late = "#[StartTime: 17000{:02}000.000 (seconds since epoch), x]\n"
    sides = (
        logs_of(tmp_path, "base", 2_000, 0, late),
        logs_of(tmp_path, "new", 2_000, 50, late.replace("17000", "17001")),
    )
    assert compare(sides[0], sides[1], Options(design="labels")).reasons[0].startswith(NOT_INTERLEAVED)
    without = logs_of(tmp_path, "base", 2_000, 0), logs_of(tmp_path, "new", 2_000, 50)
    found = compare(*without)
    assert not found.reasons and "12 of 12 runs do not record when they started" in found.notes[0]


def test_pairs_and_blocks_still_need_whole_ones(drift):
    with pytest.raises(UsageError, match="do not form complete blocks"):
        compare(drift[0], drift[1], Options(design="blocks"))
