"""Findings about delays of the generator: requests taken up, sent or read late, and requests not sent because of that.

A delay is compared with the latency without it (`response_net`), because a delay of the generator increases the
response time itself. Half a millisecond spoils a run against a cache and does not matter against a database. A delay
below its floor is noise of the machine, which any sleeping thread sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from replay.units import format_latency

from .limits import Figures, Quantiles, ValidityLimits
from .verdicts import WORSE, Reason, Verdict, above_share

_ENOUGH = {"p50": 2, "p90": 10, "p99": 100}
"""How many values a histogram needs for each percentile, so that it is not simply the largest value."""

_TIMES = 3
"""From this ratio on, a delay is described as a multiple of the latency."""


def delayed(figures: Figures, limits: ValidityLimits) -> list[Reason]:
    """Return the worst finding about requests that were taken up, sent or read late; none if there is no fault."""
    late, latency = figures.lateness, figures.response
    if late is None or latency is None or late.count == 0:
        return []
    net = figures.response_net or _difference(latency, late)
    own = _difference(latency, net)
    found = [
        (step, code, delay, what)
        for code, delay, steps, what in (
            ("LATE", late, _lateness_steps(limits), "were taken up"),
            ("STARVED", own, _own_steps(limits), "were sent or their responses read"),
        )
        if (step := _first_above(steps, delay, net)) is not None
    ]
    if not found:
        return []
    step, code, delay, what = max(
        found, key=lambda one: (WORSE[one[0].verdict], _weight(one[1]) * getattr(one[2], f"{one[0].name}_ns"))
    )
    own_ns, net_ns = getattr(delay, f"{step.name}_ns"), getattr(net, f"{step.name}_ns")
    return [
        Reason(
            code=code,
            verdict=step.verdict,
            message=f"requests {what} {format_latency(own_ns)} late ({step.name}), "
            f"{_compared(own_ns, net_ns)} the {step.name} response time without that delay",
            advice=_why_late(figures, limits),
        )
    ]


def unread(figures: Figures, limits: ValidityLimits) -> list[Reason]:
    """Return a finding if responses had arrived well before the generator read them.

    The target then appears slower than it is. What counts is the effect on the response time; in a closed loop, which
    has no response time, the effect on the service time.
    """
    latency, net = figures.response, figures.response_arrived
    if latency is None:
        latency, net = figures.service, figures.service_net
    if latency is None or net is None:
        return []
    own = _difference(latency, net)
    *steps, last = _own_steps(limits)
    step = _first_above([*steps, last._replace(floor_ns=limits.unread_p99_floor_suspect_ns)], own, net)
    if step is None:
        return []
    own_ns, net_ns = getattr(own, f"{step.name}_ns"), getattr(net, f"{step.name}_ns")
    return [
        Reason(
            code="READ_LATE",
            verdict=step.verdict,
            message=f"responses were read {format_latency(own_ns)} late ({step.name}), "
            f"{_compared(own_ns, net_ns)} the {step.name} latency without that delay",
            advice=_why_late(figures, limits),
        )
    ]


def not_sent(figures: Figures, limits: ValidityLimits) -> list[Reason]:
    """Return a finding if too many requests were not sent because of the generator."""
    share = figures.unsent_own / max(figures.planned, 1)
    return above_share(
        "NOT_SENT",
        share,
        limits.unsent_own_share_suspect,
        limits.unsent_own_share_invalid,
        f"{figures.unsent_own:,} requests ({share:.1%} of those due) were not sent because the generator fell behind, "
        "not because of the target",
        _why_late(figures, limits),
    )


class _Step(NamedTuple):
    """A limit for one percentile of a delay.

    It is exceeded if the delay is above the floor, and above this share of the latency without the delay.
    """

    verdict: Verdict
    name: str
    share: float
    floor_ns: int


def _first_above(steps: Sequence[_Step], own: Quantiles, net: Quantiles) -> _Step | None:
    """Return the first step that a delay exceeds; None if there is none.

    A step is skipped if either latency has too few values for its percentile.
    """
    for step in steps:
        own_ns, net_ns = getattr(own, f"{step.name}_ns"), getattr(net, f"{step.name}_ns")
        enough = min(own.count, net.count) >= _ENOUGH[step.name]
        if enough and own_ns > step.floor_ns and own_ns > step.share * net_ns:
            return step
    return None


def _lateness_steps(limits: ValidityLimits) -> Sequence[_Step]:
    """Return the limits for lateness, the worst first."""
    return (
        _Step("INVALID", "p50", limits.lateness_p50_share_invalid, limits.lateness_p50_floor_invalid_ns),
        _Step("INVALID", "p90", limits.lateness_p90_share_invalid, limits.lateness_p90_floor_invalid_ns),
        _Step("SUSPECT", "p50", limits.lateness_p50_share_suspect, limits.lateness_p50_floor_suspect_ns),
        _Step("SUSPECT", "p90", limits.lateness_p90_share_suspect, limits.lateness_p90_floor_suspect_ns),
        _Step("SUSPECT", "p99", limits.lateness_p99_share_suspect, limits.lateness_p99_floor_suspect_ns),
    )


def _own_steps(limits: ValidityLimits) -> Sequence[_Step]:
    """Return the limits for the sum of the generator's delays, the worst first."""
    return (
        _Step("INVALID", "p50", limits.own_p50_share_invalid, limits.own_p50_floor_invalid_ns),
        _Step("INVALID", "p90", limits.own_p90_share_invalid, limits.own_p90_floor_invalid_ns),
        _Step("SUSPECT", "p50", limits.own_p50_share_suspect, limits.own_p50_floor_suspect_ns),
        _Step("SUSPECT", "p90", limits.own_p90_share_suspect, limits.own_p90_floor_suspect_ns),
        _Step("SUSPECT", "p99", limits.own_p99_share_suspect, limits.own_p99_floor_suspect_ns),
    )


def _difference(latency: Quantiles, own: Quantiles) -> Quantiles:
    """Return the difference of two latencies at each percentile, at least 0."""
    return Quantiles(
        count=min(latency.count, own.count),
        p50_ns=max(latency.p50_ns - own.p50_ns, 0),
        p90_ns=max(latency.p90_ns - own.p90_ns, 0),
        p99_ns=max(latency.p99_ns - own.p99_ns, 0),
    )


def _weight(code: str) -> int:
    """Return the factor by which a finding is preferred to others.

    All delays include lateness. If lateness makes up at least half of them, LATE is the better explanation.
    """
    return 2 if code == "LATE" else 1


def _compared(own_ns: int, net_ns: int) -> str:
    """Compare a delay with the latency without it: as a share, or how many times as long."""
    times = own_ns / max(net_ns, 1)
    return f"{times:.0%} of" if times < _TIMES else f"{times:,.0f} times"


def _why_late(figures: Figures, limits: ValidityLimits) -> str:
    """Return advice on delays, by their most likely cause."""
    if figures.underruns > limits.underrun_share_suspect * figures.planned:
        return "requests were not prepared in time: give the machine another core or lower the rate"
    if (figures.throttled_share or 0) > limits.throttled_share_suspect:
        return "the container's CPU quota stopped the generator: raise it"
    if figures.lost_share > limits.lost_share_named:
        return (
            f"the generator lost {figures.lost_share:.0%} of the run (longest gap {format_latency(figures.gap_max_ns)}): "
            "it was stopped, did not get a CPU, or had too much to do. Give it a core of its own, raise the CPU limit, "
            "or lower the rate"
        )
    if figures.busy_share >= limits.busy_share_full:
        return "the lanes had no time left: add lanes (-t), lower the rate, or use a faster machine"
    return "something else probably ran on the generator's cores: stop it, or pin it elsewhere (taskset)"
