"""Makes a schedule from a trace and a scenario: what is sent, when each request is due, and the figures of the plan.

One streaming pass counts everything that the plan prints and the limits check. `Schedule.batches` then yields the due
requests again, lazily.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from replay import units
from replay.errors import InputError, UsageError
from replay.ledger.histogram import NS_2, Histogram
from replay.results.document import Recorded
from replay.results.samples import RecordedRow
from replay.settings.kinds import Factor
from replay.settings.scenario import Scenario
from replay.trace import Trace
from replay.trace.actions import with_actions
from replay.trace.manifest import OUT_OF_TIME_ORDER
from replay.units import SECOND_NS
from replay.workload.transform import Transform, transform
from replay_native.ground.jit import warm
from replay_native.ground.linked import make_lists
from replay_native.plan import survey as kernels

from .due import (
    DEFAULT_TOOK_NS,
    FOREVER,
    STATUS_CLASSES,
    Clock,
    DueBatch,
    DueRows,
    RowSource,
    Tally,
    make_clock,
    method_rules,
    span_text,
    time_zone,
)
from .numbers import RowNumbers

__all__ = ["KERNELS", "DueBatch", "Plan", "RoutePlan", "Schedule", "make_schedule", "make_schedules"]


KERNELS = ("plan.survey", "plan.numbers", "ledger.hdr")
"""Kernel modules that a schedule needs."""


class RoutePlan(msgspec.Struct, frozen=True, kw_only=True):
    """The planned figures of a route, and the recorded figures of the same requests.

    `action` is its business action.
    """

    route: str
    rows: int
    recorded: Recorded
    action: str = ""


class ClientsPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Estimated connections if each client has its own, as recorded.

    `at_once` is the largest number of clients that hold a connection at the same time, each until `idle_timeout`
    after its last request. `connects` counts the connections opened in all, `connects_peak_1s` those opened in the
    busiest second.
    """

    at_once: int
    connects: int
    connects_peak_1s: int


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What the run will send.

    Rates are requests per second of replay time. `rows` is None if only the duration bounds a closed loop; the counts
    are then those of one pass. In a closed loop, peaks and mean are None, and `length_ns` is the duration, or None
    without one. `recorded_from_ns` and `recorded_until_ns` are the recorded times, since the epoch, at which the
    replayed part begins and ends. `by_route` is in the order of the trace's routes. `lines` counts the lines of the
    recording that should hold a request, and `rejected` those that could not be read, by reason. `files_left_out`
    explains which files of a folder were skipped. `feed_rate_per_s` sizes the feeds if the requests are not known in
    advance. `out_of_time_order` counts, by partition of a whole Kafka recording, the records whose timestamp is
    before that of a record at a lower offset (None: not counted).
    """

    trace: str
    target: str
    pace: str
    trace_rows: int
    rows_in_window: int
    rows: int | None
    passes: float
    skipped: dict[str, int]
    by_method: dict[str, int]
    by_route: list[RoutePlan]
    recorded_hosts: dict[str, int]
    recorded_headers: bool
    out_of_time_order: dict[str, int] | None = None
    peak_1s_per_s: float | None
    peak_60s_per_s: float | None
    peak_at_ns: int | None
    feed_rate_per_s: float | None = None
    mean_per_s: float | None
    length_ns: int | None
    warm_up_ns: int
    connections_estimate: int
    connections_recorded: bool
    clients: ClientsPlan | None = None
    recorded_from_ns: int
    recorded_until_ns: int
    time_zone: str
    utc_offset_s: int
    speed: float
    lines: int = 0
    rejected: dict[str, int] = {}
    files_left_out: list[str] = []


@dataclass(frozen=True, slots=True)
class Schedule:
    """The due times of a run, with the figures of its `plan`.

    The protocol decides how a request is written. `bodiless` counts by route the requests that need a body but have
    no recorded one.
    """

    trace: Trace
    scenario: Scenario
    plan: Plan
    rows_a_pass: int
    bodiless: npt.NDArray[np.int64]
    _rows: RowSource

    @property
    def warm_up_ns(self) -> int:
        """Requests due before this time are not measured."""
        return int(self.scenario.warm_up_ns)

    @property
    def recorded_origin_ns(self) -> int:
        """The recorded time, since the epoch, that is due at the start of the run."""
        return self._rows.clock.origin_ns

    @property
    def requests_table(self) -> npt.NDArray[np.int64]:
        """Raw addresses of the requests dictionary, for the kernels; valid as long as this schedule exists."""
        return self._rows.table

    def batches(self) -> Iterator[DueBatch]:
        """Yield the due requests in order, computed anew at each call.

        For a closed loop with a duration this never ends, so that the caller must stop it.
        """
        return self._rows.batches()

    def numbers(self) -> RowNumbers:
        """Return which row of the trace each request of the run is."""
        return self._rows.numbers(self.rows_a_pass)

    def arriving(self) -> AsyncGenerator[DueBatch, None]:
        """Yield the due requests in order, as they become known: for a trace at once, for a followed source later."""
        return self._rows.arriving()

    def stop(self) -> None:
        """End `arriving` if the source is followed."""
        self._rows.stop()

    def lookup(self, seqs: list[int]) -> dict[int, RecordedRow]:
        """Return the recorded rows for sequence numbers of any pass.

        The result is empty if the trace was damaged or removed during the run, because the measurements do not depend
        on it.
        """
        try:
            found = self._rows.recorded([seq % self.rows_a_pass for seq in seqs])
        except InputError:
            return {}
        return {seq: found[seq % self.rows_a_pass] for seq in seqs if seq % self.rows_a_pass in found}


def make_schedule(trace: Trace, scenario: Scenario, *, name: str = "", area: Path | None = None) -> Schedule:
    """Read the trace and plan the scenario.

    `name` is the plan's name for the recording. If the scenario transforms the trace (`Transform.changes`), the result
    is written to the folder `area`, which must exist as long as the schedule. Raises InputError if the trace is empty
    or damaged, and UsageError if nothing would be sent or measured, or if the scenario has further targets.
    """
    if scenario.also:
        raise UsageError(
            "the scenario has further targets ([[also]])", hint="make_schedules makes a schedule for each"
        )
    if not trace.rows:
        raise InputError(f"{trace.path} holds no requests: there is nothing to replay")
    warm(KERNELS)
    trace = with_actions(trace, scenario.actions)
    zone = time_zone(trace, scenario)
    clock = make_clock(trace, scenario, zone)
    name = units.name_text(name or str(trace.path))
    trace = _transformed(trace, scenario, clock, area)
    rows = DueRows(trace, clock, scenario)
    tally = rows.count(rows.clock.rows_max)
    if not tally.selected:
        raise _nothing_to_send(trace, scenario, tally, rows.clock, zone)
    rows_a_pass, in_window = tally.selected, rows.rows_in_window()
    skipped = _skipped(trace, tally, in_window)
    passes = _repeat(rows, tally)
    plan = _make_plan(rows, scenario, zone, tally, skipped, passes, in_window, name)
    return Schedule(trace, scenario, plan, rows_a_pass, tally.bodiless, rows)


def make_schedules(
    trace: Trace, scenario: Scenario, *, name: str = "", area: Path | None = None
) -> list[Schedule]:
    """Return a schedule for each target of a scenario, all on one timeline.

    Requests that were recorded at the same time are due at the same time.
    """
    schedules = []
    for number, own in enumerate(scenario.by_target()):
        place = area / f"target-{number}" if area is not None and number else area
        if place is not None:
            place.mkdir(parents=True, exist_ok=True)
        of_its_own = trace.again() if number else trace
        schedules.append(make_schedule(of_its_own, own, name=name, area=place))
    return schedules


def _transformed(trace: Trace, scenario: Scenario, clock: Clock, area: Path | None) -> Trace:
    """Return the trace to replay: the window transformed as the scenario requires, or the whole trace unchanged.

    Raises UsageError if the scenario transforms the trace and `area` is None.
    """
    wanted = Transform.of(scenario)
    if not wanted.changes:
        return trace
    if area is None:
        raise UsageError(
            "a scenario that transforms the trace needs a folder for the result", hint="give area="
        )
    wanted = replace(wanted, from_ns=clock.from_ns, until_ns=clock.until_ns, replayed_speed=clock.speed)
    return transform(trace, area / "transformed.trace", wanted)


def _repeat(rows: DueRows, tally: Tally) -> float:
    """Add the further passes of a repeated trace to the tally, and return the number of passes.

    The number is 1 if one pass has enough requests, and for a closed loop, whose passes are unknown.
    """
    clock, once = rows.clock, tally.selected
    if not clock.repeats or clock.rows_max == FOREVER or once >= clock.rows_max:
        return 1.0
    whole, rest = divmod(clock.rows_max, once)
    last = rows.count(rest) if rest else None
    tally.add(tally, whole - 1)
    if last is not None:
        tally.add(last, 1)
    return clock.rows_max / once


def _make_plan(
    rows: DueRows, scenario: Scenario, zone: dt.tzinfo, tally: Tally, skipped: dict[str, int],
    passes: float, in_window: int, name: str,
) -> Plan:  # fmt: skip
    clock, trace = rows.clock, rows.trace
    end_ns = min(clock.until_ns - 1, trace.end_ns)
    length_ns = _length_ns(clock, scenario, tally.selected, end_ns)
    if length_ns is not None and scenario.warm_up_ns > 0 and scenario.warm_up_ns >= length_ns:
        raise UsageError(
            f"the warm-up of {units.format_duration(scenario.warm_up_ns)} leaves nothing to measure:"
            f" the run takes {units.format_duration(length_ns)}"
        )
    peak_1s, peak_60s, peak_at_ns = _peaks(clock, tally, length_ns)
    lines, rejected = trace.manifest.unread()
    offset = units.to_datetime(clock.origin_ns, zone).utcoffset() or dt.timedelta()
    return Plan(
        trace=name,
        target=scenario.target,
        pace=_pace(scenario),
        trace_rows=trace.rows,
        rows_in_window=in_window,
        rows=None if clock.repeats and clock.rows_max == FOREVER else tally.selected,
        passes=passes,
        skipped=skipped,
        by_method=_by_name(trace.requests.methods, tally.sent),
        by_route=_routes(trace, tally),
        recorded_hosts=_by_name(trace.requests.hosts, tally.hosts),
        recorded_headers=trace.requests.has_headers,
        out_of_time_order=trace.manifest.options.get(OUT_OF_TIME_ORDER),
        peak_1s_per_s=peak_1s,
        peak_60s_per_s=peak_60s,
        peak_at_ns=peak_at_ns,
        mean_per_s=tally.selected * SECOND_NS / max(length_ns, SECOND_NS)
        if length_ns is not None and peak_1s
        else None,
        length_ns=length_ns,
        warm_up_ns=scenario.warm_up_ns,
        connections_estimate=_connections(clock, scenario, tally, peak_1s),
        connections_recorded=bool(tally.tooks.any()),
        clients=_clients(rows, scenario) if scenario.connect == "per-client" else None,
        recorded_from_ns=clock.origin_ns,
        recorded_until_ns=end_ns,
        time_zone=str(zone),
        utc_offset_s=int(offset.total_seconds()),
        speed=clock.speed,
        lines=lines,
        rejected=rejected,
        files_left_out=[file.why for file in trace.manifest.left_out],
    )


def _length_ns(clock: Clock, scenario: Scenario, rows: int, end_ns: int) -> int | None:
    """Return how long the run takes to send its requests: all rows at a constant rate, or the replayed part.

    For a closed loop it is the duration, or None without one, because the target sets the pace.
    """
    if clock.period_ns < 0:
        return scenario.duration_ns
    if clock.period_ns > 0:
        return math.ceil(rows * clock.period_ns)
    return round((end_ns - clock.origin_ns) / clock.speed)


def _peaks(
    clock: Clock, tally: Tally, length_ns: int | None
) -> tuple[float | None, float | None, int | None]:
    """Return the highest rates over 1 s and 60 s (or the whole run, if shorter), and when the busiest second begins.

    All are None for a closed loop.
    """
    if clock.period_ns < 0:
        return None, None, None
    if clock.period_ns > 0:
        return SECOND_NS / clock.period_ns, SECOND_NS / clock.period_ns, 0
    peaks = tally.windows[:, kernels.PEAK].tolist()
    edge_ns = int(tally.windows[0, kernels.PEAK_EDGE_NS])
    span_s = min(60.0, max((length_ns or 0) / SECOND_NS, 1.0))
    return float(peaks[0]), peaks[1] / span_s, max(0, edge_ns - SECOND_NS)


def _connections(clock: Clock, scenario: Scenario, tally: Tally, peak_per_s: float | None) -> int:
    """Estimate the requests in flight in the busiest second from the recorded response times.

    For a closed loop, return the scenario's number of connections (0: auto).
    """
    if clock.period_ns < 0:
        return int(scenario.connections)
    in_flight = int(tally.windows[0, kernels.BUSY_PEAK]) / SECOND_NS
    if clock.period_ns > 0:
        tooks = Histogram(tally.tooks.sum(axis=0, dtype=np.uint64), NS_2)
        took_ns = tooks.mean_and_deviation()[0] if tooks.count else float(DEFAULT_TOOK_NS)
        in_flight = (peak_per_s or 0.0) * took_ns / SECOND_NS
    return max(1, math.ceil(in_flight))


def _clients(rows: DueRows, scenario: Scenario) -> ClientsPlan:
    """Estimate the clients' connections in one more pass over the due requests."""
    count = max(rows.trace.manifest.clients, 1)
    last_ns, connected = np.zeros(count, np.int64), make_lists(count)
    words = np.zeros(kernels.CLIENT_WORDS, np.int64)
    for batch in rows.batches():
        kernels.count_clients(batch.due_ns, batch.client, scenario.idle_timeout_ns, last_ns, connected, words)
    return ClientsPlan(
        at_once=int(words[kernels.OPEN_PEAK]),
        connects=int(words[kernels.OPENED]),
        connects_peak_1s=int(words[kernels.SECOND_PEAK]),
    )


def _routes(trace: Trace, tally: Tally) -> list[RoutePlan]:
    """Return all routes of the trace with their recorded figures, in the trace's order."""
    plans = []
    requests = trace.requests
    named = zip(requests.routes, requests.actions, tally.routes, tally.tooks, strict=True)
    for name, action, statuses, tooks in named:
        p50, p99 = None, None
        if tooks.any():
            p50, p99 = Histogram(tooks.astype(np.uint64), NS_2).percentiles((50.0, 99.0))
        counted = dict(zip(STATUS_CLASSES, statuses.tolist(), strict=True))
        recorded = Recorded(
            count=int(statuses.sum()),
            statuses={status: count for status, count in counted.items() if count and status != "unknown"},
            p50_ns=p50,
            p99_ns=p99,
        )
        plans.append(RoutePlan(route=name, rows=recorded.count, recorded=recorded, action=action))
    return plans


def _by_name(names: list[str], counts: npt.NDArray[np.int64]) -> dict[str, int]:
    """Return the counts above 0 by name, the highest first.

    A count past the end of `names` (that of requests without a host) is left out.
    """
    pairs = [(name, count) for name, count in zip(names, counts.tolist(), strict=False) if count]
    return dict(sorted(pairs, key=lambda pair: -pair[1]))


def _pace(scenario: Scenario) -> str:
    if scenario.closed_loop:
        pace = "closed loop: each connection sends its next request when the last one is answered"
    elif scenario.rate_per_s is not None:
        pace = f"constant rate of {units.format_rate(scenario.rate_per_s)}"
    elif scenario.compress_to_ns is not None:
        pace = f"as recorded, in {units.format_duration(scenario.compress_to_ns)}"
    elif scenario.speed == Factor(1.0):
        pace = "as recorded"
    else:
        pace = f"as recorded, {scenario.speed:g} times as fast"
    if scenario.sample is not None:
        pace += f", {units.format_share(scenario.sample)} of the {scenario.sample_by}s"
    factors = [f"{route or 'all routes'} times {factor:g}" for route, factor in scenario.scale]
    if scenario.peak_per_s is not None:
        factors.append(f"scaled to a busiest minute of {units.format_rate(scenario.peak_per_s)}")
    return ", ".join([pace, *factors])


def _skipped(trace: Trace, tally: Tally, in_window: int) -> dict[str, int]:
    """Return how many rows of the trace are not sent, by reason."""
    skipped = {"outside the window": trace.rows - in_window, "after the duration": in_window - tally.seen}
    for name, count in _by_name(trace.requests.methods, tally.skipped).items():
        skipped[f"method {name}"] = count
    return {reason: count for reason, count in skipped.items() if count}


def _nothing_to_send(
    trace: Trace, scenario: Scenario, tally: Tally, clock: Clock, zone: dt.tzinfo
) -> UsageError:
    skipped = _by_name(trace.requests.methods, tally.skipped)
    if not skipped:
        return UsageError(
            f"the window {span_text(clock.from_ns, clock.until_ns, zone)} holds no requests",
            hint=f"the recording is from {span_text(trace.start_ns, trace.end_ns, zone)}",
        )
    held = ", ".join(f"{name} ({units.format_count(count)})" for name, count in skipped.items())
    rules = method_rules(list(skipped), scenario)
    permitted = [name for name, rule in zip(skipped, rules, strict=False) if rule == kernels.NOT_ALLOWED]
    if not permitted:
        return UsageError(f"nothing would be sent: the replayed part holds {held}, which replay never sends")
    return UsageError(
        f"nothing would be sent: the replayed part holds {held}; only {', '.join(scenario.methods)} may be sent",
        hint=f"allow them: --methods {','.join(permitted)}",
    )
