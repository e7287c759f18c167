"""Java's HdrHistogram reads our logs with the same tags, counts and percentiles, and we read Java's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from replay.ledger.histogram import NS_2, NS_3, empty
from replay.results import hgrm, hlog
from replay_native.ledger import hdr
from tests.conftest import read_by_java
from tests.support.metrics_data import START, at_s, trial

PERCENTILES = (0.0, 1.0, 25.0, 50.0, 90.0, 95.0, 99.0, 99.9, 99.99, 100.0)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory):
    """A run of two lanes, 25 s, three routes, failures and unsent requests."""
    made = trial(tmp_path_factory.mktemp("runs") / "run", lanes=2)
    for second in range(25):
        for seed, lane in enumerate(made.lanes):
            lane.many(30, seed=100 * second + seed)
            lane.request(1, "reset", service_ms=120)
            if second % 10 == 0:
                lane.unsent(2)
        made.recorder.tick(at_s(second + 1))
    made.recorder.finish(at_s(25.4))
    return made.folder


def assert_the_same(theirs: list[dict], path: Path) -> None:
    ours = hlog.read_hlog(path)
    assert not ours.problems
    assert [row["tag"] for row in theirs] == [interval.tag for interval in ours.intervals]
    for row, interval in zip(theirs, ours.intervals, strict=True):
        histogram = interval.histogram
        assert row["count"] == histogram.count
        if histogram.count == 0:
            continue
        assert row["percentiles"] == histogram.percentiles(PERCENTILES)
        assert (row["min"], row["max"]) == (histogram.min, histogram.max)
        mean, deviation = histogram.mean_and_deviation()
        assert row["mean"] == pytest.approx(mean, rel=1e-9, abs=1e-6)
        assert row["stdev"] == pytest.approx(deviation, rel=1e-6, abs=1e-3)
        assert row["start_ms"] == pytest.approx(interval.start_s * 1e3, abs=1.5)
        assert row["end_ms"] == pytest.approx((interval.start_s + interval.length_s) * 1e3, abs=1.5)


@pytest.mark.parametrize("name", ["totals", "latency"])
def test_java_reads_the_logs_of_a_run(java, run_folder, name):
    path = getattr(run_folder, name)
    theirs = read_by_java(java, path)
    assert_the_same(theirs, path)
    assert "response.2xx.GET_/users/{id}" in {row["tag"] for row in theirs}
    assert theirs[0]["start_ms"] == START.wall_ns // 1_000_000


def test_both_logs_hold_every_request_once(java, run_folder):
    counts: dict[str, dict[str, int]] = {}
    for path in (run_folder.totals, run_folder.latency):
        counts[path.name] = {}
        for row in read_by_java(java, path):
            counts[path.name][row["tag"]] = counts[path.name].get(row["tag"], 0) + row["count"]
    totals, intervals = counts["totals.hlog"], counts["latency.hlog"]
    assert totals["response.all"] == 2 * (25 * 31 + 3)
    assert {tag: totals[tag] for tag in intervals} == intervals


def test_java_prints_the_distribution_as_we_do(java, run_folder):
    histograms = hlog.read_hlog(run_folder.totals).by_tag()
    for tag in ("response.all", "service.2xx.POST_/v1/users", "wait.queue"):
        assert hgrm.distribution(histograms[tag]) == java("hgrm", run_folder.totals, tag)


def test_percentiles_equal_javas_on_random_histograms(java, tmp_path):
    rng = np.random.default_rng(20_260_101)
    path, lines = tmp_path / "random.hlog", [hlog.header(START.wall_ns)]
    for number in range(10_000):
        histogram = empty((NS_3, NS_2)[number % 2])
        values = rng.lognormal(rng.uniform(2, 25), rng.uniform(0.01, 3), rng.integers(1, 2_000))
        hdr.record_all(
            histogram.counts, histogram.layout.half, np.minimum(values, hdr.HIGHEST_NS).astype(np.int64)
        )
        lines.append(hlog.line(f"random.{number}", number, 1, histogram))
    path.write_bytes(b"".join(lines))
    assert_the_same(read_by_java(java, path), path)


def test_we_read_the_log_that_javas_writer_writes(java, run_folder, tmp_path):
    copied = tmp_path / "java.hlog"
    java("copy", run_folder.totals, copied)
    ours, theirs = (hlog.read_hlog(path).by_tag() for path in (run_folder.totals, copied))
    assert list(ours) == list(theirs)
    assert all(np.array_equal(ours[tag].counts, theirs[tag].counts) for tag in ours)
