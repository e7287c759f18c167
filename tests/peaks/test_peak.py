"""The search for a peak on services whose capacity is known, and the verdict on coming back from a surge."""

from __future__ import annotations

import math
from typing import Any

import pytest

from replay.errors import UsageError
from replay.peaks.climb import Measure, climb
from replay.peaks.recovery import Moment, judge
from replay.peaks.search import Search, Trial
from replay.report.peak import climb_facts
from tests.support.peak_data import (
    Queue,
    capacity,
    retry_storm,
    waits_longer,
)

SERVERS, SERVICE_S = 8, 0.01


def ceiling(limit: float, **given: Any) -> Measure:
    """A target that meets its goal up to a load, and never above."""

    def measure(load: float, stage: str) -> Trial:
        return Trial(load=load, passed={"goal": load <= limit}, stage=stage, length_s=1.0, **given)

    return measure


def test_the_answer_of_one_server_is_that_of_its_formula() -> None:
    # M/D/1 (Erlang 1909): P(W = 0) = 1 - rho, P(W <= D) = (1 - rho) exp(rho).
    assert waits_longer(50.0, 1, 0.01, 0) == pytest.approx(0.5, rel=1e-6)
    assert waits_longer(50.0, 1, 0.01, 1) == pytest.approx(1 - 0.5 * math.exp(0.5), rel=1e-6)


@pytest.mark.parametrize("seed", range(8))
def test_a_queue_of_known_capacity_is_found_within_the_width(seed: int) -> None:
    shares = {"0.1%": 0.001, "1%": 0.01}
    known = {goal: capacity(SERVERS, SERVICE_S, 1, share) for goal, share in shares.items()}
    search = Search(list(shares), 50.0, 5_000.0, 0.05)
    measure = Queue(SERVERS, SERVICE_S, shares, seed, 400_000)
    while (load := search.next_load()) is not None:
        search.add(measure(load, "up"))
    assert search.verdict() == "FOUND"
    for goal in shares:
        bounds = search.bounds(goal)
        assert bounds.upper / bounds.lower <= 1.05 * 1.000001
        assert abs(bounds.lower / known[goal] - 1) <= 0.05
    assert search.peak().lower == min(search.bounds(goal).lower for goal in shares)


@pytest.mark.parametrize("limit", [0.31, 1.0, 7.7, 63.9])
def test_a_sharp_limit_is_bracketed_with_few_trials(limit: float) -> None:
    found = climb(Search(["goal"], 0.25, 64.0, 0.02), ceiling(limit))
    assert found.verdict == "FOUND"
    assert found.peak <= limit < found.above <= found.peak * 1.0201
    assert found.held and found.hysteresis == 0.0 and found.recovery == "RECOVERED"
    down = [trial.load for trial in found.trials if trial.stage == "down"]
    assert down[1] == found.peak and down[-1] == 0.25 and down == sorted(set(down), reverse=True)
    assert len([trial for trial in found.trials if trial.stage == "up"]) <= 2 * (8 + 7)


def test_a_target_that_never_gives_in_has_no_limit() -> None:
    found = climb(Search(["goal"], 1.0, 50.0, 0.05), ceiling(1e9))
    assert found.verdict == "NO_LIMIT" and found.peak == 50.0 and math.isinf(found.above)


def test_a_target_that_fails_at_once_is_said_to() -> None:
    found = climb(Search(["goal"], 1.0, 50.0, 0.05), ceiling(0.5))
    assert found.verdict == "FAILS_AT_LOWEST" and found.peak == 0.0
    assert {trial.load for trial in found.trials} == {1.0}


def test_a_generator_that_is_full_is_never_the_targets_capacity() -> None:
    def measure(load: float, stage: str) -> Trial:
        full = "lateness" if load > 6 else ""
        return Trial(load=load, passed={"goal": True}, stage=stage, generator_limited=full)

    found = climb(Search(["goal"], 1.0, 50.0, 0.05), measure)
    assert found.verdict == "GENERATOR_LIMITED" and found.peak == 4.0


def test_one_hiccup_does_not_move_the_answer() -> None:
    calls = iter(range(1_000))

    def measure(load: float, stage: str) -> Trial:
        return Trial(
            load=load, passed={"goal": load <= 10 and next(calls) % 7 != 3}, stage=stage, length_s=1.0
        )

    found = climb(Search(["goal"], 1.0, 64.0, 0.05), measure)
    assert found.peak <= 10 < found.peak * 1.1


def test_a_target_is_driven_no_further_than_its_first_missed_objective() -> None:
    def measure(load: float, stage: str) -> Trial:
        return Trial(
            load=load, passed={"latency": load <= 3, "errors": load <= 40}, stage=stage, length_s=1.0
        )

    first = climb(Search(["latency", "errors"], 1.0, 64.0, 0.05, each=False), measure)
    assert first.verdict == "FOUND" and first.peak <= 3 < first.above
    assert max(trial.load for trial in first.trials) == 4.0
    every = Search(["latency", "errors"], 1.0, 64.0, 0.05)
    while (load := every.next_load()) is not None:
        every.add(measure(load, "up"))
    assert every.bounds("errors").lower <= 40 < every.bounds("errors").upper <= 42


class Tired:
    """A target that after a trial above its limit stays slow, in time of its own: for a while, or for ever."""

    def __init__(self, rest_s: float) -> None:
        self.rest_s, self.tired_until_s, self.now_s = rest_s, 0.0, 0.0

    def __call__(self, load: float, stage: str) -> Trial:
        slow = self.now_s < self.tired_until_s or load > 10
        self.now_s += 1.0
        if load > 10:
            self.tired_until_s = self.now_s + self.rest_s
        p50_ns = 900_000_000 if slow else 5_000_000
        return Trial(load=load, passed={"goal": not slow}, stage=stage, length_s=1.0, p50_ns=p50_ns)


def test_what_one_trial_broke_does_not_fail_the_next() -> None:
    found = climb(Search(["goal"], 1.0, 64.0, 0.05), Tired(rest_s=1.5))
    assert found.verdict == "FOUND" and found.peak <= 10 < found.above <= 10.5
    assert {cool_down.took_s for cool_down in found.cool_downs} == {2.0}
    assert {trial.load for trial in found.trials if trial.stage == "probe"} == {1.0}


def test_a_target_that_stays_down_ends_the_search() -> None:
    found = climb(Search(["goal"], 1.0, 64.0, 0.05), Tired(rest_s=math.inf))
    assert found.verdict == found.recovery == "DID_NOT_RECOVER"
    assert (found.peak, found.above) == (8.0, 16.0)
    assert [trial.stage for trial in found.trials][-3:] == ["probe"] * 3 and found.held is None


def tiring(limit: float, bears: float) -> Measure:
    """A target that meets its goal up to `limit` for the length of a trial, and up to `bears` for that of a hold."""

    def measure(load: float, stage: str) -> Trial:
        met = load <= (bears if stage == "hold" else limit)
        return Trial(load=load, passed={"goal": met}, stage=stage, length_s=1.0)

    return measure


def test_where_the_peak_cannot_be_held_a_lower_load_is() -> None:
    found = climb(Search(["goal"], 1.0, 64.0, 0.02), tiring(10, bears=9))
    assert found.verdict == "FOUND" and found.peak > 9.8
    assert found.held is False and found.held_load is not None and 8 <= found.held_load <= 9
    assert (
        "held",
        f"no: the peak met the objectives only for the length of a trial; {found.held_load:.3g} times, 0/s, was held",
    ) in (climb_facts(found))


def test_a_hold_is_not_tried_for_ever() -> None:
    found = climb(Search(["goal"], 1.0, 64.0, 0.02), tiring(10, bears=0))
    held = [trial.load for trial in found.trials if trial.stage == "hold"]
    assert found.held is False and found.held_load is None
    assert (
        held[0] == found.peak and held[1] <= 0.95 * held[0] and held[2] <= 0.95 * held[1] and len(held) == 3
    )
    assert any(f"{held[2]:.3g} times was not held either" in words for _, words in climb_facts(found))


def test_a_target_that_a_hold_broke_is_not_held_again() -> None:
    broken = False

    def measure(load: float, stage: str) -> Trial:
        nonlocal broken
        broken = broken or stage == "hold"
        p50_ns = 900_000_000 if broken else 5_000_000
        return Trial(
            load=load, passed={"goal": load <= 10 and not broken}, stage=stage, length_s=1.0, p50_ns=p50_ns
        )

    found = climb(Search(["goal"], 1.0, 64.0, 0.05), measure)
    assert found.verdict == found.recovery == "DID_NOT_RECOVER" and found.above == found.peak
    assert [trial.stage for trial in found.trials][-4:] == ["hold", "probe", "probe", "probe"]


def test_a_hold_that_the_generator_limited_says_nothing() -> None:
    def measure(load: float, stage: str) -> Trial:
        full = "lateness" if stage == "hold" else ""
        return Trial(
            load=load, passed={"goal": load <= 10}, stage=stage, length_s=1.0, generator_limited=full
        )

    assert climb(Search(["goal"], 1.0, 64.0, 0.05), measure).held is None


def test_answers_that_contradict_each_other_are_said() -> None:
    search = Search(["goal"], 1.0, 8.0, 0.5)
    for load, passed in ((1.0, True), (2.0, False), (4.0, True)):
        for _ in range(2):
            search.add(Trial(load=load, passed={"goal": passed}))
    assert search.contradictions() == [4.0]


def test_what_stays_down_after_an_overload_shows_on_the_way_down() -> None:
    broken = False

    def measure(load: float, stage: str) -> Trial:
        nonlocal broken
        broken = (broken or (stage == "down" and load > 10)) and load > 3
        return Trial(load=load, passed={"goal": load <= 10 and not broken}, stage=stage, length_s=1.0)

    found = climb(Search(["goal"], 1.0, 64.0, 0.05), measure)
    assert found.hysteresis is not None and found.hysteresis > 0.5
    assert found.recovery == "RECOVERED" and found.recovered_after_s

    def dead(load: float, stage: str) -> Trial:
        return Trial(load=load, passed={"goal": load <= 10 and stage != "down"}, stage=stage, length_s=1.0)

    assert climb(Search(["goal"], 1.0, 64.0, 0.05), dead).recovery == "DID_NOT_RECOVER"


def test_a_retry_storm_does_not_recover_and_a_patient_client_does() -> None:
    storm = judge(retry_storm(8, surge=4.0), 10, 20)
    assert storm.verdict == "DID_NOT_RECOVER" and storm.after_s is None
    patient = judge(retry_storm(0, surge=2.5), 10, 20)
    assert patient.verdict == "RECOVERED" and patient.after_s is not None and patient.after_s < 30
    assert patient.bad_s >= 1
    assert judge(retry_storm(8, surge=1.1), 10, 20).verdict == "NOT_HARMED"


def test_nothing_comes_back_to_a_baseline_that_gets_slower_by_itself() -> None:
    def rows(before_ms: list[int]) -> list[Moment]:
        medians = [*before_ms, *[900] * 10, *[before_ms[-1]] * 30]
        return [Moment(float(t), 100, 0, ms * 1_000_000, 9) for t, ms in enumerate(medians)]

    assert judge(rows([100 * n for n in range(1, 11)]), 10, 20).verdict == "UNSTEADY"
    assert judge(rows([9, 14, 8, 12, 10, 9, 13, 12, 11, 14]), 10, 20).verdict == "RECOVERED"
    assert judge(rows([400, 20, 20, 20, 20, 20, 20, 20, 20, 20]), 10, 20).verdict == "RECOVERED"


@pytest.mark.parametrize(
    ("lowest", "highest", "width"), [(0, 5, 0.1), (5, 1, 0.1), (1, 5, 0), (1, math.inf, 0.1)]
)
def test_a_search_that_makes_no_sense_is_refused(lowest: float, highest: float, width: float) -> None:
    with pytest.raises(UsageError, match="is not possible"):
        Search(["goal"], lowest, highest, width)
