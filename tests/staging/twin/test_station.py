"""The queue of the twin on a virtual clock, against the formulas of M/M/k, M/D/1 and M/M/k/k."""

import math
import random

import pytest

from replay.staging.twin.virtual import drive, erlang_c

SERVICE_NS = 1_000_000
CUSTOMERS = 200_000
UNBOUNDED = 10**9


@pytest.mark.parametrize("workers, utilization", [(1, 0.6), (4, 0.7), (8, 0.8)])
def test_exponential_service_agrees_with_m_m_k(workers, utilization):
    draw = random.Random(7)
    gap_ns = SERVICE_NS / (workers * utilization)
    seen = drive(workers, UNBOUNDED, gap_ns, lambda: round(draw.expovariate(1) * SERVICE_NS), CUSTOMERS, 1)
    waits = erlang_c(workers, workers * utilization)
    spare = workers * (1 - utilization)
    assert seen.refused == 0
    assert seen.utilization == pytest.approx(utilization, rel=0.02)
    assert seen.mean_wait_ns == pytest.approx(waits * SERVICE_NS / spare, rel=0.08)
    assert seen.p99_wait_ns == pytest.approx(math.log(waits / 0.01) * SERVICE_NS / spare, rel=0.08)


def test_fixed_service_agrees_with_m_d_1():
    seen = drive(1, UNBOUNDED, SERVICE_NS / 0.7, lambda: SERVICE_NS, CUSTOMERS, 1)
    assert seen.utilization == pytest.approx(0.7, rel=0.02)
    assert seen.mean_wait_ns == pytest.approx(0.7 / (2 * 0.3) * SERVICE_NS, rel=0.08)


def test_a_station_without_a_queue_refuses_the_share_of_erlang_b():
    draw = random.Random(7)
    seen = drive(4, 0, SERVICE_NS / 4, lambda: round(draw.expovariate(1) * SERVICE_NS), CUSTOMERS, 1)
    terms = [4**k / math.factorial(k) for k in range(5)]
    assert seen.refused / CUSTOMERS == pytest.approx(terms[4] / sum(terms), rel=0.03)
