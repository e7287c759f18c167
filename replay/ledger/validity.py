"""Was it the generator that was slow? The verdict on a run's own figures, and what to do about it.

Only the generator's own failings are judged: requests taken up, dialled or read late, requests unsent because of that,
feed underruns, its own errors, CPU time it was kept from. A slow or stalled target and a cap on connections make wait and
service grow, never these.

A delay is compared with what the target took: the response without the generator's own part (`response_net`). The
response itself will not do, because a starved generator inflates it. Half a millisecond spoils a run against a cache and
is nothing to one against a database. Below a floor it is the machine's own noise (what any sleeping thread sees).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import msgspec

from replay.units import counted, format_latency

from .host import RunDelay

Verdict = Literal["VALID", "SUSPECT", "INVALID"]
VALID: Verdict = "VALID"
_WORSE: dict[Verdict, int] = {"VALID": 0, "SUSPECT": 1, "INVALID": 2}


class ValidityLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every threshold. Shares are of 1, those of `lateness` and `own` delays of the latency without them; up to a
    `_floor_ns` a delay is never a fault.
    """

    lateness_p50_share_suspect: float = 0.10
    lateness_p50_share_invalid: float = 0.25
    lateness_p50_floor_suspect_ns: int = 100_000
    lateness_p50_floor_invalid_ns: int = 250_000
    lateness_p90_share_suspect: float = 0.25
    lateness_p90_share_invalid: float = 0.50
    lateness_p90_floor_suspect_ns: int = 500_000
    lateness_p90_floor_invalid_ns: int = 1_000_000
    lateness_p99_share_suspect: float = 0.50
    lateness_p99_floor_suspect_ns: int = 5_000_000
    own_p50_share_suspect: float = 0.20
    own_p50_share_invalid: float = 0.50
    own_p50_floor_suspect_ns: int = 1_000_000
    own_p50_floor_invalid_ns: int = 2_000_000
    own_p90_share_suspect: float = 0.25
    own_p90_share_invalid: float = 1.00
    own_p90_floor_suspect_ns: int = 2_000_000
    own_p90_floor_invalid_ns: int = 5_000_000
    own_p99_share_suspect: float = 0.20
    own_p99_floor_suspect_ns: int = 5_000_000
    unread_p99_floor_suspect_ns: int = 1_500_000
    unsent_own_share_suspect: float = 0.001
    unsent_own_share_invalid: float = 0.05
    lost_share_named: float = 0.01
    generator_share_suspect: float = 0.0001
    generator_share_invalid: float = 0.01
    underrun_share_suspect: float = 0.001
    underrun_share_invalid: float = 0.05
    throttled_share_suspect: float = 0.01
    throttled_share_invalid: float = 0.10
    steal_share_suspect: float = 0.20
    run_delay_share_suspect: float = 0.40
    run_delay_share_invalid: float = 0.60
    run_delay_mean_floor_ns: int = 30_000
    run_delay_felt_share_suspect: float = 0.10
    run_delay_felt_share_invalid: float = 0.50
    busy_share_full: float = 0.95


class Quantiles(msgspec.Struct, frozen=True, kw_only=True):
    """Three quantiles of a latency, ns, and of how many values."""

    count: int
    p50_ns: int
    p90_ns: int
    p99_ns: int


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """All that the verdict reads. Shares are None where they are unknown; a closed loop has no lateness. The `_net`
    latencies are without the generator's own part, `response_arrived` is without the time that a response lay unread; None
    where the engine does not count it.
    """

    planned: int
    sent: int
    response: Quantiles | None = None
    service: Quantiles | None = None
    lateness: Quantiles | None = None
    response_net: Quantiles | None = None
    service_net: Quantiles | None = None
    response_arrived: Quantiles | None = None
    unsent_own: int = 0
    lost_share: float = 0.0
    gap_max_ns: int = 0
    generator_errors: int = 0
    underruns: int = 0
    throttled_share: float | None = None
    steal_share: float | None = None
    run_delay: RunDelay | None = None
    busy_share: float = 0.0
    lanes_lost: int = 0
    imbalance: str = ""


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """One finding against the run, and what to do."""

    code: str
    verdict: Verdict
    message: str
    advice: str


class Validity(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict, which is the worst of its reasons'."""

    verdict: Verdict = "VALID"
    reasons: list[Reason] = []


_DEFAULT = ValidityLimits()


def judge(figures: Figures, limits: ValidityLimits = _DEFAULT) -> Validity:
    """The verdict on a run."""
    found = [
        *_whole(figures),
        *_delayed(figures, limits),
        *_unread(figures, limits),
        *_not_sent(figures, limits),
        *_own_errors(figures, limits),
        *_underruns(figures, limits),
        *_kept_from_running(figures, limits),
        *_kept_waiting(figures, limits),
    ]
    worst = max((reason.verdict for reason in found), key=_WORSE.__getitem__, default=VALID)
    return Validity(verdict=worst, reasons=sorted(found, key=lambda r: -_WORSE[r.verdict]))


def worst_of(judged: Sequence[tuple[str, Validity]]) -> Validity:
    """The verdict on a run of several targets: what was found of one alone says whose it is."""
    if len(judged) == 1:
        return judged[0][1]
    common = [reason for reason in judged[0][1].reasons if all(reason in v.reasons for _, v in judged)]
    own = [
        msgspec.structs.replace(reason, message=f"{target}: {reason.message}")
        for target, validity in judged
        for reason in validity.reasons
        if reason not in common
    ]
    reasons = sorted([*common, *own], key=lambda r: -_WORSE[r.verdict])
    return Validity(verdict=reasons[0].verdict if reasons else VALID, reasons=reasons)


def _whole(figures: Figures) -> list[Reason]:
    found = []
    if figures.imbalance:
        found.append(
            Reason(
                code="UNBALANCED",
                verdict="INVALID",
                message=figures.imbalance,
                advice="this is a fault of replay: please report it with the run folder",
            )
        )
    if figures.lanes_lost:
        found.append(
            Reason(
                code="LANE_LOST",
                verdict="INVALID",
                message=f"{counted(figures.lanes_lost, 'lane')} stopped before the end",
                advice="see the message of the engine above; what was measured until then is here",
            )
        )
    if figures.planned == 0:
        found.append(
            Reason(
                code="EMPTY",
                verdict="INVALID",
                message="no request was due",
                advice="look at --dry-run: the window or the methods leave nothing to send",
            )
        )
    return found


class _Step(NamedTuple):
    """A delay at this percentile that is above the floor, and above this share of the latency without it."""

    verdict: Verdict
    name: str
    share: float
    floor_ns: int


def _first_above(steps: Sequence[_Step], own: Quantiles, net: Quantiles) -> _Step | None:
    """The first step that a delay exceeds. The smaller of two numbers of values says whether a percentile means anything."""
    for step in steps:
        own_ns, net_ns = getattr(own, f"{step.name}_ns"), getattr(net, f"{step.name}_ns")
        enough = min(own.count, net.count) >= _ENOUGH[step.name]
        if enough and own_ns > step.floor_ns and own_ns > step.share * net_ns:
            return step
    return None


def _less(felt: Quantiles, own: Quantiles) -> Quantiles:
    """What is left of each percentile."""
    return Quantiles(
        count=min(felt.count, own.count),
        p50_ns=max(felt.p50_ns - own.p50_ns, 0),
        p90_ns=max(felt.p90_ns - own.p90_ns, 0),
        p99_ns=max(felt.p99_ns - own.p99_ns, 0),
    )


def _delayed(figures: Figures, limits: ValidityLimits) -> list[Reason]:
    """The worst finding on requests that were taken up late, or delayed later on, if any: one sentence is enough."""
    late, felt = figures.lateness, figures.response
    if late is None or felt is None or late.count == 0:
        return []
    net = figures.response_net or _less(felt, late)
    own = _less(felt, net)
    found = [
        (_first_above(_lateness_steps(limits), late, net), "LATE", late, "were taken up"),
        (_first_above(_own_steps(limits), own, net), "STARVED", own, "were sent or their responses read"),
    ]
    worst = max(
        ((step, code, delay, what) for step, code, delay, what in found if step is not None),
        key=lambda one: (_WORSE[one[0].verdict], _weight(one[1]) * getattr(one[2], f"{one[0].name}_ns")),
        default=None,
    )
    if worst is None:
        return []
    step, code, delay, what = worst
    own_ns, net_ns = getattr(delay, f"{step.name}_ns"), getattr(net, f"{step.name}_ns")
    return [
        Reason(
            code=code,
            verdict=step.verdict,
            message=f"requests {what} {format_latency(own_ns)} late ({step.name}), "
            f"{_compared(own_ns, net_ns)} the {step.name} of the response without it",
            advice=_why_late(figures, limits),
        )
    ]


def _weight(code: str) -> int:
    """All that is delayed holds the lateness, too: where that is half of it, it is the better word."""
    return 2 if code == "LATE" else 1


def _compared(own_ns: int, net_ns: int) -> str:
    """A delay beside the latency without it: a share, or how many times as long."""
    times = own_ns / max(net_ns, 1)
    return f"{times:.0%} of" if times < _TIMES else f"{times:,.0f} times"


_TIMES = 3


def _lateness_steps(limits: ValidityLimits) -> Sequence[_Step]:
    return (
        _Step("INVALID", "p50", limits.lateness_p50_share_invalid, limits.lateness_p50_floor_invalid_ns),
        _Step("INVALID", "p90", limits.lateness_p90_share_invalid, limits.lateness_p90_floor_invalid_ns),
        _Step("SUSPECT", "p50", limits.lateness_p50_share_suspect, limits.lateness_p50_floor_suspect_ns),
        _Step("SUSPECT", "p90", limits.lateness_p90_share_suspect, limits.lateness_p90_floor_suspect_ns),
        _Step("SUSPECT", "p99", limits.lateness_p99_share_suspect, limits.lateness_p99_floor_suspect_ns),
    )


def _own_steps(limits: ValidityLimits) -> Sequence[_Step]:
    return (
        _Step("INVALID", "p50", limits.own_p50_share_invalid, limits.own_p50_floor_invalid_ns),
        _Step("INVALID", "p90", limits.own_p90_share_invalid, limits.own_p90_floor_invalid_ns),
        _Step("SUSPECT", "p50", limits.own_p50_share_suspect, limits.own_p50_floor_suspect_ns),
        _Step("SUSPECT", "p90", limits.own_p90_share_suspect, limits.own_p90_floor_suspect_ns),
        _Step("SUSPECT", "p99", limits.own_p99_share_suspect, limits.own_p99_floor_suspect_ns),
    )


def _unread(figures: Figures, limits: ValidityLimits) -> list[Reason]:
    """Responses that were there before the generator read them: what looks like the target's time is partly its own.

    What counts is what that made of the response; in a closed loop, which has none, of the service time.
    """
    felt, net = figures.response, figures.response_arrived
    if felt is None:
        felt, net = figures.service, figures.service_net
    if felt is None or net is None:
        return []
    own = _less(felt, net)
    *steps, last = _own_steps(limits)
    step = _first_above([*steps, last._replace(floor_ns=limits.unread_p99_floor_suspect_ns)], own, net)
    if step is None:
        return []
    own_ns, net_ns = getattr(own, f"{step.name}_ns"), getattr(net, f"{step.name}_ns")
    return [
        Reason(
            code="READ_LATE",
            verdict=step.verdict,
            message=f"responses were read up to {format_latency(own_ns)} late ({step.name}), "
            f"{_compared(own_ns, net_ns)} the {step.name} of what was felt without it",
            advice=_why_late(figures, limits),
        )
    ]


def _not_sent(figures: Figures, limits: ValidityLimits) -> list[Reason]:
    share = figures.unsent_own / max(figures.planned, 1)
    return _share(
        "NOT_SENT",
        share,
        limits.unsent_own_share_suspect,
        limits.unsent_own_share_invalid,
        f"{figures.unsent_own:,} requests ({share:.1%} of those due) were not sent because the generator fell behind, "
        "not because of the target",
        _why_late(figures, limits),
    )


_ENOUGH = {"p50": 2, "p90": 10, "p99": 100}
"""Values needed for a quantile to be more than the largest one."""


def _why_late(figures: Figures, limits: ValidityLimits) -> str:
    if figures.underruns > limits.underrun_share_suspect * figures.planned:
        return "requests were not prepared in time: give the machine another core or lower the rate"
    if (figures.throttled_share or 0) > limits.throttled_share_suspect:
        return "the container's CPU quota stopped the generator: raise it"
    if figures.lost_share > limits.lost_share_named:
        return (
            f"the generator lost {figures.lost_share:.0%} of the run (longest gap {format_latency(figures.gap_max_ns)}): "
            "it was stopped, or kept from its core, or had too much to do. Give it a core of its own, raise the CPU limit, "
            "or lower the rate"
        )
    if figures.busy_share >= limits.busy_share_full:
        return "the lanes had no time left: add lanes (-t), lower the rate, or use a faster machine"
    return "something else ran on the generator's cores: stop it, or pin it elsewhere (taskset)"


def _share(
    code: str, share: float, suspect: float, invalid: float, message: str, advice: str
) -> list[Reason]:
    if share <= suspect:
        return []
    verdict: Verdict = "INVALID" if share > invalid else "SUSPECT"
    return [Reason(code=code, verdict=verdict, message=message, advice=advice)]


def _own_errors(figures: Figures, limits: ValidityLimits) -> list[Reason]:
    return _share(
        "GENERATOR_ERRORS",
        figures.generator_errors / max(figures.sent, 1),
        limits.generator_share_suspect,
        limits.generator_share_invalid,
        f"{figures.generator_errors:,} requests failed in the generator itself (descriptors, ports, memory)",
        "raise `ulimit -n`, lower -c or widen net.ipv4.ip_local_port_range; see `replay doctor`",
    )


def _underruns(figures: Figures, limits: ValidityLimits) -> list[Reason]:
    return _share(
        "FEED_UNDERRUN",
        figures.underruns / max(figures.planned, 1),
        limits.underrun_share_suspect,
        limits.underrun_share_invalid,
        f"{figures.underruns:,} requests were prepared after they were due",
        "give the machine another core, lower the rate, or put the trace on a faster disk",
    )


def _kept_from_running(figures: Figures, limits: ValidityLimits) -> list[Reason]:
    throttled, steal = figures.throttled_share or 0.0, figures.steal_share or 0.0
    return [
        *_share(
            "THROTTLED",
            throttled,
            limits.throttled_share_suspect,
            limits.throttled_share_invalid,
            f"the CPU quota stopped the generator for {throttled:.1%} of the run",
            "raise the container's CPU limit",
        ),
        *_share(
            "STEAL",
            steal,
            limits.steal_share_suspect,
            float("inf"),
            f"the hypervisor gave {steal:.1%} of this machine's CPU time to others",
            "run on a machine that is not shared",
        ),
    ]


def _kept_waiting(figures: Figures, limits: ValidityLimits) -> list[Reason]:
    """Others ran on the lanes' cores. Most of it falls between an answer's arrival and its reading, where
    lateness does not see it: a part of what looks like the target's time is the generator's.
    """
    delay = figures.run_delay
    felt = figures.response_net or figures.service_net or figures.response or figures.service
    if delay is None or felt is None or delay.mean_ns <= limits.run_delay_mean_floor_ns:
        return []
    of_felt = delay.mean_ns / max(felt.p50_ns, 1)
    steps: tuple[tuple[Verdict, float, float], ...] = (
        ("INVALID", limits.run_delay_share_invalid, limits.run_delay_felt_share_invalid),
        ("SUSPECT", limits.run_delay_share_suspect, limits.run_delay_felt_share_suspect),
    )
    for verdict, share, felt_share in steps:
        if delay.share > share and of_felt > felt_share:
            return [
                Reason(
                    code="CPU_CONTENDED",
                    verdict=verdict,
                    message=f"a lane waited {format_latency(delay.mean_ns)} for a CPU on average, "
                    f"{of_felt:.0%} of the p50, and {delay.share:.0%} of the time that it had work",
                    advice="stop what else runs on the generator's cores, or pin it elsewhere (taskset)",
                )
            ]
    return []
