"""A run in a program: histograms of the hdrhistogram package, its timeline, assertions, comparisons."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given
from hypothesis import strategies as st

import replay
from replay.errors import InputError, OutputError, UsageError
from replay.ledger.catalog import PER_ROUTE
from replay.ledger.hdr_package import RunHistogram
from replay.ledger.histogram import NS_2, NS_3, Histogram
from replay.ledger.percentiles import REPORTED
from replay.results.document import RouteStart
from replay.results.run import Run
from replay_native.ledger import hdr
from tests.support.compare_data import make_run, rewrite
from tests.support.metrics_data import MAX_WAIT_NS, MS, ROUTES, at_s, trial

PERCENTILES = (*REPORTED, 0.0, 25.0, 99.5, 100.0)


def a_run(path: Path, *, unsent: int = 0, slo: tuple[str, ...] = ()) -> Run:
    named = [RouteStart(route, None, "browsing" if route != ROUTES[2] else "") for route in ROUTES]
    made = trial(path, named=named, slo=list(slo))
    for second in range(3):
        made.lanes[0].many(400, seed=second)
        made.recorder.tick(at_s(second + 1))
    made.lanes[0].request(1, "5xx", service_ms=900)
    for _ in range(unsent):
        made.lanes[0].request(0, "unsent", late_ms=0, wait_ms=MAX_WAIT_NS / MS)
    made.recorder.finish(at_s(4))
    return replay.load(path)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return a_run(tmp_path_factory.mktemp("runs") / "run")


@pytest.mark.parametrize("unsent", [0, 40])
def test_percentiles_of_the_package_s_object_are_those_of_the_run(tmp_path, unsent):
    run = a_run(tmp_path / "run", unsent=unsent)
    for name, route in [
        ("response", ""),
        ("service", ""),
        ("wait", ""),
        *((kind, ROUTES[0]) for kind in PER_ROUTE),
    ]:
        histogram, latency = run.histogram(name, route=route), run.latency(name, route=route)
        assert isinstance(histogram, HdrHistogram)
        assert histogram.get_total_count() == latency.count
        values = run.measured.percentiles(name, PERCENTILES, route)
        assert values is not None
        found = [histogram.get_value_at_percentile(percentile) for percentile in PERCENTILES]
        assert found == [value.ns for value in values]
        assert histogram.get_percentile_to_value_dict(PERCENTILES) == dict(
            zip(PERCENTILES, found, strict=True)
        )
        assert histogram.get_value_at_percentile(99) == latency.p99_ns
        assert histogram.get_mean_value() == pytest.approx(latency.mean_ns, abs=0.1)
        assert histogram.get_stddev() == pytest.approx(latency.stdev_ns, abs=0.1)


@given(st.lists(st.integers(0, 2 * hdr.HIGHEST_NS), min_size=1, max_size=200), st.floats(0, 100))
def test_any_percentile_is_by_java_s_rule(values, percentile):
    for layout in (NS_3, NS_2):
        theirs = HdrHistogram(layout.lowest, layout.highest, layout.digits)
        for value in values:
            theirs.record_value(min(value, layout.highest))
        ours = Histogram(np.frombuffer(theirs.counts, np.uint64), layout)
        made = RunHistogram(ours)
        assert made.get_value_at_percentile(percentile) == ours.percentiles([percentile])[0]


def test_the_object_is_one_of_the_package_in_all_else(run):
    histogram = run.histogram()
    decoded = HdrHistogram.decode(histogram.encode())
    assert decoded.equals(histogram)
    summed = HdrHistogram(1, hdr.HIGHEST_NS, 3)
    summed.add(histogram)
    summed.add(run.histogram())
    assert summed.get_total_count() == 2 * histogram.get_total_count()
    out = io.BytesIO()
    histogram.output_percentile_distribution(out, 1_000_000)
    assert b"#[Max" in out.getvalue()
    counted = sum(item.count_added_in_this_iter_step for item in histogram.get_recorded_iterator())
    assert counted == histogram.get_total_count()


def test_a_route_is_a_route_a_pattern_or_an_action(run):
    by_route = {route: run.histogram(route=route).get_total_count() for route in ROUTES}
    assert run.histogram(route="*").get_total_count() == sum(by_route.values())
    assert run.histogram(route="browsing").get_total_count() == by_route[ROUTES[0]] + by_route[ROUTES[1]]
    assert run.histogram("generator_lag").get_total_count() == run.latency("lateness").count


def test_what_was_not_measured_is_refused_by_name(run):
    with pytest.raises(UsageError, match="not a route of the recording"):
        run.histogram(route="GET /nowhere")
    with pytest.raises(UsageError, match="measured no 'respons'"):
        run.histogram("respons")
    with pytest.raises(UsageError, match="over all routes only"):
        run.histogram("wait", route=ROUTES[0])
    with pytest.raises(UsageError, match="measured no 'end_to_end'"):
        run.histogram("end_to_end")


def test_percentiles_are_a_table_of_the_latencies_that_are_named(run):
    table = run.percentiles()
    assert table.column_names == ["percentile", "response_ns", "service_ns"]
    at = table.column("percentile").to_pylist().index(99.0)
    assert table.column("service_ns").to_pylist()[at] == run.latency("service").p99_ns
    of_route = run.percentiles("service", route=ROUTES[0])
    assert of_route.column("service_ns").to_pylist()[at] == run.latency("service", route=ROUTES[0]).p99_ns
    with pytest.raises(UsageError, match="measured no 'answer'"):
        run.percentiles("answer")


def test_the_timeline_is_a_table_of_its_seconds(run):
    table, rows = run.timeline(), run.seconds()
    assert table.num_rows == len(rows) == 4
    assert table.column("ok").to_pylist() == [row.ok for row in rows]
    assert table.column("response_p99_ns").to_pylist() == [row.response_p99_ns for row in rows]
    assert sum(table.column("outcomes.5xx").to_pylist()) == 1
    assert sum(table.column("outcomes.2xx").to_pylist()) == 1_200
    frame = table.to_pandas()
    assert str(frame["at"].dtype) == "datetime64[ns, UTC]"


def test_the_timeline_of_nothing_has_its_columns(tmp_path):
    made = trial(tmp_path / "run")
    made.recorder.finish(at_s(0))
    table = replay.load(tmp_path / "run").timeline()
    assert {"at", "t_s", "sent", "response_p99_ns"} <= set(table.column_names)


def test_it_shows_itself_in_a_line_and_in_a_notebook_as_text(tmp_path):
    named = [RouteStart("GET /<img src=x onerror=alert(1)>"), *map(RouteStart, ROUTES[1:])]
    made = trial(tmp_path / "run", named=named, slo=["p99<1ns"])
    made.lanes[0].many(30)
    made.recorder.finish(at_s(1))
    run = replay.load(tmp_path / "run")
    page = run._repr_html_()
    assert repr(run).startswith("<Run ") and "FAILED" in repr(run) and "\n" not in repr(run)
    assert "<img" not in page and "&lt;img" in page and "missed" in page
    assert "src=" not in page.replace("src=x", "") and "href" not in page


def test_an_assertion_names_figure_limit_count_route_and_folder(run):
    run.assert_slo("p99<10s", "errors<1%", f'p99 service of "{ROUTES[0]}" < 10s')
    with pytest.raises(AssertionError) as failed:
        run.assert_slo("p99<10s", f'max service of "{ROUTES[1]}" < 800ms', "errors<0.01%")
    words = str(failed.value)
    assert "max service is 90" in words and "the limit is < 800ms" in words
    assert f"route:   {ROUTES[1]}" in words
    assert f"count:   {run.latency('service', route=ROUTES[1]).count:,} requests" in words
    assert "errors is 0.08%" in words and "count:   1,201 requests" in words
    assert str(run.folder.path) in words and "p99 response" not in words


def test_an_assertion_of_nothing_and_of_an_unknown_route_is_wrong_usage(run):
    with pytest.raises(UsageError, match="no objective"):
        run.assert_slo()
    with pytest.raises(UsageError, match="not a route"):
        run.assert_slo('p99 of "GET /nowhere"<1s')
    with pytest.raises(UsageError, match="no unit"):
        run.assert_slo("p99<250")


def test_objectives_by_window_are_those_of_the_run(tmp_path):
    run = a_run(tmp_path / "run", slo=("p99<1us over 1s", "p50<1h over 1s"))
    run.assert_slo("p50 < 1h over 1s")
    with pytest.raises(AssertionError, match="in the worst window"):
        run.assert_slo("p99<1us over 1s")
    with pytest.raises(UsageError, match="was no objective of the run") as refused:
        run.assert_slo("p90<1s over 1s")
    assert "slo=['p90<1s over 1s']" in refused.value.hint


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"validity": {"verdict": "INVALID", "reasons": []}}, "the run is INVALID"),
        ({"ending": {"how": "interrupted", "detail": "", "at_s": 1.0}}, "did not end normally"),
        ({"ending": {"how": "circuit_breaker", "detail": "", "at_s": 1.0}}, "did not end normally"),
    ],
)
def test_a_run_that_proves_nothing_meets_no_objective(tmp_path, changed, words):
    a_run(tmp_path / "run")
    rewrite(tmp_path / "run", **changed)
    with pytest.raises(AssertionError, match=words):
        replay.load(tmp_path / "run").assert_slo("p99<1h")


def test_compare_takes_runs_paths_and_lists_and_gives_a_table(tmp_path):
    base = [make_run(tmp_path / f"base,{n}=", seed=n, number=2 * n) for n in range(4)]
    new = [make_run(tmp_path / f"new-{n}", seed=9 + n, number=2 * n + 1, slower={0: 1.5}) for n in range(4)]
    found = replay.compare([replay.load(path) for path in base], new, design="labels", sequential=True)
    assert found.verdict == "REGRESSION", found
    table = found.to_arrow()
    assert {"p99", "errors"} <= set(table.column("metric").to_pylist())
    assert "REGRESSION" in repr(found) and "<table>" in found._repr_html_()
    one = replay.compare(replay.load(base[0]), str(new[0]))
    assert one.verdict == "INCONCLUSIVE" and len(one.base.runs) == 1


def test_wrong_options_of_a_comparison_are_named(tmp_path):
    run = make_run(tmp_path / "a", seed=1)
    other = make_run(tmp_path / "b", seed=2)
    with pytest.raises(UsageError, match="given twice"):
        replay.compare(run, run)
    with pytest.raises(UsageError, match="ratio, so it allows 1000%"):
        replay.compare(run, other, tolerance=10)
    with pytest.raises(UsageError, match="tolerance: '-3%'"):
        replay.compare(run, other, tolerance="-3%")
    with pytest.raises(UsageError, match="has no runs"):
        replay.compare([], other)
    with pytest.raises(InputError, match="does not exist"):
        replay.compare(tmp_path / "nothing", other)
    with pytest.raises(UsageError, match="p99x"):
        replay.compare(run, other, metrics=["p99x"])
    with pytest.raises(UsageError, match="both sides are called"):
        replay.compare(run, other, labels=("x", "x"))


def test_peak_refuses_what_it_varies_itself_and_a_folder_that_exists(tmp_path):
    from tests.support.trace_data import Row, write_trace

    trace = write_trace(tmp_path / "a.trace", [Row(n * 1_000_000) for n in range(10)])
    given = {"target": "http://127.0.0.1:9", "out": tmp_path / "peak"}
    with pytest.raises(UsageError, match="takes no setting 'speed'"):
        replay.peak(trace, **given, speed=2)  # type: ignore[call-arg,arg-type]
    with pytest.raises(UsageError, match=r"trial: '1ms' is shorter than 0\.1 s"):
        replay.peak(trace, **given, trial="1ms")
    with pytest.raises(UsageError, match="votes"):
        replay.peak(trace, **given, votes=2)
    assert not (tmp_path / "peak").exists()
    (tmp_path / "peak").mkdir()
    with pytest.raises(OutputError, match=r"cannot be made"):
        replay.peak(trace, **given)


@pytest.mark.whole
def test_peak_finds_the_load_that_a_target_bears(tmp_path):
    from replay.staging.sink import Sink
    from tests.support.trace_data import Row, write_trace

    trace = write_trace(tmp_path / "a.trace", [Row(n * 10_000_000) for n in range(200)])
    with Sink() as sink:
        found = replay.peak(
            trace, target=f"http://127.0.0.1:{sink.port}", out=tmp_path / "peak",
            lowest=1, highest=2, width="50%", trial="1s", hold="1s", votes=1, slo=["errors<50%"],
        )  # fmt: skip
    assert found.verdict in ("NO_LIMIT", "GENERATOR_LIMITED"), found
    assert (tmp_path / "peak" / "peak.json").exists()
    assert not list((tmp_path / "peak").glob(".*"))
    assert "trials" in repr(found) and "<table>" in found._repr_html_()
