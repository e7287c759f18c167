"""Back-off, retry budget, circuit breaker and quota, each against its closed form or its count."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.settings.kinds import Duration, Share
from replay.staging.twin.policies import Budget, CircuitBreaker, Quota, State, amplification, wait_ns
from replay.staging.twin.spec import Breaker, Call, Retry
from replay.units import MS_NS, SECOND_NS


def test_waits_grow_by_their_factor_up_to_the_longest() -> None:
    policy = Retry(retries=9, backoff_ns=Duration(100 * MS_NS), backoff_max_ns=Duration(500 * MS_NS))
    waits = [wait_ns(policy, attempt, random.Random(1)) // MS_NS for attempt in range(1, 6)]
    assert waits == [100, 200, 400, 500, 500]


def test_waits_of_sidekiq_are_its_formula() -> None:
    # Sidekiq waits count**4 + 15 seconds, plus a random part, before it tries for the time count + 1.
    policy = Retry(
        growth="sidekiq", backoff_ns=Duration(15 * SECOND_NS), backoff_max_ns=Duration(10**7 * SECOND_NS)
    )
    for attempt in range(1, 26):
        expected_s = (attempt - 1) ** 4 + 15
        assert wait_ns(policy, attempt, random.Random(1)) / SECOND_NS == pytest.approx(expected_s)


def test_jitter_draws_a_wait_from_its_own_share() -> None:
    policy = Retry(backoff_ns=Duration(SECOND_NS), jitter=Share(0.5))
    draw = random.Random(1)
    waits = [wait_ns(policy, 1, draw) / SECOND_NS for _ in range(20_000)]
    assert 0.5 <= min(waits) < 0.501 and 0.999 < max(waits) <= 1
    # Uniform on [.5, 1]: the mean has a standard error of .5 / sqrt(12 * 20,000).
    assert sum(waits) / len(waits) == pytest.approx(0.75, abs=5 * 0.00102)


def test_amplification_is_a_geometric_sum() -> None:
    for retries in range(5):
        for failing in (0.0, 0.3, 0.9, 1.0):
            assert amplification(failing, retries) == pytest.approx(
                sum(failing**k for k in range(retries + 1))
            )


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_a_budget_allows_its_burst_and_then_its_share_of_calls(share: float) -> None:
    call = Call(budget=Share(share), budget_burst=7)
    budget = Budget(call)
    assert sum(budget.take() for _ in range(50)) == 7
    retries = 0
    for _ in range(10_000):
        budget.called()
        retries += budget.take()
    assert retries == pytest.approx(10_000 * share, abs=1)


def test_a_budget_saves_no_more_than_its_burst() -> None:
    budget = Budget(Call(budget=Share(1.0), budget_burst=3))
    for _ in range(1_000):
        budget.called()
    assert sum(budget.take() for _ in range(1_000)) == 3


def test_without_a_budget_every_retry_is_allowed() -> None:
    budget = Budget(Call())
    assert all(budget.take() for _ in range(1_000))


BREAKER = Breaker(
    failures=Share(0.5), window_ns=Duration(10 * SECOND_NS), minimum=4, open_ns=Duration(5 * SECOND_NS), probes=2
)  # fmt: skip


def end(breaker: CircuitBreaker, now_ns: int, *, failed: bool) -> None:
    """Make one call that ends at once."""
    assert breaker.admit(BREAKER, now_ns)
    breaker.ended(BREAKER, failed, now_ns, breaker.turns)


def opened(at_ns: int = 0) -> CircuitBreaker:
    breaker = CircuitBreaker()
    for _ in range(BREAKER.minimum):
        end(breaker, at_ns, failed=True)
    return breaker


def test_a_breaker_opens_at_its_share_of_at_least_its_minimum() -> None:
    breaker = CircuitBreaker()
    for failed in (True, True, True):
        end(breaker, 0, failed=failed)
    assert breaker.state is State.CLOSED
    end(breaker, 0, failed=False)
    assert breaker.state is State.OPEN
    breaker = CircuitBreaker()
    for at in range(100):
        end(breaker, 0, failed=at % 3 == 2)
    assert breaker.state is State.CLOSED


def test_a_breaker_forgets_what_is_older_than_its_window() -> None:
    breaker = CircuitBreaker()
    for _ in range(3):
        end(breaker, 0, failed=True)
    end(breaker, 10 * SECOND_NS, failed=True)
    assert breaker.state is State.CLOSED


def test_a_breaker_that_tolerates_no_failure_still_needs_one() -> None:
    strict = Breaker(failures=Share(0.0), minimum=1)
    breaker = CircuitBreaker()
    for failed, state in ((False, State.CLOSED), (True, State.OPEN)):
        assert breaker.admit(strict, 0)
        breaker.ended(strict, failed, 0, breaker.turns)
        assert breaker.state is state


def test_an_open_breaker_refuses_until_its_time_is_over_then_probes_one_at_a_time_and_closes() -> None:
    breaker = opened()
    assert not breaker.admit(BREAKER, 5 * SECOND_NS - 1)
    for _ in range(BREAKER.probes):
        assert breaker.admit(BREAKER, 5 * SECOND_NS)
        assert breaker.state is State.PROBING
        assert not breaker.admit(BREAKER, 5 * SECOND_NS)
        breaker.ended(BREAKER, False, 5 * SECOND_NS, breaker.turns)
    assert breaker.state is State.CLOSED
    end(breaker, 5 * SECOND_NS, failed=True)
    assert breaker.state is State.CLOSED


def test_a_probe_that_fails_opens_it_for_the_whole_time_again() -> None:
    breaker = opened()
    end(breaker, 6 * SECOND_NS, failed=True)
    assert breaker.state is State.OPEN
    assert not breaker.admit(BREAKER, 11 * SECOND_NS - 1)
    assert breaker.admit(BREAKER, 11 * SECOND_NS)


@pytest.mark.parametrize("failed", [False, True])
def test_a_call_from_before_it_opened_is_no_probe(failed: bool) -> None:
    breaker = CircuitBreaker()
    assert breaker.admit(BREAKER, 0)
    turns = breaker.turns
    for _ in range(BREAKER.minimum):
        end(breaker, 0, failed=True)
    assert breaker.admit(BREAKER, 5 * SECOND_NS)
    for _ in range(BREAKER.probes):
        breaker.ended(BREAKER, failed, 5 * SECOND_NS, turns)
    assert breaker.state is State.PROBING
    assert not breaker.admit(BREAKER, 5 * SECOND_NS)


@given(
    quota=st.integers(1, 6),
    gaps_ns=st.lists(st.integers(0, SECOND_NS) | st.just(0) | st.just(SECOND_NS), max_size=80),
)
def test_no_second_has_more_than_the_quota_wherever_it_begins(quota: int, gaps_ns: list[int]) -> None:
    limit, now_ns = Quota(), 0
    answered: list[int] = []
    for gap_ns in gaps_ns:
        now_ns += gap_ns
        recent = sum(at_ns > now_ns - SECOND_NS for at_ns in answered)
        is_within = limit.admit(quota, now_ns)
        assert is_within == (recent < quota)
        if is_within:
            answered.append(now_ns)


def test_a_burst_around_a_full_second_gets_the_quota_once() -> None:
    limit = Quota()
    times_ns = [SECOND_NS - 1] * 20 + [SECOND_NS] * 20
    assert sum(limit.admit(10, at_ns) for at_ns in times_ns) == 10


def test_an_overload_gets_the_quota_in_each_second() -> None:
    limit = Quota()
    every_ns = SECOND_NS // 100
    seconds = Counter(
        at_ns // SECOND_NS for at_ns in range(0, 60 * SECOND_NS, every_ns) if limit.admit(30, at_ns)
    )
    assert seconds == dict.fromkeys(range(60), 30)


def test_a_quota_of_zero_is_none() -> None:
    limit = Quota()
    assert all(limit.admit(0, 0) for _ in range(1_000))
