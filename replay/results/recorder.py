"""Computes the figures of each second of a run from the lanes' counters and histograms. Sinks write them.

The lanes' counts only grow, except for levels such as the requests in flight. Each tick computes the growth since the
last one, so the lanes never wait for the recorder. If this process is killed, the lanes' files still hold the totals
(`replay.results.recover`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from replay.ledger.accounts import AT, unsent, unsent_of_target
from replay.ledger.catalog import EACH_SECOND_COUNTERS, FIGURES, PERCENTILES, each_second
from replay.ledger.histogram import NS_2, NS_3
from replay.ledger.percentiles import values_at
from replay.units import SECOND_NS
from replay_native.ledger import hdr
from replay_native.ledger.lane_metrics import (
    COUNTERS,
    N_OUTCOMES,
    OUTCOMES,
    PER_ROUTE,
    TOTALS,
    LaneMetrics,
)
from replay_native.ledger.statuses import S

from . import hlog, slo
from .action_counts import ActionCounts
from .deltas import SUMMED, Deltas, HistogramDelta
from .document import RouteStart, Started
from .measured import OTHER, counts_by_route, slot_of
from .timeline import Second

ROUTE_INTERVAL_S = 10.0
ROUTE_INTERVAL_SHARE = 1 / 60
ROUTES_EACH_SECOND = 24
ROUTES_A_TICK = 100
"""Minimum lengths of an interval by route: one tick for up to 24 routes, because a diagnosis compares routes per second,
10 s for 240 routes, and more than that above 1,000. OTHER counts as a route. In a long run an interval is at least a
sixtieth of the run so far: with 10 s, a week has about 480 intervals, and 55 days have about 600."""


def _interval_s(routes: int) -> float:
    """Return the minimum length of an interval by route. 0 means that each tick ends an interval."""
    if routes <= ROUTES_EACH_SECOND:
        return 0.0
    return max(min(ROUTE_INTERVAL_S, routes / ROUTES_EACH_SECOND), routes / ROUTES_A_TICK)


class _Totals:
    """Computes the deltas of one histogram over all routes, summed over lanes."""

    def __init__(self, all_metrics: Sequence[LaneMetrics], index: int) -> None:
        self._now = [metrics.totals[index] for metrics in all_metrics]
        self._before = [np.zeros_like(counts) for counts in self._now]
        self._delta = np.zeros_like(self._now[0])
        self._scratch = np.zeros_like(self._delta) if len(all_metrics) > 1 else self._delta

    def take(self) -> tuple[np.ndarray, int]:
        """Return the counts since the last call (valid until the next one), and their sum."""
        count = hdr.take_delta(self._now[0], self._before[0], self._delta)
        for now, before in zip(self._now[1:], self._before[1:], strict=True):
            count += hdr.take_delta(now, before, self._scratch)
            hdr.merge(self._delta, self._scratch)
        return self._delta, int(count)


class _Routes:
    """Computes the deltas of each route and outcome.

    Unless `every_time` is set, routes take turns, so that no tick is expensive.
    """

    def __init__(
        self,
        all_metrics: Sequence[LaneMetrics],
        routes: Sequence[RouteStart],
        kind: str,
        rows: Sequence[int],
        *,
        every_time: bool = False,
    ) -> None:
        self._all_metrics, self._routes, self._kind = all_metrics, routes, kind
        rows_all = len(routes) + 1
        self._of_arena = PER_ROUTE.index(kind)
        self._rows = np.array(rows, np.int64)
        self._before = [
            np.zeros((metrics.arena.shape[0], metrics.arena.shape[2]), np.uint32) for metrics in all_metrics
        ]
        self._counted = [np.zeros_like(metrics.route_counts) for metrics in all_metrics]
        self._least_s = 0.0 if every_time else _interval_s(rows_all)
        self._growth = 0.0 if every_time else ROUTE_INTERVAL_SHARE
        self._since_s = np.zeros(rows_all)
        self._due_s = self._least_s * (np.arange(rows_all) + 1.0) / rows_all
        self._scratch = np.zeros(NS_2.length, np.uint64)

    def take(self, now_s: float, everything: bool) -> list[tuple[str, float, np.ndarray]]:
        """Return (tag, start in s, counts) of each outcome with new counts, for the routes whose turn it is.

        With `everything`, return those of all routes.
        """
        taken = []
        turn = self._rows if everything else self._rows[self._due_s[self._rows] <= now_s]
        for at, code in np.argwhere(self._changed(turn)).tolist():
            row = int(turn[at])
            counts = self._take_one(row, code)
            if counts is not None:
                name = self._routes[row].name if row < len(self._routes) else OTHER
                tag = hlog.tag_of(self._kind, name, OUTCOMES[code])
                taken.append((tag, float(self._since_s[row]), counts))
        self._since_s[turn] = now_s
        self._due_s[turn] = now_s + max(self._least_s, now_s * self._growth)
        return taken

    def _changed(self, turn: np.ndarray) -> np.ndarray:
        """Return which outcomes of these rows may have new counts since the last call: bool[rows, outcomes].

        The row of OTHER always counts as changed, because the lanes count requests that are merged into it under
        their own rows.
        """
        changed = np.zeros((turn.size, len(OUTCOMES)), bool)
        for metrics, counted in zip(self._all_metrics, self._counted, strict=True):
            now = metrics.route_counts[turn]
            changed |= now != counted[turn]
            counted[turn] = now
        changed[turn == len(self._routes)] = True
        return changed

    def _take_one(self, row: int, code: int) -> np.ndarray | None:
        merged: np.ndarray | None = None
        for lane, metrics in enumerate(self._all_metrics):
            slot = slot_of(metrics, row, code)
            if slot < 0:
                continue
            delta = self._scratch
            if hdr.take_delta_u32(metrics.arena[slot, self._of_arena], self._before[lane][slot], delta):
                merged = delta.copy() if merged is None else merged + delta
        return merged


class Recorder:
    """Reads the lanes' memory once per second.

    Only the control plane's thread may call it.
    """

    def __init__(
        self, all_metrics: Sequence[LaneMetrics], started: Started, *, every_total: bool = False
    ) -> None:
        """Prepare to record the run described by `started`. Raise UsageError for an invalid objective.

        With `every_total`, each histogram over all routes is computed every second, not only those that the run
        folder keeps.
        """
        self._all_metrics, self._started = list(all_metrics), started
        objectives = [slo.parse(text) for text in started.slo]
        rows = [slo.rows_of(objective, started.routes) for objective in objectives]
        asked = [pair for pair in zip(objectives, rows, strict=True) if pair[0].window_ns]
        self.logged = frozenset(
            each_second(
                closed_loop=started.closed_loop,
                tls=any(target.tls is not None for target in started.targets),
                consumed=started.consumed,
                asked=[objective.metric for objective, _ in asked if not objective.route],
            )
        )
        """Tags over all routes that the run folder keeps by interval."""
        self._totals = {
            name: _Totals(self._all_metrics, index)
            for index, name in enumerate(TOTALS)
            if name in self.logged or every_total
        }
        self._routes = self._routes_of(asked)
        self._before = np.zeros(len(COUNTERS), np.int64)
        self._by_route_before = np.zeros_like(counts_by_route(self._all_metrics))
        self._outcomes_before: np.ndarray = np.zeros(N_OUTCOMES, np.int64)
        self._statuses_before = [0, 0]
        self._actions = ActionCounts(self._all_metrics, started.routes)
        self.last_s = 0.0

    def _routes_of(self, asked: Sequence[tuple[slo.Slo, list[int]]]) -> list[_Routes]:
        """Return the readers of routes: one for the routes that take turns, and others for those read at every tick.

        Routes of objectives by window are read at every tick.
        """
        names = [route.name for route in self._started.routes]
        usual = "service" if self._started.closed_loop else "response"
        every_time: dict[str, set[int]] = {usual: set()}
        for objective, rows in asked:
            kind = usual if objective.percentile is None else objective.metric
            every_time.setdefault(kind, set()).update(rows)
        others = sorted({*range(len(names) + 1)} - every_time[usual])
        return [
            _Routes(self._all_metrics, self._started.routes, usual, others),
            *(
                _Routes(self._all_metrics, self._started.routes, kind, sorted(of), every_time=True)
                for kind, of in every_time.items()
                if of
            ),
        ]

    def tick(
        self,
        now_ns: int,
        *,
        last: bool = False,
        lag: dict[str, int] | None = None,
        watched: dict[str, float | None] | None = None,
    ) -> tuple[Second, Deltas]:
        """Return the figures since the last tick, with consumer lag and watched figures.

        The last tick covers every route.
        """
        now_s = max((now_ns - self._started.start.monotonic_ns) / SECOND_NS, self.last_s + 0.001)
        since_s, length_s = self.last_s, now_s - self.last_s
        self.last_s = now_s
        figures: dict[str, list[int] | None] = {}
        histograms = []
        for name, totals in self._totals.items():
            counts, count = totals.take()
            figures[name] = values_at(counts, NS_3.half, count, list(PERCENTILES.values())) if count else None
            histograms.append(HistogramDelta.of(name, since_s, length_s, counts, NS_3))
        for routes in self._routes:
            for tag, from_s, counts in routes.take(now_s, last):
                histograms.append(HistogramDelta.of(tag, from_s, now_s - from_s, counts, NS_2))
        now = np.sum([metrics.counters for metrics in self._all_metrics], axis=0)
        came = now - self._before
        self._before = now
        deltas = Deltas(
            counters={name: int(came[AT[name]]) for name in SUMMED},
            totals={name: int(now[AT[name]]) for name in SUMMED},
            routes=self._by_route(),
            histograms=tuple(histograms),
        )
        return self._second(since_s, length_s, figures, (now, came), lag or {}, watched or {}), deltas

    def _by_route(self) -> dict[str, dict[str, int]]:
        """Return the requests since the last tick by route and outcome, without the warm-up."""
        now = counts_by_route(self._all_metrics)
        came = now - self._by_route_before
        self._by_route_before = now
        names = [*(route.name for route in self._started.routes), OTHER]
        found: dict[str, dict[str, int]] = {}
        for row, code in np.argwhere(came).tolist():
            found.setdefault(names[row], {})[OUTCOMES[code]] = int(came[row, code])
        return found

    def _second(
        self,
        since_s: float,
        length_s: float,
        figures: dict[str, list[int] | None],
        counted: tuple[np.ndarray, np.ndarray],
        lag: dict[str, int],
        watched: dict[str, float | None],
    ) -> Second:
        now, came = counted
        outcomes = {name: n for name in OUTCOMES if (n := int(came[AT[f"outcome_{name}"]]))}
        percentiles = {
            name: values[position]
            for name, (of, position) in FIGURES.items()
            if (values := figures.get(of)) is not None
        }
        return Second(
            t_s=round(since_s, 3),
            length_s=round(length_s, 3),
            wall_ns=self._started.start.wall_ns + round(since_s * SECOND_NS),
            unsent=unsent(came),
            unsent_of_target=unsent_of_target(came),
            **{name: int(came[AT[name]]) for name in ("planned", "sent", "ok", "error", "timeout")},
            **{name: int(now[AT[name]]) for name in ("in_flight", "waiting", "open")},
            **{name: int(came[AT[name]]) for name in ("bytes_sent", "bytes_received")},
            **{name: int(came[AT[name]]) for name in EACH_SECOND_COUNTERS},
            **percentiles,
            outcomes=outcomes,
            outcomes_measured=None if (measured := self._outcomes_measured()) == outcomes else measured,
            **dict(zip(("status_worse", "unknown_4xx"), self._statuses(), strict=True)),
            lag=lag,
            watched=watched,
            actions=self._actions.take(),
        )

    def _outcomes_measured(self) -> dict[str, int]:
        """Return the outcomes since the last tick, summed over the routes, which do not count the warm-up."""
        now = np.array([metrics.route_counts.sum(axis=0) for metrics in self._all_metrics], np.int64).sum(
            axis=0
        )
        came = now - self._outcomes_before
        self._outcomes_before = now
        return {name: int(n) for name, n in zip(OUTCOMES, came, strict=True) if n}

    def _statuses(self) -> list[int]:
        """Return two counts of responses since the last tick, without the warm-up.

        The first counts responses with a status worse than recorded, the second those with a 4xx if the recorded
        status is unknown.
        """
        now = [
            sum(int(metrics.status_counts[:, column].sum()) for metrics in self._all_metrics)
            for column in (S.worse, S.unknown_4xx)
        ]
        came = [count - before for count, before in zip(now, self._statuses_before, strict=True)]
        self._statuses_before = now
        return came
