"""The lanes of a lost agent whose folder is missing: the sum of its reports in the form of a lane's memory."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from replay.ledger.accounts import AT
from replay.ledger.catalog import UNSENT_REASONS
from replay.results import hlog
from replay.results.document import Started
from replay.results.measured import OTHER
from replay_native.ledger import lane_metrics
from replay_native.ledger.hdr import COUNTERS_2
from replay_native.ledger.lane_metrics import (
    N_OUTCOMES,
    OUTCOMES,
    PER_ROUTE,
    TOTALS,
    UNSENT,
    C,
    LaneMetrics,
)

from .share import LostAgent

_NOT_OF_TARGET = ("unsent_own", *(reason.counter for reason in UNSENT_REASONS if not reason.of_target))
"""The counters of requests that were unsent for a reason other than the target."""


def lane_of(lost: LostAgent, started: Started, rules: int) -> LaneMetrics:
    """Return one lane with everything that a lost agent reported.

    It has no samples, because they are not reported. Reports may lack the newest values of histograms by route, which
    are not reported every second.
    """
    with tempfile.TemporaryDirectory(prefix="replay-") as area:
        metrics = lane_metrics.create(Path(area) / "0.lane", len(started.routes), _arena_bytes(lost), rules)
    for name, count in lost.counters.items():
        if name in AT:
            metrics.counters[AT[name]] = count
    ended = sum(int(metrics.counters[AT[name]]) for name in ("ok", "error", "timeout"))
    metrics.counters[AT["in_flight"]] = int(metrics.counters[AT["sent"]]) - ended
    rows = {route.name: row for row, route in enumerate(started.routes)} | {OTHER: len(started.routes)}
    for route, outcomes in lost.routes.items():
        for outcome, count in outcomes.items():
            if route in rows and outcome in OUTCOMES:
                metrics.route_counts[rows[route], OUTCOMES.index(outcome)] = count
    if any(lost.counters.get(name, 0) for name in _NOT_OF_TARGET):
        # Reports do not say which routes these requests belong to. So every unsent request of every route counts as the
        # generator's, and none as a failure of the target.
        metrics.route_own[:] = metrics.route_counts[:, UNSENT]
    for tag, (at, counts) in lost.histograms.items():
        _add(metrics, rows, tag, np.array(at, np.int64), np.array(counts, np.uint64))
    return metrics


def _arena_bytes(lost: LostAgent) -> int:
    by_route = {hlog.parts_of(tag)[1:] for tag in lost.histograms if hlog.parts_of(tag)[2]}
    return (len(by_route) + N_OUTCOMES) * len(PER_ROUTE) * COUNTERS_2 * 4


def _add(metrics: LaneMetrics, rows: dict[str, int], tag: str, at: np.ndarray, counts: np.ndarray) -> None:
    """Add the counts of a histogram to the lane."""
    if tag in TOTALS:
        metrics.totals[TOTALS.index(tag)][at] += counts
        return
    kind, outcome, route = hlog.parts_of(tag)
    if route not in rows or kind not in PER_ROUTE or outcome not in OUTCOMES:
        return
    row, code = rows[route], OUTCOMES.index(outcome)
    slot = int(metrics.slots[row, code])
    if slot < 0:
        slot = int(metrics.counters[C.slots_used])
        metrics.slots[row, code] = slot
        metrics.counters[C.slots_used] += 1
    metrics.arena[slot, PER_ROUTE.index(kind)][at] += counts.astype(np.uint32)
