"""One row in the catalog declares an outcome, a histogram or a counter; everything else follows from it."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from replay.errors import UsageError
from replay.ledger import catalog, metrics
from replay.ledger.catalog import COUNTERS, HISTOGRAMS, OUTCOMES, UNSENT_REASONS
from replay.ledger.catalog_tables import TABLES, with_tables
from replay.results import slo
from replay.results.document import Delays, Latencies
from replay.results.timeline import Second
from replay.settings.checks import check
from replay.settings.scenario import Scenario
from replay_native.ledger import catalog as native
from replay_native.ledger import lane_metrics
from tests.support.metrics_data import at_s, trial
from tests.support.there import there

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [page for page in sorted(DOCS.glob("*.md")) if "<!-- catalog: " in page.read_text(encoding="utf-8")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_tables_of_the_docs_are_those_of_the_catalog(page):
    text = page.read_text(encoding="utf-8")
    assert with_tables(text) == text, "run: python -m replay.ledger.catalog_tables docs/*.md"


def test_every_table_is_in_the_docs():
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert sorted(re.findall(r"<!-- catalog: ([a-z ]+) -->", text)) == sorted(TABLES)


@pytest.mark.parametrize(
    ("rows", "names", "amiss"),
    [
        (["a"], ["a", "b"], "b"),
        (["a", "b"], ["a"], "b"),
        (["a", "a"], ["a"], "a"),
    ],
    ids=["a name without a row", "a row without a name", "two rows for a name"],
)
def test_a_catalog_that_differs_from_the_kernels_cannot_be_imported(rows, names, amiss):
    with pytest.raises(ImportError, match=f"see {amiss}$"):
        catalog._check("outcome", rows, names)


@pytest.mark.parametrize("more", [{"each_second": True, "only": "on Mondays"}, {"figures": ("p50",)}])
def test_a_row_that_could_not_be_logged_every_second_is_refused(more):
    with pytest.raises(ImportError, match="each_second"):
        catalog.Histogram("wait.all", "words", "a - b", "requests", **more)


@pytest.mark.parametrize("outcome", OUTCOMES, ids=lambda outcome: outcome.name)
def test_the_kernel_counts_an_outcome_in_the_account_of_its_row(outcome, tmp_path):
    made = trial(tmp_path / "run")
    if outcome.name == "unsent":
        made.lanes[0].unsent()
    else:
        made.lanes[0].request(outcome=outcome.name)
    second = made.recorder.tick(at_s(1))
    assert second.outcomes == {outcome.name: 1}
    accounts = {name: getattr(second, name) for name in ("ok", "error", "timeout", "unsent")}
    assert accounts == dict.fromkeys(accounts, 0) | {outcome.account: 1}
    document = made.recorder.finish(at_s(2))
    assert (document.accounts.sent + document.accounts.unsent, document.accounts.in_flight) == (1, 0)
    kinds = [sample.split(b'"', 4)[3] for sample in made.folder.samples.read_bytes().splitlines()]
    assert (b"failed" in kinds) == outcome.failed


@pytest.mark.parametrize("reason", UNSENT_REASONS, ids=lambda reason: reason.name)
def test_an_unsent_request_is_counted_by_the_reason_of_its_row(reason, tmp_path):
    made = trial(tmp_path / "run")
    made.lanes[0].unsent(reason=reason.name)
    second = made.recorder.tick(at_s(1))
    assert (second.unsent, second.unsent_of_target) == (1, int(reason.of_target))
    assert made.recorder.finish(at_s(2)).accounts_detail.unsent[reason.name] == 1


@pytest.mark.parametrize("row", HISTOGRAMS, ids=lambda row: row.tag)
def test_objectives_ask_for_what_the_catalog_lists(row):
    if row.slo:
        assert slo.parse(f"p99 {row.name} < 1s over 10s").metric == row.name
    else:
        with pytest.raises(UsageError, match=f"'{re.escape(row.name)}' is not a metric"):
            slo.parse(f"p99 {row.name} < 1s")


def test_an_alias_is_the_same_objective():
    assert slo.parse("p99 generator_lag<1ms").metric == "lateness"
    assert slo.canonical(slo.parse("p99 generator_lag<1ms")) == "p99 lateness < 1ms"


@pytest.mark.parametrize("outcome", OUTCOMES, ids=lambda outcome: outcome.name)
def test_retries_take_the_outcomes_that_the_catalog_lists(outcome):
    scenario = msgspec.convert(
        {"target": "http://127.0.0.1:1", "retry": {"attempts": 2, "on": [outcome.name]}}, Scenario
    )
    if outcome.retryable or outcome.account == "ok":
        check(scenario, str)
    else:
        with pytest.raises(UsageError, match=f"'{outcome.name}' is neither a status nor an outcome"):
            check(scenario, str)


def test_run_json_has_every_histogram_in_one_place():
    listed = {row.field for row in HISTOGRAMS if not row.net}
    assert set(Latencies.__struct_fields__) == listed
    delays = {row.field for row in HISTOGRAMS if row.net}
    assert delays == {name for name in Delays.__struct_fields__ if name not in native.COUNTERS}


def test_a_second_has_the_figures_and_counters_that_the_catalog_lists():
    fields = set(Second.__struct_fields__)
    assert set(catalog.FIGURES) <= fields
    assert {counter.name for counter in COUNTERS if counter.each_second} <= fields
    kinds = {"p50", "p99", "max"}
    assert {re.sub(r"^.*_(\w+)_ns$", r"\1", name) for name in catalog.FIGURES} == kinds


def test_a_run_has_the_sum_of_counts_and_the_longest_of_gaps(tmp_path):
    made = trial(tmp_path / "run", lanes=2)
    for number, (gaps, gap_ns, open_max) in enumerate(((2, 7, 3), (5, 4, 1))):
        counters = lane_metrics.open_metrics(made.folder.lane(number)).counters
        counters[native.C.gaps], counters[native.C.gap_max_ns] = gaps, gap_ns
        counters[native.C.open_max] = open_max
    document = made.recorder.finish(at_s(1))
    delays = document.generator.delays
    assert (there(delays).gaps, there(delays).gap_max_ns, document.connections.open_max) == (7, 7, 4)


def test_counters_that_grow_are_those_that_can_be_added_up():
    others = {row.name: row.kind for row in COUNTERS if row.name not in catalog.GROWING}
    assert {*others, *catalog.GROWING} == set(native.COUNTERS)
    assert sorted(name for name, kind in others.items() if kind == "level") == [
        "in_flight", "open", "slots_used", "waiting",
    ]  # fmt: skip


def test_metrics_have_units_and_every_ended_request_is_in_one_series():
    names = [metric.name for metric in metrics.METRICS]
    assert len(set(names)) == len(names)
    suffix = {"counter": "_total", "histogram": "_seconds", "gauge": ""}
    for metric in metrics.METRICS:
        assert re.fullmatch(r"replay_[a-z_]+", metric.name) and metric.name.endswith(suffix[metric.kind])
        assert metric.help[0].isupper()
    counted = [series.counter for series in metrics.SERIES if series.labels]
    ended = [outcome.counter for outcome in OUTCOMES if outcome.account != "unsent"]
    assert sorted(counted) == sorted(ended + [reason.counter for reason in UNSENT_REASONS])
    for series in metrics.SERIES:
        metric = metrics.METRICS[names.index(series.metric)]
        assert (set(series.labels), metric.kind) == (set(metric.labels), "counter")


@pytest.mark.parametrize("name", ["OUTCOMES", "COUNTERS", "TOTALS", "PER_ROUTE"])
def test_the_version_of_a_lane_s_memory_follows_from_its_names(name, tmp_path, monkeypatch):
    path = tmp_path / "lane"
    lane_metrics.create(path, 1)
    monkeypatch.setattr(lane_metrics, name, (*getattr(lane_metrics, name), "another"))
    changed = lane_metrics._layout_version()
    assert changed != lane_metrics.VERSION
    monkeypatch.setattr(lane_metrics, "VERSION", changed)
    with pytest.raises(ValueError, match="not a lane's memory of this version"):
        lane_metrics.open_metrics(path)
