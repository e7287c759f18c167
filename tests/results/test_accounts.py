"""Every planned request is in exactly one place, at every instant that a lane can be killed at."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.ledger.accounts import (
    AT,
    UNSENT_REASONS,
    Unbalanced,
    balance,
    lanes_cpu_ns,
)
from replay.ledger.catalog import ERRORS, OK
from replay_native.ledger.lane_metrics import COUNTERS

fates = st.lists(
    st.one_of(
        st.sampled_from([*OK, *ERRORS, "timeout", "flying"]),
        st.sampled_from([f"unsent {r}" for r in UNSENT_REASONS]),
    ),
    max_size=40,
)


def steps(fate: str) -> list[tuple[str, int]]:
    """The words that a lane writes for one request, in its order."""
    if fate.startswith("unsent"):
        return [("planned", 1), (f"unsent_{fate.split()[1]}", 1), ("outcome_unsent", 1)]
    begun = [("planned", 1), ("in_flight", 1), ("sent", 1)]
    if fate == "flying":
        return begun
    account = "ok" if fate in OK else "error" if fate in ERRORS else "timeout"
    return [*begun, (f"outcome_{fate}", 1), (account, 1), ("in_flight", -1)]


def words(written: list[tuple[str, int]]) -> np.ndarray:
    counters = np.zeros(len(COUNTERS), np.int64)
    for name, change in written:
        counters[AT[name]] += change
    return counters


@given(st.lists(fates, min_size=1, max_size=3))
def test_whole_lanes_balance_and_add_up(lanes):
    accounts, detail = balance([words([s for fate in lane for s in steps(fate)]) for lane in lanes])
    all_fates = [fate for lane in lanes for fate in lane]
    assert accounts.planned == len(all_fates)
    assert accounts.in_flight == all_fates.count("flying")
    assert accounts.timeout == all_fates.count("timeout")
    assert detail.status_class == {name: all_fates.count(name) for name in OK}
    assert detail.error == {name: all_fates.count(name) for name in ERRORS}
    assert detail.unsent == {reason: all_fates.count(f"unsent {reason}") for reason in UNSENT_REASONS}


@given(fates.filter(bool), st.data())
def test_a_lane_killed_between_two_words_balances_as_well(lane, data):
    written = [s for fate in lane for s in steps(fate)]
    cut = data.draw(st.integers(0, len(written)))
    accounts, detail = balance([words(written[:cut])], killed=True)
    assert accounts.planned == accounts.sent + accounts.unsent
    assert accounts.sent == accounts.ok + accounts.error + accounts.timeout + accounts.in_flight
    assert accounts.planned == sum(1 for name, change in written[:cut] if name == "planned")
    assert sum(detail.unsent.values()) == accounts.unsent


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("name", ["ok", "timeout", "outcome_reset", "unsent_limit"])
def test_what_does_not_balance_is_raised(name, killed):
    counters = words([s for fate in ("2xx", "reset", "timeout") for s in steps(fate)])
    counters[AT[name]] += 5
    with pytest.raises(Unbalanced):
        balance([counters], killed=killed)


def test_skipped_stands_outside_planned():
    accounts, detail = balance([words(steps("2xx"))], skipped={"method POST": 3, "filter": 0})
    assert (accounts.planned, accounts.skipped) == (1, 3)
    assert detail.skipped == {"method POST": 3}


def test_cpu_is_the_sum_of_the_lanes_own():
    lane = words([("cpu_first_ns", 100), ("cpu_last_ns", 350)])
    killed = words([("cpu_first_ns", 100)])
    assert lanes_cpu_ns([lane, lane, killed]) == 500
