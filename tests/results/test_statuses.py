"""Statuses against the recording: which responses are worse, when a run is SUSPECT for them and when it has failed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.cli.run import exit_code
from replay.comparison.sides import Side, load_run_folder
from replay.comparison.statuses import judge_statuses
from replay.ledger.statuses import STATUS_DIFFERS, StatusCount
from replay.results.document import Recorded, RouteStart
from replay.results.failures import failures_of
from replay.results.run import load_run
from replay_native.ground.jit import warm
from replay_native.ledger.statuses import S, count_status
from tests.reference.naive import is_worse_status
from tests.support.metrics_data import at_s, trial
from tests.support.there import there

warm(["ledger.statuses"])
STATUSES = st.one_of(
    st.sampled_from([0, 200, 204, 301, 302, 304, 401, 404, 408, 429, 500, 503]), st.integers(200, 599)
)


@given(recorded=STATUSES, status=st.integers(200, 599))
def test_the_kernel_counts_as_the_twin_does(recorded: int, status: int) -> None:
    counts = np.zeros((3, len(S)), np.int64)
    count_status(counts, 1, recorded, status)
    expected = [0] * len(S)
    if recorded:
        expected[S.compared], expected[S.worse] = 1, int(is_worse_status(recorded, status))
    else:
        expected[S.unknown] = 1
        expected[S.unknown_4xx] = int(400 <= status < 500 and status not in (408, 429))
    assert counts.tolist() == [[0] * len(S), expected, [0] * len(S)]


@pytest.mark.parametrize(
    ("recorded", "status", "is_worse"),
    [
        (200, 401, True), (204, 404, True), (304, 404, True), (301, 404, True), (200, 302, True), (304, 302, True),
        (200, 304, False), (304, 200, False), (301, 302, False), (302, 200, False), (404, 404, False), (404, 200, False),
        (401, 403, False), (500, 404, False), (200, 408, False), (200, 429, False), (200, 500, False), (503, 302, False),
    ],
)  # fmt: skip
def test_which_response_is_worse(recorded: int, status: int, is_worse: bool) -> None:
    assert is_worse_status(recorded, status) == is_worse


def folder_of(path, parts, *, slo=(), known=True, **more):
    """A run folder: `parts` are (route, requests, recorded status, status now)."""
    recorded = Recorded(count=100, statuses={"2xx": 99, "5xx": 1} if known else {})
    named = [RouteStart(f"GET /{number}", recorded) for number in range(12)]
    made = trial(path, named=named, slo=list(slo), **more)
    for route, requests, then, now in parts:
        for at in range(requests):
            outcome = f"{now // 100}xx"
            made.lanes[0].request(route, outcome, due_ms=float(at), status=now, recorded=then)
    made.recorder.finish(at_s(5))
    return path


def document_of(path, parts, **more):
    return load_run(folder_of(path, parts, **more)).document


def codes(document):
    return [reason.code for reason in document.validity.reasons]


def test_a_target_that_refuses_everything_has_failed_and_says_so_first(tmp_path):
    document = document_of(tmp_path / "run", [(0, 90, 200, 401), (1, 10, 304, 401)], slo=["errors<1%"])
    assert codes(document)[0] == STATUS_DIFFERS and document.validity.verdict != "VALID"
    assert all(outcome.passed for outcome in document.slo), "no error in the accounts' sense"
    assert document.status_differs.share == 1.0 and document.status_differs.failed
    assert (
        "100 of 100" in document.validity.reasons[0].message
        and "now 4xx 100%" in document.validity.reasons[0].message
    )
    assert len(failures_of(document)) == 1
    assert exit_code(document) in (99, 4) and (
        exit_code(document) == 99 or document.validity.verdict == "INVALID"
    )


@pytest.mark.parametrize(
    ("worse", "suspect", "failed"),
    [(0, False, False), (50, False, False), (51, True, False), (500, True, False), (501, True, True)],
)
def test_the_shares_of_all_requests_that_matter(tmp_path, worse, suspect, failed):
    parts = [(number, worse // 10 + (number < worse % 10), 200, 404) for number in range(10)]
    parts += [(number, 100 - count, 200, 200) for number, count, _, _ in parts]
    document = document_of(tmp_path / "run", parts)
    assert sum(route.count for route in document.routes) == 1_000
    assert (STATUS_DIFFERS in codes(document)) == (suspect or failed)
    assert document.status_differs.failed == failed


@pytest.mark.parametrize(("requests", "worse", "suspect"), [(10, 6, True), (10, 5, False), (9, 9, False)])
def test_more_than_half_of_a_route_with_a_hundredth_of_the_requests(tmp_path, requests, worse, suspect):
    parts = [(0, 1_000 - requests, 200, 200), (1, worse, 200, 404), (1, requests - worse, 200, 200)]
    document = document_of(tmp_path / "run", parts)
    assert (STATUS_DIFFERS in codes(document)) == suspect
    if suspect:
        assert "GET /1 (60%)" in document.validity.reasons[0].message
    assert next(route.worse for route in document.routes if route.route == "GET /1") == worse
    assert not document.status_differs.failed


@pytest.mark.parametrize(("refused", "failed"), [(50, False), (51, True)])
def test_a_recording_without_statuses_has_failed_where_more_than_half_is_4xx(tmp_path, refused, failed):
    parts = [(0, refused, 0, 404), (0, 100 - refused, 0, 200)]
    document = document_of(tmp_path / "run", parts, known=False)
    assert document.status_differs.failed == failed
    assert (STATUS_DIFFERS in codes(document)) == failed
    if failed:
        assert "no statuses to compare with" in document.validity.reasons[0].message


def test_as_bad_as_recorded_and_better_never_count(tmp_path):
    document = document_of(
        tmp_path / "run", [(0, 50, 404, 404), (1, 50, 500, 200), (2, 50, 302, 301), (3, 9, 200, 429)]
    )
    assert document.status_differs.share == 0 and STATUS_DIFFERS not in codes(document)


@pytest.mark.parametrize(
    ("text", "passed"),
    [
        ("statuses differ<100%", True), ("statuses differ<=60%", True), ("statuses differ<60%", False),
        ('statuses differ of "GET /1"<100%', True), ('statuses differ of "GET /0"<1%', True),
    ],
)  # fmt: skip
def test_an_objective_says_what_is_allowed(tmp_path, text, passed):
    document = document_of(tmp_path / "run", [(0, 40, 200, 200), (1, 60, 200, 404)], slo=[text])
    assert [outcome.passed for outcome in document.slo] == [passed]
    replaced = " of " not in text
    assert document.status_differs.failed != replaced
    assert (STATUS_DIFFERS in codes(document)) != replaced
    assert document.status_differs.share == 0.6, "what was counted stays in run.json"


def test_an_objective_that_accepts_any_share_accepts_all(tmp_path):
    document = document_of(tmp_path / "run", [(0, 60, 200, 404)], slo=["statuses differ<100%"])
    assert document.slo[0].passed and document.slo[0].value == 1.0 and not failures_of(document)


def test_where_nothing_was_answered_nothing_is_said_and_the_objective_fails(tmp_path):
    made = trial(tmp_path / "run", slo=["statuses differ<50%"])
    made.lanes[0].request(0, "refused")
    made.recorder.finish(at_s(2))
    document = load_run(tmp_path / "run").document
    assert document.status_differs is None
    assert not document.slo[0].passed and document.slo[0].value is None


def test_the_warm_up_is_not_judged(tmp_path):
    made = trial(tmp_path / "run")
    for _ in range(10):
        made.lanes[0].request(0, "4xx", status=401, recorded=200, warm_up=True)
    made.lanes[0].request(0, "2xx", status=200, recorded=200)
    made.recorder.finish(at_s(2))
    differs = load_run(tmp_path / "run").document.status_differs
    assert (there(differs).requests, there(differs).worse) == (1, 0)


def test_routes_without_a_row_of_their_own_are_judged_all_the_same(tmp_path):
    document = document_of(tmp_path / "run", [(number, 10, 200, 404) for number in range(12)], arena_bytes=1)
    assert document.status_differs.share == 1.0 and document.status_differs.failed


@given(st.lists(st.tuples(*[st.integers(0, 50)] * 4), max_size=5))
def test_no_share_is_above_all(rows):
    for compared, worse, unknown, refused in rows:
        count = StatusCount(
            compared + unknown, compared, min(worse, compared), unknown, min(refused, unknown)
        )
        assert 0 <= count.share <= 1


@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [
        (0, 0, None), (20, 20, None), (0, 5, None), (0, 6, "REGRESSION"), (0, 100, "REGRESSION"), (60, 100, "REGRESSION"),
        (100, 100, "INVALID"), (90, 20, "INVALID"), (30, 0, "INCONCLUSIVE"),
    ],
)  # fmt: skip
def test_a_build_that_refuses_more_is_worse_however_fast_it_is(tmp_path, old, new, verdict):
    sides = []
    for label, worse in (("base", old), ("new", new)):
        parts = [(0, worse, 200, 404), (0, 100 - worse, 200, 200)]
        sides.append(Side(label, (load_run_folder(folder_of(tmp_path / label, parts)),)))
    found = judge_statuses(*sides)
    assert (found and found[0]) == verdict
