"""The verdict reads the generator alone, and weighs its lateness against what was felt."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from replay.ledger.host import HostLoad, RunDelay, throttled_share
from replay.ledger.validity import (
    Figures,
    Quantiles,
    ValidityLimits,
    judge,
)

US, MS = 1_000, 1_000_000


def quantiles(p50_us: float, p90_us: float, p99_us: float, count: int = 10_000) -> Quantiles:
    return Quantiles(count=count, p50_ns=int(p50_us * US), p90_ns=int(p90_us * US), p99_ns=int(p99_us * US))


def run(late: Quantiles, felt: Quantiles, **more: Any) -> Figures:
    return Figures(planned=10_000, sent=10_000, response=felt, lateness=late, **more)


NOISE = quantiles(30, 60, 2_000)
"""The lateness of a quiet generator on a noisy machine."""


@pytest.mark.parametrize(
    ("name", "figures"),
    [
        ("a sink that answers in 50 us", run(NOISE, quantiles(90, 150, 2_100))),
        ("a slow target", run(NOISE, quantiles(300_000, 900_000, 2_000_000))),
        ("a stalled target", run(NOISE, quantiles(100, 900_000, 990_000))),
        ("a cap that binds", run(NOISE, quantiles(5_000_000, 9_000_000, 10_000_000))),
        (
            "half a millisecond late for a target of 50 ms",
            run(quantiles(500, 900, 4_000), quantiles(50_000, 60_000, 70_000)),
        ),
        ("a busy lane that keeps its word", run(NOISE, quantiles(90, 150, 2_100), busy_share=0.99)),
        (
            "a shared core, a slow target",
            run(NOISE, quantiles(20_000, 23_000, 27_000), run_delay=RunDelay(0.7, 250 * US)),
        ),
        ("few long waits of a spinning lane", run(NOISE, NOISE, run_delay=RunDelay(0.01, 900 * US))),
        ("many short waits", run(NOISE, NOISE, run_delay=RunDelay(0.4, 12 * US))),
        ("a closed loop", Figures(planned=100, sent=100)),
        (
            "one late request",
            run(quantiles(9_000, 9_000, 9_000, count=1), quantiles(9_100, 9_100, 9_100, count=1)),
        ),
        (
            "a target that never answers, and holds every connection",
            run(
                NOISE,
                quantiles(10_000_000, 10_000_000, 10_000_000),
                response_net=quantiles(9_999_900, 9_999_900, 9_999_900),
            ),
        ),
        (
            "a gap now and then, before a fast target",
            run(NOISE, quantiles(90, 150, 6_000), response_net=quantiles(60, 100, 1_500), lost_share=0.02),
        ),
        (
            "responses of a slow target, some of them read 50 ms late",
            run(
                NOISE,
                quantiles(900_000, 990_000, 999_000),
                response_net=quantiles(880_000, 970_000, 950_000),
                service=quantiles(900_000, 990_000, 999_000),
                service_net=quantiles(880_000, 970_000, 950_000),
            ),
        ),
        (
            "a burst after a stall, read 5 ms late",
            run(
                NOISE,
                quantiles(46_000, 3_000_000, 3_700_000),
                response_net=quantiles(41_000, 2_990_000, 3_690_000),
                response_arrived=quantiles(41_000, 2_990_000, 3_690_000),
                service=quantiles(5_100, 98_000, 3_700_000),
                service_net=quantiles(270, 92_000, 3_690_000),
            ),
        ),
        ("few requests that the generator did not send", run(NOISE, NOISE, unsent_own=10)),
        ("a target that refuses everything", run(NOISE, quantiles(60, 100, 2_000), generator_errors=0)),
    ],
)
def test_valid(name, figures):
    assert judge(figures).verdict == "VALID", name


@pytest.mark.parametrize(
    ("code", "verdict", "figures"),
    [
        ("LATE", "INVALID", run(quantiles(1_500, 3_000, 5_000), quantiles(1_600, 3_100, 5_200))),
        ("LATE", "INVALID", run(quantiles(60, 3_000, 9_000), quantiles(150, 3_100, 9_200))),
        ("LATE", "SUSPECT", run(quantiles(150, 300, 2_000), quantiles(1_000, 2_000, 9_000))),
        ("LATE", "SUSPECT", run(quantiles(30, 600, 2_000), quantiles(1_000, 2_000, 9_000))),
        ("LATE", "SUSPECT", run(quantiles(30, 60, 6_000), quantiles(1_000, 2_000, 9_000))),
        (
            "LATE",
            "INVALID",
            run(
                quantiles(310_000, 500_000, 600_000),
                quantiles(320_000, 510_000, 610_000),
                response_net=quantiles(5_000, 6_000, 7_000),
            ),
        ),
        (
            "STARVED",
            "INVALID",
            run(
                quantiles(310_000, 500_000, 600_000),
                quantiles(4_200_000, 6_300_000, 7_000_000),
                response_net=quantiles(5_000, 600_000, 620_000),
            ),
        ),
        (
            "STARVED",
            "INVALID",
            run(NOISE, quantiles(5_000, 40_000, 60_000), response_net=quantiles(4_900, 9_000, 50_000)),
        ),
        (
            "STARVED",
            "SUSPECT",
            run(NOISE, quantiles(6_500, 8_000, 60_000), response_net=quantiles(5_000, 7_500, 59_000)),
        ),
        (
            "STARVED",
            "SUSPECT",
            run(NOISE, quantiles(5_000, 6_000, 60_000), response_net=quantiles(5_000, 6_000, 9_000)),
        ),
        (
            "READ_LATE",
            "INVALID",
            Figures(
                planned=9,
                sent=9,
                service=quantiles(9_000, 9_100, 9_200),
                service_net=quantiles(5_000, 5_100, 5_200),
            ),
        ),
        (
            "READ_LATE",
            "SUSPECT",
            run(
                quantiles(1, 1, 10),
                quantiles(5_000, 5_100, 9_200),
                response_net=quantiles(5_000, 5_100, 7_500),
                response_arrived=quantiles(5_000, 5_100, 7_600),
            ),
        ),
        ("NOT_SENT", "SUSPECT", run(NOISE, NOISE, unsent_own=100)),
        ("NOT_SENT", "INVALID", run(NOISE, NOISE, unsent_own=8_370)),
        ("GENERATOR_ERRORS", "SUSPECT", run(NOISE, NOISE, generator_errors=5)),
        ("GENERATOR_ERRORS", "INVALID", run(NOISE, NOISE, generator_errors=500)),
        ("FEED_UNDERRUN", "SUSPECT", run(NOISE, NOISE, underruns=20)),
        ("FEED_UNDERRUN", "INVALID", run(NOISE, NOISE, underruns=2_000)),
        ("THROTTLED", "SUSPECT", run(NOISE, NOISE, throttled_share=0.05)),
        ("THROTTLED", "INVALID", run(NOISE, NOISE, throttled_share=0.5)),
        (
            "CPU_CONTENDED",
            "SUSPECT",
            run(NOISE, quantiles(112, 446, 3_180), run_delay=RunDelay(0.43, 44 * US)),
        ),
        (
            "CPU_CONTENDED",
            "INVALID",
            run(NOISE, quantiles(100, 3_580, 23_600), run_delay=RunDelay(0.75, 254 * US)),
        ),
        (
            "CPU_CONTENDED",
            "INVALID",
            Figures(planned=9, sent=9, service=NOISE, run_delay=RunDelay(0.9, 100 * US)),
        ),
        ("STEAL", "SUSPECT", run(NOISE, NOISE, steal_share=0.9)),
        ("LANE_LOST", "INVALID", run(NOISE, NOISE, lanes_lost=1)),
        ("UNBALANCED", "INVALID", run(NOISE, NOISE, imbalance="sent is 3")),
        ("EMPTY", "INVALID", Figures(planned=0, sent=0)),
    ],
)
def test_not_valid_says_why_and_what_to_do(code, verdict, figures):
    found = judge(figures)
    assert (found.verdict, [r.code for r in found.reasons]) == (verdict, [code])
    assert found.reasons[0].message and found.reasons[0].advice


@pytest.mark.parametrize(
    ("more", "advice"),
    [
        ({"busy_share": 0.99}, "-t"),
        ({"busy_share": 0.2}, "taskset"),
        ({"underruns": 30}, "prepared"),
        ({"throttled_share": 0.05}, "quota"),
        ({"lost_share": 0.9, "busy_share": 0.99, "gap_max_ns": 600 * MS}, "longest gap 600 ms"),
    ],
)
def test_the_advice_on_lateness_follows_its_cause(more, advice):
    found = judge(run(quantiles(1_500, 3_000, 5_000), quantiles(1_600, 3_100, 5_200), **more))
    assert advice in next(r for r in found.reasons if r.code == "LATE").advice


def test_lateness_is_compared_with_what_the_target_took():
    """As a share of a response that is mostly its own it would be nothing."""
    late, felt = quantiles(310_000, 500_000, 600_000), quantiles(4_200_000, 6_300_000, 7_000_000)
    assert judge(run(late, felt, response_net=quantiles(5, 600, 620))).verdict == "INVALID"
    assert judge(run(late, felt, response_net=quantiles(3_890_000, 5_800_000, 6_400_000))).verdict == "VALID"


def test_a_run_short_of_values_has_no_tail():
    felt, net = quantiles(60, 90, 90_000, count=50), quantiles(60, 90, 95, count=50)
    assert judge(run(quantiles(1, 2, 3, count=50), felt, response_net=net)).verdict == "VALID"


@pytest.mark.parametrize(("throttled_ns", "share"), [(0, 0.0), (500, 0.5), (1_700, 1.0), (-5, 0.0)])
def test_a_share_of_the_time_is_at_most_all_of_it(throttled_ns, share):
    """The counter is a sum over cores."""
    before, after = HostLoad(at_ns=0, throttled_ns=0), HostLoad(at_ns=1_000, throttled_ns=throttled_ns)
    assert throttled_share(before, after) == share


def test_the_worst_reason_decides_and_stands_first():
    found = judge(run(NOISE, NOISE, underruns=20, lanes_lost=1))
    assert found.verdict == "INVALID"
    assert [r.verdict for r in found.reasons] == ["INVALID", "SUSPECT"]


def test_every_threshold_can_be_set_and_a_wrong_name_is_refused():
    limits = msgspec.convert({"underrun_share_suspect": 0.5}, ValidityLimits)
    assert judge(run(NOISE, NOISE, underruns=20), limits).verdict == "VALID"
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"underun": 1}, ValidityLimits)
