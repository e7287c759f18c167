"""The formulas of queues, against simpler formulas of special cases and against another way to compute them."""

import math

import pytest

from tests.reference.queues import md_k, md_k_waits_at_most, mm_k
from tests.support.peak_data import waits_longer


@pytest.mark.parametrize("utilization", [0.3, 0.6, 0.9])
def test_m_m_1_has_its_well_known_mean_and_percentile(utilization):
    truth = mm_k(1, utilization)
    assert truth.mean_wait == pytest.approx(utilization / (1 - utilization))
    assert utilization * math.exp(-(1 - utilization) * truth.p99_wait) == pytest.approx(0.01)


@pytest.mark.parametrize("utilization", [0.3, 0.6, 0.9])
def test_m_d_1_has_the_mean_of_pollaczek_and_khinchine(utilization):
    assert md_k(1, utilization).mean_wait == pytest.approx(utilization / (2 * (1 - utilization)), rel=1e-6)


@pytest.mark.parametrize("wait", [0.0, 0.4, 1.0, 2.5])
def test_m_d_1_has_the_distribution_of_erlang(wait):
    load = 0.7
    terms = (
        (-load * (wait - k)) ** k / math.factorial(k) * math.exp(load * (wait - k))
        for k in range(math.floor(wait) + 1)
    )
    assert md_k_waits_at_most(1, load, wait) == pytest.approx((1 - load) * sum(terms))


@pytest.mark.parametrize("workers", [2, 4, 8])
@pytest.mark.parametrize("utilization", [0.6, 0.8])
def test_m_d_k_agrees_with_the_number_that_an_arrival_finds(workers, utilization):
    for services in (0, 1, 2):
        longer = waits_longer(workers * utilization, workers, 1.0, services)
        assert 1 - md_k_waits_at_most(workers, utilization, services) == pytest.approx(longer, abs=1e-7)


@pytest.mark.parametrize("workers", [2, 4, 8])
def test_the_distribution_of_m_d_k_has_its_mean_and_percentile(workers):
    truth = md_k(workers, 0.8)
    assert md_k_waits_at_most(workers, 0.8, truth.p99_wait) == pytest.approx(0.99, abs=1e-9)
    steps = 100
    longer = [1 - md_k_waits_at_most(workers, 0.8, (at + 0.5) / steps) for at in range(24 * steps)]
    assert sum(longer) / steps == pytest.approx(truth.mean_wait, rel=1e-4)
