"""Some hundred seeded schedules of faults; `python -m benchmarks.cluster_simulation` runs ten thousand."""

from __future__ import annotations

import pytest

from benchmarks.cluster_simulation import Broken, simulate
from replay.cluster import agent_state, coordinator_state, own_time, protocol
from replay.cluster.clock import PeerClock
from replay.cluster.coordinator_state import CoordinatorState


def test_what_is_promised_holds_in_seeded_schedules_of_faults():
    outcomes = simulate(250, seed=7)
    assert sum(outcomes.values()) == 250
    assert set(outcomes) == {"whole", "lost agents", "coordinator died", "could not begin"}


def test_a_coordinator_that_believes_too_early_that_an_agent_has_stopped_is_found(monkeypatch):
    monkeypatch.setattr(CoordinatorState, "last_sending_ns", lambda self, agent: self.seats[agent].heard_ns)
    with pytest.raises(Broken, match="reported and unknown"):
        simulate(400, seed=7)


def test_a_coordinator_that_is_too_patient_is_found(monkeypatch):
    monkeypatch.setattr(coordinator_state, "LOST_NS", 4_000_000_000)
    with pytest.raises(Broken, match="reported"):
        simulate(400, seed=7)


def test_agents_that_never_feel_orphaned_are_found(monkeypatch):
    for module in (agent_state, protocol):
        monkeypatch.setattr(module, "ORPHANED_NS", 1 << 60)
    with pytest.raises(Broken):
        simulate(400, seed=7)


def test_a_bound_of_the_start_without_the_drift_until_the_start_is_found(monkeypatch):
    monkeypatch.setattr(PeerClock, "reference", lambda self, at_ns: self.estimate(self.samples[-1].at_ns))
    with pytest.raises(Broken, match="its bound is"):
        simulate(50, seed=7)


def test_a_coordinator_that_blames_agents_for_its_own_pauses_is_found(monkeypatch):
    monkeypatch.setattr(own_time, "PAUSE_NS", 1 << 60)
    with pytest.raises(Broken, match="without a fault of theirs"):
        simulate(200, seed=7)


def test_an_agent_that_accepts_an_order_twice_is_found(monkeypatch):
    """The shares of a run are told apart by the agent in the plan: who gets the plan of another one sends it again."""
    honest = CoordinatorState.order

    def one_plan_for_all(self, plans):
        return honest(self, [plans[0]] * len(plans))

    monkeypatch.setattr(CoordinatorState, "order", one_plan_for_all)
    with pytest.raises(Broken, match="sent twice"):
        simulate(50, seed=7)
