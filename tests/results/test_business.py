"""Business actions: what failed, what it costs, and when; against a twin that looks at every request."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replay.errors import UsageError
from replay.money import format_money, format_rough, parse_money
from replay.results.business import plural, values_of, words_of
from replay.results.document import RecordedClock, RouteStart, RunDocument
from replay.results.folder import RunFolder
from replay.results.recover import recover
from replay.results.run import load_run
from replay_native.ledger.lane_metrics import C
from tests.support.metrics_data import CLOCK, S, at_s, trial
from tests.support.there import there

ROUTES = [
    RouteStart("POST /users", action="registration"), RouteStart("POST /orders", action="payment"),
    RouteStart("POST /pay", action="payment"), RouteStart("GET /", action=""),
]  # fmt: skip
SCENARIO = {"values": {"registration": "9.99 EUR", "payment": "120 USD"}, "actions": {}}
OUTCOMES = ["2xx", "4xx", "5xx", "refused", "timeout", "generator", "malformed", "unsent"]
FAILS = {"5xx", "refused", "timeout", "malformed"}
REASONS = ["max_wait", "interrupted", "limit", "capture"]
BLAMED = {"max_wait", "limit"}

REQUESTS = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from(OUTCOMES), st.sampled_from(REASONS), st.integers(0, 179)),
    max_size=60,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(requests=REQUESTS, lanes=st.integers(1, 3), killed=st.booleans())
def test_it_counts_as_the_twin_does(
    tmp_path_factory: pytest.TempPathFactory,
    requests: list[tuple[int, str, str, int]],
    lanes: int,
    killed: bool,
) -> None:
    folder = tmp_path_factory.mktemp("t") / "run"
    made = trial(folder, lanes, named=ROUTES, scenario=SCENARIO)
    by_second: dict[int, list[tuple[int, str, str]]] = {}
    for route, outcome, reason, second in requests:
        by_second.setdefault(second, []).append((route, outcome, reason))
    for second in range(180):
        for number, (route, outcome, reason) in enumerate(by_second.get(second, [])):
            lane = made.lanes[number % lanes]
            if outcome == "unsent":
                lane.unsent(route, reason, due_ms=second * 1e3)
            else:
                lane.request(route, outcome, due_ms=second * 1e3)
        made.recorder.tick(at_s(second + 1))
    if killed:
        made.recorder.close()
        document = recover(RunFolder(folder))
    else:
        document = made.recorder.finish(at_s(181))

    total: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    excused: Counter[str] = Counter()
    intervals: dict[str, Counter[int]] = {}
    for route, outcome, reason, second in requests:
        action = ROUTES[route].action
        if not action:
            continue
        total[action] += 1
        is_failed = outcome in FAILS or (outcome == "unsent" and reason in BLAMED)
        failed[action] += is_failed
        excused[action] += outcome in ("generator", "unsent") and not is_failed
        minute_ns = (CLOCK.start_ns + round(second * CLOCK.speed * S)) // (60 * S) * 60 * S
        intervals.setdefault(action, Counter())[minute_ns] += is_failed
    business = there(document.business)
    assert {one.action: one.requests for one in business.actions} == dict(total)
    assert {one.action: one.failed for one in business.actions} == {name: failed[name] for name in total}
    assert {one.action: one.not_of_target for one in business.actions} == {
        name: excused[name] for name in total
    }
    found = {one.action: Counter({m.at_ns: m.failed for m in one.intervals}) for one in business.actions}
    assert found == intervals
    assert sorted(business.without_requests) == sorted({"registration", "payment"} - total.keys())
    for one in business.actions:
        each, currency = (9.99, "EUR") if one.action == "registration" else (120.0, "USD")
        assert one.currency == currency and one.lost == pytest.approx(each * one.failed)
        assert sum(there(minute.lost) for minute in one.intervals) == pytest.approx(one.lost)
        assert business.lost[currency] == one.lost
    assert load_run(folder).document.business == business


def test_the_warm_up_costs_nothing_and_is_no_part_of_the_rate(tmp_path: Path) -> None:
    made = trial(
        tmp_path / "run", named=ROUTES[:1], scenario=SCENARIO, plan={"warm_up_ns": 60 * S},
        recorded_clock=RecordedClock(start_ns=0, speed=1.0),
    )  # fmt: skip
    made.lanes[0].request(0, "5xx", warm_up=True)
    made.recorder.tick(at_s(60))
    made.lanes[0].request(0, "5xx", due_ms=61_000)
    made.lanes[0].request(0, "2xx", due_ms=61_000)
    business = there(made.recorder.finish(at_s(120)).business)
    (one,) = business.actions
    assert (one.requests, one.failed) == (2, 1)
    assert business.hours == pytest.approx(1 / 60, abs=1e-6)
    assert one.lost_per_hour == pytest.approx(9.99 * 60)
    assert one.words == "50% of registrations failed (1), about 599.40 EUR an hour at this rate"


def test_an_hour_is_one_of_the_recorded_clock(tmp_path: Path) -> None:
    clock = RecordedClock(start_ns=0, speed=120.0)
    made = trial(tmp_path / "run", named=ROUTES[:1], scenario=SCENARIO, recorded_clock=clock)
    made.lanes[0].request(0, "5xx")
    business = there(made.recorder.finish(at_s(30)).business)
    assert (business.clock, business.hours, business.interval_s) == ("recorded", pytest.approx(1.0), 120)
    assert business.actions[0].lost_per_hour == pytest.approx(9.99)


def test_a_run_without_a_recorded_clock_has_its_own(tmp_path: Path) -> None:
    made = trial(tmp_path / "run", named=ROUTES[:1], scenario=SCENARIO, recorded_clock=None)
    made.lanes[0].request(0, "5xx")
    business = there(made.recorder.finish(at_s(36)).business)
    assert (business.clock, business.hours) == ("run", pytest.approx(0.01))


def test_a_week_has_at_most_so_many_intervals(tmp_path: Path) -> None:
    clock = RecordedClock(start_ns=0, speed=1.0)
    made = trial(tmp_path / "run", named=ROUTES[:1], scenario=SCENARIO, recorded_clock=clock)
    for hour in range(7 * 24):
        made.lanes[0].request(0, "5xx", due_ms=hour * 3_600_000.0)
        made.recorder.tick(at_s((hour + 1) * 3_600))
    business = there(made.recorder.finish(at_s(7 * 86_400 + 1)).business)
    assert business.interval_s % 60 == 0 and 7 * 86_400 / business.interval_s <= 1_441
    assert sum(interval.failed for interval in business.actions[0].intervals) == 7 * 24


def test_a_run_without_actions_and_values_has_none(tmp_path: Path) -> None:
    made = trial(tmp_path / "run")
    made.lanes[0].request(0, "5xx")
    assert made.recorder.finish(at_s(1)).business is None


def test_values_of_a_hostile_folder_are_left_out() -> None:
    assert values_of({"values": {"a": "9.99 EUR", "b": "x", "c": 7, "d": {"e": 1}}}).keys() == {"a"}
    assert values_of({"values": ["9.99 EUR"]}) == values_of({}) == {}


def test_the_lanes_memory_says_why_a_request_was_unsent(tmp_path: Path) -> None:
    made = trial(tmp_path / "run", named=ROUTES)
    for reason in REASONS:
        made.lanes[0].unsent(1, reason)
    assert made.lanes[0].metrics.route_own.tolist() == [0, 2, 0, 0, 0]
    assert made.lanes[0].metrics.counters[C.unsent_own] == 0


@pytest.mark.parametrize(
    ("requests", "failed", "words"),
    [
        (0, 0, "no registrations"),
        (27_648, 0, "none of 27,648 registrations failed"),
        (27_648, 2_304, "1 in 12 registrations failed (2,304)"),
        (10, 2, "1 in 5 registrations failed (2)"),
        (10, 3, "30% of registrations failed (3)"),
        (7, 7, "all 7 registrations failed"),
        (1_000_000, 1, "1 in 1,000,000 registrations failed (1)"),
    ],
)
def test_how_many_failed(requests: int, failed: int, words: str) -> None:
    assert words_of("registration", requests, failed) == words


def test_the_sentence_with_a_value() -> None:
    words = words_of("registration", 27_648, 2_304, parse_money("9.99 EUR"), 16.1)
    assert words == "1 in 12 registrations failed (2,304), about 1,430 EUR an hour at this rate"
    assert (
        words_of("payment", 4, 1, parse_money("USD 120.50"), 0.0) == "25% of payments failed (1), 120.50 USD"
    )


@pytest.mark.parametrize(
    ("name", "many"),
    [
        ("registration", "registrations"), ("entry", "entries"), ("play", "plays"), ("browsing", "browsing requests"),
        ("search", "searches"), ("sign-ups", "sign-ups"), ("box", "boxes"),
    ],
)  # fmt: skip
def test_what_many_of_an_action_are_called(name: str, many: str) -> None:
    assert plural(name) == many


@pytest.mark.parametrize("text", ["9.99 EUR", "EUR 9.99", " 9.99  eur "])
def test_an_amount_of_money(text: str) -> None:
    money = parse_money(text)
    assert (str(money.amount), money.currency) == ("9.99", "EUR")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("9.99", "no currency"), ("9,99 EUR", "not an amount"), ("€9.99", "not an amount"), ("-1 EUR", "not an amount"),
        ("0 EUR", "above 0"), ("0.00 EUR", "above 0"), ("1e9 EUR", "not an amount"), ("9.99 EURO", "not the three letters"),
        ("", "is empty"), ("1 EUR 2", "not an amount"), ("nan EUR", "not an amount"), ("9999999999999 EUR", "at most"),
        ("1.1234567 EUR", "not an amount"), ("٣ EUR", "not an amount"),
    ],
)  # fmt: skip
def test_what_is_no_amount_of_money(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_money(text)


@pytest.mark.parametrize(
    ("amount", "exact", "rough"),
    [
        (0.5, "0.50", "0.50"), (9.99, "9.99", "9.99"), (120, "120", "120"), (999.994, "999.99", "999.99"),
        (1429.6, "1,430", "1,430"), (23_016.96, "23,017", "23,000"), (1_234_567.8, "1,234,568", "1,230,000"),
    ],
)  # fmt: skip
def test_amounts_in_words(amount: float, exact: str, rough: str) -> None:
    assert format_money(amount, "EUR") == f"{exact} EUR"
    assert format_rough(amount, "EUR") == f"{rough} EUR"


def test_run_json_has_it(tmp_path: Path) -> None:
    made = trial(tmp_path / "run", named=ROUTES, scenario=SCENARIO | {"values": {"refund": "1 EUR"}})
    made.lanes[0].request(0, "5xx")
    made.recorder.finish(at_s(1))
    data = json.loads((tmp_path / "run" / "run.json").read_bytes())
    assert (
        data["business"]["values_unused"] == ["refund"]
        and "4xx are not counted" in data["business"]["counted"]
    )
    assert isinstance(load_run(tmp_path / "run").document, RunDocument)
