"""The queue of the twin on a virtual clock, against the formulas of M/M/k, M/D/k and M/M/k/k.

`python -m benchmarks.queues` does so with 10,000,000 customers for each.
"""

import math
from functools import partial

import pytest

from replay.staging.twin.virtual import drive, exponential_ns
from tests.reference.queues import md_k, mm_k

SERVICE_NS = 1_000_000
CUSTOMERS = 200_000
UNBOUNDED = 10**9


def assert_agrees(seen, truth):
    assert seen.refused == 0
    assert seen.utilization == pytest.approx(truth.utilization, rel=0.02)
    assert seen.mean_wait_ns == pytest.approx(truth.mean_wait * SERVICE_NS, rel=0.08)
    assert seen.p99_wait_ns == pytest.approx(truth.p99_wait * SERVICE_NS, rel=0.08)


@pytest.mark.parametrize("workers, utilization", [(1, 0.6), (4, 0.7), (8, 0.8)])
def test_exponential_service_agrees_with_m_m_k(workers, utilization):
    service_ns = partial(next, exponential_ns(SERVICE_NS, 7))
    gap_ns = SERVICE_NS / (workers * utilization)
    seen = drive(workers, UNBOUNDED, gap_ns, service_ns, CUSTOMERS, 1)
    assert_agrees(seen, mm_k(workers, utilization))


@pytest.mark.parametrize("workers, utilization", [(1, 0.7), (4, 0.7), (8, 0.8)])
def test_fixed_service_agrees_with_m_d_k(workers, utilization):
    gap_ns = SERVICE_NS / (workers * utilization)
    seen = drive(workers, UNBOUNDED, gap_ns, lambda: SERVICE_NS, CUSTOMERS, 1)
    assert_agrees(seen, md_k(workers, utilization))


def test_a_station_without_a_queue_refuses_the_share_of_erlang_b():
    service_ns = partial(next, exponential_ns(SERVICE_NS, 7))
    seen = drive(4, 0, SERVICE_NS / 4, service_ns, CUSTOMERS, 1)
    terms = [4**k / math.factorial(k) for k in range(5)]
    assert seen.refused / CUSTOMERS == pytest.approx(terms[4] / sum(terms), rel=0.03)
