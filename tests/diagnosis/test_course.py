"""The course of objectives: when one was first missed, when it was met again, and how much lay above it."""

from __future__ import annotations

import pytest

from replay.diagnosis.course import AS_BEGUN, courses_of, harmed_at, unlike_beginning
from replay.diagnosis.document import ObjectiveCourse
from replay.report.diagnosis import rows_of as cells_of
from replay.results import slo
from replay.results.timeline import Second

MS = 1_000_000


def row(at: int, p99_ms: float = 10.0, failed: int = 0, planned: int = 100, p50_ms: float = 5.0) -> Second:
    ok = 100 - failed
    return Second(
        t_s=float(at), length_s=1.0, wall_ns=0, planned=planned, sent=100, ok=ok, error=0, timeout=failed, unsent=0,
        in_flight=0, waiting=0, open=1, bytes_sent=0, bytes_received=0, outcomes={"2xx": ok, "timeout": failed},
        response_p50_ns=int(p50_ms * MS), response_p99_ns=int(p99_ms * MS),
    )  # fmt: skip


def rows_of(bad: range, length: int = 30, *, p99_ms: float = 10.0, failed: int = 0) -> list[Second]:
    return [row(at, p99_ms, failed) if at in bad else row(at) for at in range(length)]


def course(rows: list[Second], text: str) -> ObjectiveCourse:
    return courses_of(rows, [slo.parse(text)])[0]


def test_an_objective_that_was_met_has_no_course() -> None:
    found = course(rows_of(range(0)), "p99<100ms")
    assert (found.breached_s, found.recovered_s, found.bad_s, found.area) == (None, None, 0.0, 0.0)


def test_breach_recovery_and_area_of_a_latency() -> None:
    found = course(rows_of(range(10, 15), p99_ms=600.0), "p99<100ms")
    assert (found.breached_s, found.recovered_s, found.bad_s) == (10.0, 15.0, 5.0)
    assert found.area == pytest.approx(5 * 0.5) and found.area_unit == "s s"
    assert found.hysteresis == 0.0


def test_reports_show_how_far_an_objective_was_exceeded() -> None:
    slow = course(rows_of(range(10, 15), p99_ms=600.0), "p99<100ms")
    failed = course(rows_of(range(10, 15), failed=22), "errors<2%")
    met = course(rows_of(range(0)), "p99<100ms")
    assert [cells[-1] for cells in cells_of([slow, failed, met])] == [
        "500 ms on average",
        "100 requests",
        "-",
    ]


def test_the_area_of_a_share_counts_requests_above_it() -> None:
    found = course(rows_of(range(10, 15), failed=22), "errors<2%")
    assert found.area == pytest.approx(5 * 20) and found.area_unit == "requests"


def test_what_is_met_again_for_too_short_has_not_recovered() -> None:
    assert course(rows_of(range(10, 28), p99_ms=600.0), "p99<100ms").recovered_s is None
    assert course(rows_of(range(10, 27), p99_ms=600.0), "p99<100ms").recovered_s == 27.0


def test_hysteresis_is_by_how_much_the_load_was_lower_at_the_recovery() -> None:
    rows = [row(at, 600.0 if 10 <= at < 20 else 10.0, planned=200 if at < 15 else 100) for at in range(30)]
    assert course(rows, "p99<100ms").hysteresis == pytest.approx(0.5)


def test_a_recovery_at_a_higher_load_has_no_hysteresis() -> None:
    rows = [row(at, 600.0 if 10 <= at < 20 else 10.0, planned=100 if at < 15 else 200) for at in range(30)]
    assert course(rows, "p99<100ms").hysteresis == 0.0


def test_an_objective_of_a_route_is_not_judged_by_the_second() -> None:
    found = courses_of(rows_of(range(10, 15), p99_ms=600.0), [slo.parse('p99 of "GET /a" < 1ms')])
    assert found[0].note and found[0].breached_s is None
    assert found[1].objective == AS_BEGUN, "so the run is compared with its beginning as well"


def test_without_objectives_a_run_is_compared_with_its_beginning() -> None:
    rows = [row(at, p50_ms=50.0 if at >= 12 else 5.0) for at in range(30)]
    assert harmed_at(rows, []) == 12
    assert courses_of(rows, [])[0].breached_s == 12.0
    assert harmed_at([row(at) for at in range(30)], []) is None


def test_a_rise_of_failures_is_unlike_the_beginning_and_a_small_one_is_not() -> None:
    assert harmed_at(rows_of(range(12, 20), failed=5), []) == 12
    assert harmed_at(rows_of(range(12, 20), failed=1), []) is None


def test_harm_begins_in_the_first_of_two_bad_seconds_in_a_row() -> None:
    objective = [slo.parse("p99<100ms")]
    rows = [row(at, 600.0 if at in (5, 12, 13) else 10.0) for at in range(30)]
    assert harmed_at(rows, objective) == 12
    assert harmed_at(rows_of(range(5, 6), p99_ms=600.0), objective) == 5, "where it is all there is"
    assert harmed_at(rows_of(range(0)), objective) is None


def test_a_short_stretch_is_passed_over_for_one_that_is_much_longer() -> None:
    objective = [slo.parse("p99<100ms")]

    def harmed(long: int) -> int | None:
        bad = [*range(3, 6), *range(15, 15 + long)]
        return harmed_at([row(at, 600.0 if at in bad else 10.0) for at in range(30)], objective)

    assert harmed(9) == 3
    assert harmed(10) == 15


def test_rows_without_any_latency_are_like_the_beginning() -> None:
    assert unlike_beginning([]) == []
