"""Was it the generator that was slow? The verdict on a run's own figures, and what to do about it.

Only the generator's own failings are judged: lateness, feed underruns, its own errors, CPU time it was kept
from. A slow or stalled target and a cap on connections make wait and service grow, never these. Lateness is
weighed against response quantiles: half a millisecond spoils a run against a cache and is nothing to one
against a database. Below a floor it is the machine's own noise (what any sleeping thread sees), whatever the
target answers in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from ..units import counted, format_latency
from .host import RunDelay

Verdict = Literal["VALID", "SUSPECT", "INVALID"]
VALID: Verdict = "VALID"
_WORSE: dict[Verdict, int] = {"VALID": 0, "SUSPECT": 1, "INVALID": 2}


class ValidityLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every threshold. Shares are of 1; a `_floor_ns` is lateness that is never a fault."""

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
    """All that the verdict reads. Shares are None where they are unknown; a closed loop has no lateness."""

    planned: int
    sent: int
    response: Quantiles | None = None
    service: Quantiles | None = None
    lateness: Quantiles | None = None
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
        *_lateness(figures, limits),
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


def _lateness(figures: Figures, limits: ValidityLimits) -> list[Reason]:
    """The worst finding on lateness, if any: one sentence is enough."""
    late, response = figures.lateness, figures.response
    if late is None or response is None or late.count == 0:
        return []
    steps: tuple[tuple[Verdict, str, float, int], ...] = (
        ("INVALID", "p50", limits.lateness_p50_share_invalid, limits.lateness_p50_floor_invalid_ns),
        ("INVALID", "p90", limits.lateness_p90_share_invalid, limits.lateness_p90_floor_invalid_ns),
        ("SUSPECT", "p50", limits.lateness_p50_share_suspect, limits.lateness_p50_floor_suspect_ns),
        ("SUSPECT", "p90", limits.lateness_p90_share_suspect, limits.lateness_p90_floor_suspect_ns),
        ("SUSPECT", "p99", limits.lateness_p99_share_suspect, limits.lateness_p99_floor_suspect_ns),
    )
    for verdict, name, share, floor_ns in steps:
        if late.count < _ENOUGH[name]:
            continue
        own, felt = getattr(late, f"{name}_ns"), getattr(response, f"{name}_ns")
        if own > floor_ns and own > share * felt:
            return [
                Reason(
                    code="LATE",
                    verdict=verdict,
                    message=f"requests were taken up {format_latency(own)} late ({name}), "
                    f"{own / max(felt, 1):.0%} of the response {name}",
                    advice=_why_late(figures, limits),
                )
            ]
    return []


_ENOUGH = {"p50": 2, "p90": 10, "p99": 100}
"""Values needed for a quantile to be more than the largest one."""


def _why_late(figures: Figures, limits: ValidityLimits) -> str:
    if figures.underruns > limits.underrun_share_suspect * figures.planned:
        return "requests were not prepared in time: give the machine another core or lower the rate"
    if (figures.throttled_share or 0) > limits.throttled_share_suspect:
        return "the container's CPU quota stopped the generator: raise it"
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
    delay, felt = figures.run_delay, figures.response or figures.service
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
