"""Objectives: sentences that are understood, or refused at the column where they go wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.errors import UsageError
from replay.results import slo
from replay.results.document import RouteStart
from replay.results.measured import FAILED, from_metrics
from tests.support.metrics_data import (
    MAX_WAIT_NS,
    MS,
    ROUTES,
    S,
    trial,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("p99<250ms", ("response", 99.0, (), "", 250 * MS)),
        ('p(99) response of "POST /v1/users" < 250ms', ("response", 99.0, (), "POST /v1/users", 250 * MS)),
        ("p50 service < 20ms", ("service", 50.0, (), "", 20 * MS)),
        ("  p99.9   lateness <= 1.5s ", ("lateness", 99.9, (), "", 1.5 * S)),
        ("max<3s", ("response", 100.0, (), "", 3 * S)),
        ("errors < 0.1%", ("response", None, FAILED, "", 0.001)),
        ('5xx of "GET /a,b c%" < 1%', ("response", None, ("5xx",), "GET /a,b c%", 0.01)),
        ("timeout<2%", ("response", None, ("timeout",), "", 0.02)),
        ('errors of "registration" < 1% over 10s', ("response", None, FAILED, "registration", 0.01)),
        ("p99<250ms over 1m30s", ("response", 99.0, (), "", 250 * MS)),
    ],
)
def test_what_is_understood(text, expected):
    read = slo.parse(text)
    assert (read.metric, read.percentile, read.outcomes, read.route, read.limit) == expected
    assert read.text == text.strip()
    assert read.or_equal == ("<=" in text)
    assert read.window_ns == (None if "over" not in text else 10 * S if "10s" in text else 90 * S)


@pytest.mark.parametrize(
    ("text", "column", "says"),
    [
        ("", 1, "the end"),
        ("q99 < 1s", 1, "neither a percentile nor a share"),
        ("error < 1%", 1, "did you mean errors"),
        ("p99 respnse < 1s", 5, "did you mean response"),
        ("p99 > 1s", 5, "'>'"),
        ("p99 <", 6, "the end found where a limit is expected"),
        ("p99 < 1parsec", 7, "parsec"),
        ("p101 < 1s", 1, "at most 100"),
        ("p0 < 1s", 1, "above 0"),
        ("p(x) < 1s", 1, "neither a percentile"),
        ("p(99 < 1s", 6, "')'"),
        ("p99 of POST < 1s", 8, "double quotes"),
        ('p99 of "POST < 1s', 8, "in double quotes"),
        ('p99 wait of "GET /" < 1s', 1, "over all routes"),
        ("p99 < 1s 2s", 10, "the end is expected"),
        ("errors < 200%", 10, "between 0% and 100%"),
        ("errors < 5ms", 10, "share"),
        ("errors service < 5%", 8, "is a latency, but errors is a share of requests"),
        ("p99 < 1s over", 14, "the length of a window"),
        ("p99 < 1s over 10 s", 18, "where the end is expected"),
        ("p99 < 1s over 10parsec", 15, "parsec"),
        ("p99 < 250", 7, "it could be 250 ms or 250 s"),
        ("p(95)<500", 7, "it could be 500 ms or 500 s"),
        ("p99<1e3", 5, "it could be 1e3 ms or 1e3 s"),
        ('max service of "GET /" <= .5', 27, "it could be .5 ms or .5 s"),
        ("errors<1", 8, "it could be 1% or 100%"),
        ("errors < 0.01", 10, "it could be 0.01% or 1%"),
        ("errors<=0", 9, "'0' has no unit"),
        ("5xx<5", 5, "'5' has no unit"),
        ("mismatches<0.1", 12, "it could be 0.1% or 10%"),
        ("statuses differ<1", 17, "it could be 1% or 100%"),
        ("statuses differ<5ms", 17, "share"),
        ("statuses<5%", 1, "where 'statuses differ' is expected"),
        ("statuses service<5%", 1, "where 'statuses differ' is expected"),
        ("statuses differ<5% over 10s", 25, "over the whole run"),
        ("p99 < 1s over 10", 15, "it could be 10 s or 10 m"),
        ("p99 < 1s over 500ms", 15, "the minimum is 1 s"),
        ("p99 < 1s ovr 10s", 10, "'over' and a window"),
    ],
)
def test_what_is_refused_says_where(text, column, says):
    with pytest.raises(UsageError) as raised:
        slo.parse(text)
    assert f"column {column}:" in str(raised.value)
    assert says in str(raised.value)
    assert raised.value.hint


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("p99<250", "write p99<250ms or p99<250s"),
        ('errors of "a" < 1 over 10s', 'write errors of "a" < 1% over 10s or errors of "a" < 100% over 10s'),
        ("5xx<5", "write 5xx<5%"),
        ("errors<=0", "write errors<=0%"),
    ],
)
def test_a_number_without_a_unit_is_refused_with_all_that_it_could_mean(text, hint):
    with pytest.raises(UsageError) as raised:
        slo.parse(text)
    assert raised.value.hint == hint
    for line in hint.removeprefix("write ").split(" or "):
        slo.parse(line)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("p(99)<0.25s", "p99 response < 250ms"),
        ("max service<=1m", "max service <= 1m"),
        ('5xx of "GET /a" < .5%', '5xx of "GET /a" < 0.5%'),
        ("errors<1% over 60s", "errors < 1% over 1m"),
        ("statuses differ<5%", "statuses differ < 5%"),
        ("mismatches<0.1%", "mismatches < 0.1%"),
    ],
)
def test_the_plan_shows_objectives_with_one_form_of_each_unit(text, shown):
    assert slo.canonical(slo.parse(text)) == shown


@given(
    what=st.sampled_from(["p99", "p(99.95) service", "max", "p50 lateness"]),
    relation=st.sampled_from(["<", "<="]),
    limit=st.integers(0, 10**13),
    window=st.sampled_from(["", " over 90s"]),
)
def test_what_the_plan_shows_means_the_same(what, relation, limit, window):
    for text in (
        f"{what}{relation}{limit}ns{window}",
        f"errors{relation}{limit % 101}.5%{window}".replace("100.5", "100"),
    ):
        read = slo.parse(text)
        again = slo.parse(slo.canonical(read))
        assert replace(again, text="") == replace(read, text="")


@given(st.text(max_size=40))
def test_any_text_is_understood_or_refused(text):
    try:
        slo.parse(text)
    except UsageError as error:
        assert "column" in str(error)


@pytest.fixture
def measured(tmp_path):
    made = trial(tmp_path / "run")
    lane = made.lanes[0]
    for ms in range(1, 101):
        lane.request(0, late_ms=0.0, wait_ms=0.0, service_ms=float(ms))
    for _ in range(5):
        lane.request(1, "5xx", late_ms=0.0, wait_ms=5.0, service_ms=1.0)
        lane.request(1, "reset", late_ms=0.0, wait_ms=5.0, service_ms=1.0)
    return from_metrics(made.all_metrics, [RouteStart(name) for name in ROUTES], MAX_WAIT_NS)


@pytest.mark.parametrize(
    ("text", "passed"),
    [
        ("p50<60ms", True),
        ("p50<40ms", False),
        (f'p100 service of "{ROUTES[1]}" < 2ms', True),
        (f'p50 of "{ROUTES[1]}" < 5ms', False),
        ("errors < 10%", True),
        ("errors < 9%", False),
        (f'errors of "{ROUTES[1]}" <= 100%', True),
        (f'errors of "{ROUTES[0]}" < 0.1%', True),
        ("5xx < 5%", True),
        ("p99 wait < 6ms", True),
        ("p99 wait < 4ms", False),
    ],
)
def test_objectives_against_what_was_measured(measured, text, passed):
    assert slo.evaluate([slo.parse(text)], measured)[0].passed is passed


def test_what_was_not_measured_fails(measured):
    for text in ('p99 of "GET /nowhere" < 1s', 'errors of "GET /nowhere" < 50%'):
        outcome = slo.evaluate([slo.parse(text)], measured)[0]
        assert (outcome.passed, outcome.value) == (False, None)
