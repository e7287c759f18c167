"""Findings about incomplete runs, the generator's own errors and underruns, and CPU time that others took."""

from __future__ import annotations

from replay.units import counted, format_latency

from .limits import Figures, ValidityLimits
from .verdicts import Reason, Verdict, above_share


def incomplete(figures: Figures) -> list[Reason]:
    """Return a finding for each reason why a run measured nothing or lost data.

    The reasons are accounts that do not balance, lost lanes, and that no request was due.
    """
    found = []
    if figures.imbalance:
        found.append(
            Reason(
                code="UNBALANCED",
                verdict="INVALID",
                message=figures.imbalance,
                advice="this is a bug of replay: please report it with the run folder",
            )
        )
    if figures.lanes_lost:
        found.append(
            Reason(
                code="LANE_LOST",
                verdict="INVALID",
                message=f"{counted(figures.lanes_lost, 'lane')} stopped before the end",
                advice="see the engine's message in the output of the run; the results hold what was measured until then",
            )
        )
    if figures.planned == 0:
        found.append(
            Reason(
                code="EMPTY",
                verdict="INVALID",
                message="no request was due",
                advice="check the source, the window and the filters: --dry-run shows how many requests remain",
            )
        )
    return found


def own_errors(figures: Figures, limits: ValidityLimits) -> list[Reason]:
    """Return a finding if too many requests failed in the generator itself."""
    return above_share(
        "GENERATOR_ERRORS",
        figures.generator_errors / max(figures.sent, 1),
        limits.generator_share_suspect,
        limits.generator_share_invalid,
        f"{figures.generator_errors:,} requests failed in the generator itself (descriptors, ports, memory)",
        "raise `ulimit -n`, lower -c or widen net.ipv4.ip_local_port_range; see `replay doctor`",
    )


def underruns(figures: Figures, limits: ValidityLimits) -> list[Reason]:
    """Return a finding if too many requests were prepared after they were due."""
    return above_share(
        "FEED_UNDERRUN",
        figures.underruns / max(figures.planned, 1),
        limits.underrun_share_suspect,
        limits.underrun_share_invalid,
        f"{figures.underruns:,} requests were prepared after they were due",
        "give the machine another core, lower the rate, or put the trace on a faster disk",
    )


def kept_from_running(figures: Figures, limits: ValidityLimits) -> list[Reason]:
    """Return findings about CPU time that the container's quota or the hypervisor took away."""
    throttled, steal = figures.throttled_share or 0.0, figures.steal_share or 0.0
    return [
        *above_share(
            "THROTTLED",
            throttled,
            limits.throttled_share_suspect,
            limits.throttled_share_invalid,
            f"the CPU quota stopped the generator for {throttled:.1%} of the run",
            "raise the container's CPU limit",
        ),
        *above_share(
            "STEAL",
            steal,
            limits.steal_share_suspect,
            float("inf"),
            f"the hypervisor gave {steal:.1%} of this machine's CPU time to others",
            "run on a machine that is not shared",
        ),
    ]


def contended(figures: Figures, limits: ValidityLimits) -> list[Reason]:
    """Return a finding if a lane waited too long for a CPU, usually because other programs ran on its core.

    Most of these waits lie between the arrival of a response and its reading, where lateness does not show them. The
    target then appears slower than it is.
    """
    delay = figures.run_delay
    latency = figures.response_net or figures.service_net or figures.response or figures.service
    if delay is None or latency is None or delay.mean_ns <= limits.run_delay_mean_floor_ns:
        return []
    share_of_latency = delay.mean_ns / max(latency.p50_ns, 1)
    steps: tuple[tuple[Verdict, float, float], ...] = (
        ("INVALID", limits.run_delay_share_invalid, limits.run_delay_felt_share_invalid),
        ("SUSPECT", limits.run_delay_share_suspect, limits.run_delay_felt_share_suspect),
    )
    for verdict, share, latency_share in steps:
        if delay.share > share and share_of_latency > latency_share:
            return [
                Reason(
                    code="CPU_CONTENDED",
                    verdict=verdict,
                    message=f"a lane waited {format_latency(delay.mean_ns)} for a CPU on average"
                    f" ({share_of_latency:.0%} of the p50 latency), for {delay.share:.0%} of the time in which it had work",
                    advice="stop what else runs on the generator's cores, or pin it elsewhere (taskset)",
                )
            ]
    return []
