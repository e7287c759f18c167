"""Which part of a recording the trials of a peak run: the busiest, at a rate that the hold keeps."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.errors import UsageError
from replay.peaks.trial import Bench
from replay.peaks.window import busiest, cut, find_stretch
from replay.settings.file import load
from replay.settings.scenario import Scenario
from replay.trace import Trace
from tests.support.trace_data import Row, write_trace

NS = 10**9
TARGET = "http://127.0.0.1:9"


def scenario(**given: object) -> Scenario:
    return load(None, {"target": TARGET, **given}, {})


def uneven(
    folder: Path, bursts: dict[tuple[int, int], int], length_s: int = 600, target: bytes = b"/"
) -> Trace:
    """One request per second, and more per second between some seconds."""
    rows = []
    for second in range(length_s):
        per_s = next((rate for (begin, end), rate in bursts.items() if begin <= second < end), 1)
        rows += [Row(second * NS + n * NS // per_s, target=target) for n in range(per_s)]
    return write_trace(folder / "t.trace", rows)


def planned(bench: Bench, folder: Path, load: float, stage: str) -> tuple[np.ndarray, float]:
    """Due times of what a trial would send, and its mean rate."""
    area = folder / f"{stage}-{load}"
    area.mkdir()
    prepared = bench._prepared(load, stage, area)
    (schedule,) = prepared.schedules
    due = np.concatenate([batch.due_ns for batch in schedule.batches()])
    assert prepared.scenario.duration_ns is not None
    return due, len(due) * NS / prepared.scenario.duration_ns


def make_bench(trace: Trace, folder: Path, given: Scenario, trial_s: float = 15, hold_s: float = 60) -> Bench:
    area = folder / "area"
    area.mkdir()
    return Bench(trace, given, folder / "out", area, trial_ns=round(trial_s * NS), hold_ns=round(hold_s * NS))


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.integers(1, 70), st.integers(1, 70))
def test_the_busiest_bins_are_those_of_a_plain_search(counts: list[int], trial: int, window: int) -> None:
    at, around = busiest(np.array(counts), trial, window)
    trial, window = min(trial, len(counts)), min(max(window, trial), len(counts))
    sums = [sum(counts[begin : begin + trial]) for begin in range(len(counts) - trial + 1)]
    assert at == sums.index(max(sums))
    holding = [
        begin for begin in range(len(counts) - window + 1) if begin <= at and at + trial <= begin + window
    ]
    assert around in holding
    assert sum(counts[around : around + window]) == max(sum(counts[b : b + window]) for b in holding)


def test_trials_run_the_busiest_part_and_the_hold_the_window_around_it_at_the_same_rate(
    tmp_path: Path,
) -> None:
    trace = uneven(tmp_path, {(300, 315): 20, (315, 340): 4})
    bench = make_bench(trace, tmp_path, scenario())
    found = bench.prepare()
    at = [(moment - trace.start_ns) / NS for moment in (found.trial_from_ns, found.trial_until_ns)]
    assert at == pytest.approx([300, 315], abs=0.5)
    window = [(moment - trace.start_ns) / NS for moment in (found.from_ns, found.until_ns)]
    assert window[0] <= 300 and window[1] >= 339.5 and window[1] - window[0] == pytest.approx(60, abs=0.5)
    assert found.trial_per_s == pytest.approx(20, rel=0.03)
    assert found.mean_per_s == pytest.approx((15 * 20 + 25 * 4 + 20) / 60, rel=0.03)
    for times in (0.5, 2.0):
        due, rate = planned(bench, tmp_path, times, "up")
        assert rate == pytest.approx(20 * times, rel=0.05) and due.max() <= 15 * NS
        bench._rates[times] = rate
        held, mean = planned(bench, tmp_path, times, "hold")
        assert mean == pytest.approx(rate, rel=0.006) and 50 * NS < held.max() <= 60 * NS
        assert np.bincount(held // NS).max() > 2 * mean, "its bursts are in it"
    assert "20.0/s" in found.words and "scaled to the same mean rate" in found.words


def test_a_window_that_is_chosen_is_the_one(tmp_path: Path) -> None:
    trace = uneven(tmp_path, {(300, 315): 20, (100, 110): 5})
    work = {"trial_ns": 5 * NS, "window_ns": 60 * NS}

    def begins(**window: str) -> tuple[float, float]:
        found = find_stretch(trace, scenario(window=window), tmp_path, **work)
        assert found is not None
        return (found.from_ns - trace.start_ns) / NS, (found.trial_from_ns - trace.start_ns) / NS

    assert begins(**{"from": "+80s"}) == pytest.approx((80, 100), abs=0.2)
    assert begins(**{"from": "+0s", "until": "+200s"})[1] == pytest.approx(100, abs=0.2)
    assert begins(until="+200s")[1] == pytest.approx(100, abs=0.2)
    assert begins()[1] == pytest.approx(300, abs=0.2)


def test_what_is_not_sent_does_not_count(tmp_path: Path) -> None:
    rows = [Row(second * NS, target=b"/a/%d" % (second % 3)) for second in range(300)]
    rows += [Row(100 * NS + n, method="POST", target=b"/b") for n in range(500)]
    rows += [Row(200 * NS + n * NS // 50, target=b"/c") for n in range(50)]
    trace = write_trace(tmp_path / "t.trace", sorted(rows, key=lambda row: row.at_ns))
    given = {"trial_ns": 5 * NS, "window_ns": 10 * NS}
    found = find_stretch(trace, scenario(), tmp_path, **given)
    assert found is not None and 195 <= (found.trial_from_ns - trace.start_ns) / NS <= 200
    kept = find_stretch(trace, scenario(without=["GET /c"]), tmp_path, **given)
    assert kept is not None and kept.trial_per_s == pytest.approx(1, rel=0.3)
    bench = make_bench(trace, tmp_path, scenario(only=["POST /b"]))
    with pytest.raises(UsageError, match="nothing would be sent"):
        bench.prepare()


@pytest.mark.parametrize(("trial_s", "hold_s"), [(15, 60), (3, 60), (3, 5), (20, 5)])
def test_a_recording_that_is_too_short_is_repeated(trial_s: float, hold_s: float, tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "t.trace", [Row(n * NS // 10) for n in range(101)])
    bench = make_bench(trace, tmp_path, scenario(), trial_s, hold_s)
    found = bench.prepare()
    due, rate = planned(bench, tmp_path, 1.0, "up")
    assert rate == pytest.approx(10, rel=0.05) and due.max() == pytest.approx(trial_s * NS, abs=0.15 * NS)
    gaps = np.diff(due)
    assert gaps.min() > 0.09 * NS and gaps.max() < 0.11 * NS, "no burst and no pause where it begins anew"
    bench._rates[1.0] = rate
    held, mean = planned(bench, tmp_path, 1.0, "hold")
    assert mean == pytest.approx(rate, rel=0.02) and held.max() == pytest.approx(hold_s * NS, rel=0.04)
    assert ("repeated" in found.words) is (max(trial_s, hold_s) > 10.2)


def test_a_gap_in_the_recording_is_not_where_the_hold_goes(tmp_path: Path) -> None:
    rows = [Row(n * NS // 10) for n in range(1_000)] + [Row(4_000 * NS + n * NS // 20) for n in range(1_000)]
    trace = write_trace(tmp_path / "t.trace", rows)
    found = find_stretch(trace, scenario(), tmp_path, trial_ns=10 * NS, window_ns=45 * NS)
    assert found is not None
    assert (found.from_ns - trace.start_ns) / NS >= 3_999 and found.mean_per_s == pytest.approx(20, rel=0.05)


@pytest.mark.parametrize("speed", ["4", "0.5"])
def test_lengths_are_those_of_the_replay(speed: str, tmp_path: Path) -> None:
    trace = uneven(tmp_path, {(300, 360): 10})
    bench = make_bench(trace, tmp_path, scenario(speed=speed), 10, 20)
    found = bench.prepare()
    assert (found.until_ns - found.from_ns) / NS == pytest.approx(20 * float(speed), rel=0.03)
    due, rate = planned(bench, tmp_path, 1.0, "up")
    assert rate == pytest.approx(10 * float(speed), rel=0.05) and due.max() <= 10 * NS


@pytest.mark.parametrize(
    "more", [{"peak": "50/s"}, {"rate": "50/s"}, {"scale": ["GET /a=3"]}, {"sample": "50%"}]
)
def test_the_hold_has_the_rate_of_the_trial_whatever_the_scenario_scales(
    more: dict[str, object], tmp_path: Path
) -> None:
    trace = uneven(tmp_path, {(300, 315): 20}, target=b"/a")
    bench = make_bench(trace, tmp_path, scenario(**more))
    bench.prepare()
    _, low = planned(bench, tmp_path, 1.0, "up")
    _, high = planned(bench, tmp_path, 3.0, "up")
    assert high == pytest.approx(3 * low, rel=0.1)
    bench._rates[3.0] = high
    _, held = planned(bench, tmp_path, 3.0, "hold")
    assert held == pytest.approx(high, rel=0.03 if "sample" in more else 0.006)


def test_a_stretch_that_is_cut_and_repeated_keeps_its_clients_in_order(tmp_path: Path) -> None:
    rows = [Row(n * NS, client=n % 3, target=b"/%d" % n) for n in range(20)]
    trace = write_trace(tmp_path / "t.trace", rows)
    made = cut(trace, tmp_path / "cut.trace", trace.start_ns + 5 * NS, trace.start_ns + 10 * NS, 12 * NS)
    batch = next(iter(made.batches()))
    seconds = ((batch.at_ns - trace.start_ns) // NS).tolist()
    assert seconds == list(range(5, 17)) and all(one < two for one, two in pairwise(batch.at_ns.tolist()))
    assert batch.request.tolist() == [5, 6, 7, 8, 9, 5, 6, 7, 8, 9, 5, 6]
    assert msgspec.structs.asdict(made.manifest)["rows"] == 12
