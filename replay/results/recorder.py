"""Writes a run down while it goes: intervals once a second, and the whole of it at the end.

The lanes' counts only grow. Each tick takes what came since the last one, so nothing has to wait for the
recorder, and whatever happens to this process the lanes' files hold the totals (`replay.results.recover`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Sequence

import msgspec
import numpy as np

from replay.errors import OutputError
from replay.ledger import host
from replay.ledger.accounts import AT, UNSENT_REASONS, unsent_of_target
from replay.ledger.histogram import NS_2, NS_3, Histogram
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
from .assemble import Facts, assemble
from .document import (
    Ending,
    KafkaFigures,
    NameFigures,
    Note,
    RunDocument,
    Started,
)
from .folder import AppendFile, RunFolder
from .measured import OTHER, slot_of
from .samples import Lookup
from .timeline import Second

ROUTE_INTERVAL_S = 10.0
ROUTE_INTERVAL_SHARE = 1 / 60
ROUTES_A_TICK = 100
"""Intervals by route last 10 s, longer where there are more than 1,000 routes, and a sixtieth of the run so
far when that is more: 480 in a week, 600 in 55 days.
"""

_EVERY_SECOND = ("response.all", "response.ok", "lateness.all", "wait.all", "service.all")
_EVERY_SECOND_CLOSED = ("service.all",)
_EVERY_SECOND_TLS = ("handshake.full", "handshake.resumed")


_FIGURES = {
    "response_p50_ns": ("response.all", 0),
    "response_p99_ns": ("response.all", 1),
    "response_max_ns": ("response.all", 2),
    "lateness_p50_ns": ("lateness.all", 0),
    "lateness_p99_ns": ("lateness.all", 1),
    "wait_p99_ns": ("wait.all", 1),
    "service_p50_ns": ("service.all", 0),
    "service_p99_ns": ("service.all", 1),
    "end_to_end_p50_ns": ("end_to_end.all", 0),
    "end_to_end_p99_ns": ("end_to_end.all", 1),
    "answer_p50_ns": ("answer.all", 0),
    "answer_p99_ns": ("answer.all", 1),
}
"""Figures of a second: of which histogram, and which of its percentiles 50, 99, 100."""


_HANDSHAKES = ("handshakes_full", "handshakes_resumed", "handshakes_failed")


def _consumed(started: Started) -> tuple[str, ...]:
    """The tags of what a Kafka consumer measures."""
    return tuple(f"{kind}.all" for kind in started.consumed)


class _Totals:
    """Takes the differences of one histogram over all routes, summed over lanes."""

    def __init__(self, all_metrics: Sequence[LaneMetrics], index: int) -> None:
        self._now = [metrics.totals[index] for metrics in all_metrics]
        self._before = [np.zeros_like(counts) for counts in self._now]
        self._delta = np.zeros_like(self._now[0])
        self._scratch = np.zeros_like(self._delta) if len(all_metrics) > 1 else self._delta

    def take(self) -> tuple[np.ndarray, int]:
        """Counts since the last call (valid until the next), and how many values they hold."""
        count = hdr.take_delta(self._now[0], self._before[0], self._delta)
        for now, before in zip(self._now[1:], self._before[1:], strict=True):
            count += hdr.take_delta(now, before, self._scratch)
            hdr.merge(self._delta, self._scratch)
        return self._delta, int(count)


class _Routes:
    """Takes the differences of each route and outcome; the routes come round in turn, so that no tick is
    dear.
    """

    def __init__(
        self,
        all_metrics: Sequence[LaneMetrics],
        names: Sequence[str],
        kind: str,
        rows: Sequence[int],
        *,
        every_time: bool = False,
    ) -> None:
        self._all_metrics, self._names, self._kind = all_metrics, names, kind
        self._of_arena = PER_ROUTE.index(kind)
        self._rows = np.array(rows, np.int64)
        self._before = [
            np.zeros((metrics.arena.shape[0], metrics.arena.shape[2]), np.uint32) for metrics in all_metrics
        ]
        self._counted = [np.zeros_like(metrics.route_counts) for metrics in all_metrics]
        self._least_s = 0.0 if every_time else max(ROUTE_INTERVAL_S, len(names) / ROUTES_A_TICK)
        self._growth = 0.0 if every_time else ROUTE_INTERVAL_SHARE
        self._since_s = np.zeros(len(names))
        self._due_s = self._least_s * (np.arange(len(names)) + 1.0) / len(names)
        self._scratch = np.zeros(NS_2.length, np.uint64)

    def take(self, now_s: float, everything: bool) -> list[tuple[str, float, np.ndarray]]:
        """(tag, since when, counts) of the routes whose turn it is, by outcome, where anything came."""
        taken = []
        turn = self._rows if everything else self._rows[self._due_s[self._rows] <= now_s]
        for at, code in np.argwhere(self._changed(turn)).tolist():
            row = int(turn[at])
            counts = self._take_one(row, code)
            if counts is not None:
                tag = hlog.tag_of(self._kind, self._names[row], OUTCOMES[code])
                taken.append((tag, float(self._since_s[row]), counts))
        self._since_s[turn] = now_s
        self._due_s[turn] = now_s + max(self._least_s, now_s * self._growth)
        return taken

    def _changed(self, turn: np.ndarray) -> np.ndarray:
        """Which outcomes of these rows were counted since they were taken. OTHER's are counted in the rows
        they are of.
        """
        changed = np.zeros((turn.size, len(OUTCOMES)), bool)
        for metrics, counted in zip(self._all_metrics, self._counted, strict=True):
            now = metrics.route_counts[turn]
            changed |= now != counted[turn]
            counted[turn] = now
        changed[turn == len(self._names) - 1] = True
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
    """Reads the lanes' memory and writes the run folder. Only the control plane's thread calls it."""

    def __init__(self, folder: RunFolder, all_metrics: Sequence[LaneMetrics], started: Started) -> None:
        """Write `started.json` and the heads of the files. OutputError where there is no room, UsageError for
        an SLO.
        """
        self._folder, self._all_metrics, self._started = folder, list(all_metrics), started
        objectives = [slo.parse(text) for text in started.slo]
        rows = [slo.rows_of(objective, started.routes) for objective in objectives]
        asked = [pair for pair in zip(objectives, rows, strict=True) if pair[0].window_ns]
        folder.write(folder.started, msgspec.json.encode(started))
        self._alive = os.open(folder.started, os.O_RDONLY | os.O_CLOEXEC)
        fcntl.flock(self._alive, fcntl.LOCK_EX)
        names = _EVERY_SECOND_CLOSED if started.closed_loop else _EVERY_SECOND
        more = [f"{objective.metric}.all" for objective, _ in asked if not objective.route]
        if started.closed_loop:
            more = [name for name in more if name == "first_byte.all"]
        secured = _EVERY_SECOND_TLS if any(target.tls is not None for target in started.targets) else ()
        self._totals = {
            name: _Totals(self._all_metrics, TOTALS.index(name))
            for name in dict.fromkeys([*names, *secured, *_consumed(started), *more])
        }
        self._routes = self._routes_of(asked)
        self._before = np.zeros(len(COUNTERS), np.int64)
        self._outcomes_before: np.ndarray = np.zeros(N_OUTCOMES, np.int64)
        self._statuses_before = [0, 0]
        self._last_s = 0.0
        self._load, self._threads = host.load(), host.threads()
        self._latency = AppendFile(folder.latency)
        self._latency.append(hlog.header(started.start.wall_ns))
        self._timeline = AppendFile(folder.timeline)

    def _routes_of(self, asked: Sequence[tuple[slo.Slo, list[int]]]) -> list[_Routes]:
        """Every route by its turn, but those that objectives ask for by window every time."""
        names = [*(route.name for route in self._started.routes), OTHER]
        usual = "service" if self._started.closed_loop else "response"
        every_time: dict[str, set[int]] = {usual: set()}
        for objective, rows in asked:
            kind = usual if objective.percentile is None else objective.metric
            every_time.setdefault(kind, set()).update(rows)
        others = sorted({*range(len(names))} - every_time[usual])
        return [
            _Routes(self._all_metrics, names, usual, others),
            *(
                _Routes(self._all_metrics, names, kind, sorted(of), every_time=True)
                for kind, of in every_time.items()
                if of
            ),
        ]

    def tick(self, now_ns: int, *, last: bool = False, lag: dict[str, int] | None = None) -> Second:
        """Write what came since the last tick, and a consumer's lag. OutputError where there is no room; the files stay
        whole.
        """
        now_s = max((now_ns - self._started.start.monotonic_ns) / SECOND_NS, self._last_s + 0.001)
        since_s, length_s = self._last_s, now_s - self._last_s
        self._last_s = now_s
        figures: dict[str, list[int] | None] = {}
        lines = []
        for name, totals in self._totals.items():
            counts, count = totals.take()
            histogram = Histogram(counts, NS_3)
            figures[name] = values_at(counts, NS_3.half, count, (50.0, 99.0, 100.0)) if count else None
            lines.append(hlog.line(name, since_s, length_s, histogram))
        for routes in self._routes:
            for tag, from_s, counts in routes.take(now_s, last):
                lines.append(hlog.line(tag, from_s, now_s - from_s, Histogram(counts, NS_2)))
        second = self._second(since_s, length_s, figures, lag or {})
        self._latency.append(b"".join(lines))
        self._timeline.append(msgspec.json.encode(second) + b"\n")
        return second

    def _second(
        self, since_s: float, length_s: float, figures: dict[str, list[int] | None], lag: dict[str, int]
    ) -> Second:
        now = np.sum([metrics.counters for metrics in self._all_metrics], axis=0)
        came = now - self._before
        self._before = now
        outcomes = {name: n for name in OUTCOMES if (n := int(came[AT[f"outcome_{name}"]]))}
        percentiles = {
            name: values[position]
            for name, (of, position) in _FIGURES.items()
            if (values := figures.get(of)) is not None
        }
        return Second(
            t_s=round(since_s, 3),
            length_s=round(length_s, 3),
            wall_ns=self._started.start.wall_ns + round(since_s * SECOND_NS),
            unsent=int(sum(came[AT[f"unsent_{reason}"]] for reason in UNSENT_REASONS)),
            unsent_of_target=unsent_of_target(came),
            **{name: int(came[AT[name]]) for name in ("planned", "sent", "ok", "error", "timeout")},
            **{name: int(now[AT[name]]) for name in ("in_flight", "waiting", "open")},
            **{name: int(came[AT[name]]) for name in ("bytes_sent", "bytes_received")},
            **{name: int(came[AT[name]]) for name in _HANDSHAKES},
            **percentiles,
            outcomes=outcomes,
            outcomes_measured=None if (measured := self._outcomes_measured()) == outcomes else measured,
            **dict(zip(("status_worse", "unknown_4xx"), self._statuses(), strict=True)),
            lag=lag,
        )

    def _outcomes_measured(self) -> dict[str, int]:
        """Outcomes since the last tick, without the warm-up's: those that routes are counted by."""
        now = np.array([metrics.route_counts.sum(axis=0) for metrics in self._all_metrics], np.int64).sum(
            axis=0
        )
        came = now - self._outcomes_before
        self._outcomes_before = now
        return {name: int(n) for name, n in zip(OUTCOMES, came, strict=True) if n}

    def _statuses(self) -> list[int]:
        """Responses since the last tick that are worse than recorded, and 4xx where that is not known."""
        now = [
            sum(int(metrics.status_counts[:, column].sum()) for metrics in self._all_metrics)
            for column in (S.worse, S.unknown_4xx)
        ]
        came = [count - before for count, before in zip(now, self._statuses_before, strict=True)]
        self._statuses_before = now
        return came

    def finish(
        self,
        now_ns: int,
        *,
        ending: Ending | None = None,
        control_cpu_s: float = 0.0,
        lookup: Lookup | None = None,
        skipped: dict[str, int] | None = None,
        lanes_lost: int = 0,
        kafka: Sequence[KafkaFigures | None] = (),
        notes: Sequence[Note] = (),
        names: Sequence[NameFigures] = (),
    ) -> RunDocument:
        """Write the rest of the folder and remove the lanes' memory, once everything is safely on the disk.

        `lookup(seqs)` finds the recorded rows of sampled requests; `kafka` is by target. OutputError where there is no
        room: the lanes' memory stays, and `replay.results.recover` can still make the folder whole. A run whose ending is
        "failed" is saved even where its logs cannot be written any more.
        """
        try:
            self.tick(now_ns, last=True)
            self._close_logs()
        except OutputError:
            if ending is None or ending.how != "failed":
                raise
            # The logs end where they could be written; the totals do not depend on them.
        after = host.load()
        facts = Facts(
            ending=ending or Ending(at_s=self._last_s),
            ended_ns=now_ns,
            control_cpu_s=control_cpu_s,
            skipped=self._started.skipped if skipped is None else skipped,
            lanes_lost=lanes_lost,
            throttled_share=host.throttled_share(self._load, after),
            steal_share=host.steal_share(self._load, after),
            run_delay=self._run_delay(),
            peak_rss_bytes=host.peak_rss_bytes(),
            kafka=list(kafka),
            notes=list(notes),
            names=list(names),
        )
        document = assemble(self._folder, self._all_metrics, self._started, facts, lookup)
        self._release()
        return document

    def _run_delay(self) -> host.RunDelay | None:
        """Of the lanes: this thread where the engine is portable, others where it is native."""
        portable, own = self._started.engine == "portable", threading.get_native_id()
        now = {thread: load for thread, load in host.threads().items() if (thread == own) == portable}
        return host.run_delay(self._threads, now, len(self._all_metrics))

    def close(self) -> None:
        """Close the files of a run that `finish` was not called for, or failed. What was written stays, and can be
        recovered.
        """
        with contextlib.suppress(OutputError):
            self._close_logs()
        self._release()

    def _close_logs(self) -> None:
        try:
            self._latency.close()
        finally:
            self._timeline.close()

    def _release(self) -> None:
        """Let the lock on started.json go: from here on the folder may be recovered."""
        if self._alive >= 0:
            os.close(self._alive)
            self._alive = -1
