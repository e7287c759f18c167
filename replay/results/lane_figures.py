"""Figures that lanes record about themselves: the generator's cost and delays, connections, retries, addresses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from replay.ledger.accounts import AT, lanes_cpu_ns
from replay.ledger.catalog import HISTOGRAMS
from replay.units import SECOND_NS
from replay_native.feed.addresses import REMOVED, UNUSED, AddressCounts, unpack_address
from replay_native.ledger.lane_metrics import LaneMetrics

from .document import AddressFigures, Connections, Delays, Generator, Retries, Started
from .facts import Facts
from .measured import Measured


def generator_figures(
    all_metrics: Sequence[LaneMetrics],
    started: Started,
    facts: Facts,
    by_name: dict[str, int],
    measured: Measured,
) -> Generator:
    """Return the cost of sending: CPU time, delays and memory of the generator."""
    lanes_s = lanes_cpu_ns([metrics.counters for metrics in all_metrics]) / SECOND_NS
    return Generator(
        engine=started.engine,
        lanes=len(all_metrics),
        cpu_s=round(lanes_s + facts.control_cpu_s, 6),
        lanes_cpu_s=round(lanes_s, 6),
        control_cpu_s=round(facts.control_cpu_s, 6),
        busy_share=round(max(map(_busy_share, all_metrics), default=0.0), 4),
        underruns=by_name["underruns"],
        throttled_share=facts.throttled_share,
        steal_share=facts.steal_share,
        run_delay=facts.run_delay,
        delays=_delays(measured, by_name),
        peak_rss_bytes=facts.peak_rss_bytes,
    )


def _delays(measured: Measured, by_name: dict[str, int]) -> Delays:
    """Return the delays of the lanes. Latencies without the delays are null if the engine does not measure delays."""
    found: dict[str, Any] = {name: by_name[name] for name in Delays.__struct_fields__ if name in by_name}
    found |= {row.field: measured.latency(row.name) for row in HISTOGRAMS if row.net}
    return Delays(**found)


def lost_share(all_metrics: Sequence[LaneMetrics]) -> float:
    """Return the largest share of time that a lane lost, from its first due time until its last request ended."""
    shares = [0.0]
    for metrics in all_metrics:
        first_ns, last_ns, lost_ns = (
            int(metrics.counters[AT[name]]) for name in ("first_due_ns", "last_done_ns", "lost_ns")
        )
        if 0 < first_ns < last_ns:
            shares.append(min(lost_ns / (last_ns - first_ns), 1.0))
    return max(shares)


def _busy_share(metrics: LaneMetrics) -> float:
    """Return the share of time in which the lane was busy, from its first due time until its last request ended.

    Spinning until a due time counts as idle.
    """
    first_ns, last_ns, idle_ns = (
        int(metrics.counters[AT[name]]) for name in ("first_due_ns", "last_done_ns", "idle_ns")
    )
    if first_ns <= 0 or last_ns <= first_ns:
        return 0.0
    return min(max(1.0 - idle_ns / (last_ns - first_ns), 0.0), 1.0)


def retry_figures(started: Started, by_name: dict[str, int]) -> Retries | None:
    """Return the figures of retries; None if the scenario allows no retries."""
    if started.scenario.get("retry", {}).get("attempts", 1) == 1:
        return None
    return Retries(
        at_target=by_name["attempts"],
        amplification=round(by_name["attempts"] / max(by_name["sent"], 1), 4),
        retries=by_name["retries"],
        retried=by_name["retried"],
        denied=by_name["retries_denied"],
    )


def connection_figures(by_name: dict[str, int]) -> Connections:
    """Return the figures of the connections of all lanes."""
    same = {name: by_name[name] for name in Connections.__struct_fields__ if name in by_name}
    return Connections(opened=by_name["connects"], failed=by_name["connects_failed"], **same)


def address_figures(all_metrics: Sequence[LaneMetrics]) -> list[AddressFigures]:
    """Return the addresses that lanes connected to, in the order in which they became known.

    Counts are sums over the lanes.
    """
    counts: dict[tuple[str, int], dict[str, int]] = {}
    removed: dict[tuple[str, int], bool] = {}
    for metrics in all_metrics:
        for row in range(int((metrics.address_states != UNUSED).sum())):
            place = unpack_address(metrics.addresses[row].tobytes())
            sums = counts.setdefault(place, dict.fromkeys(AddressCounts._fields, 0))
            for name, count in zip(AddressCounts._fields, metrics.address_counts[row].tolist(), strict=True):
                sums[name] += count
            removed[place] = bool(metrics.address_states[row] == REMOVED)
    return [
        AddressFigures(address=host, port=port, removed=removed[host, port], **sums)
        for (host, port), sums in counts.items()
    ]
