"""Assembles a followed run: the source, its reader, the schedule, and the checks of limits."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import msgspec
import numpy as np
import trio

from replay import units
from replay.errors import reason_of
from replay.plan.due import STATUS_CLASSES
from replay.plan.safety import is_loopback
from replay.plan.schedule import ClientsPlan, Plan, Schedule
from replay.results.document import (
    ClockPair,
    Note,
    Recorded,
    RouteStart,
    SourceFigures,
    SourceSoFar,
    TraceIdentity,
)
from replay.settings.scenario import Scenario
from replay.settings.target import scheme_of
from replay.trace.actions import rules_of
from replay.trace.importing.readers.records import RecordReader
from replay.trace.importing.registry import Importer
from replay.units import MS_NS, SECOND_NS, counted, format_duration
from replay.workload.rewrite import read_rewrite
from replay_native.ledger.lane_metrics import LaneMetrics

from .clock import WallClock
from .keep import Keeper
from .opening import Wanted, delay_of
from .pending import FollowedRows
from .reading import METHODS, OTHER_METHOD, Reading
from .routes import RouteBook
from .selecting import Selecting, copies_max
from .store import RequestStore
from .stream import Stream
from .trace import FollowedTrace
from .watching import Looking

CLIENTS_MAX = 1 << 16
FEED_RATE_MIN_PER_S = 5_000.0
"""Minimum rate for which the lanes' feeds are sized, because the rate of a source is not known in advance."""

DRAIN_MAX_S = 10.0
REST_NS, REST_MAX_NS = 500 * MS_NS, 10 * SECOND_NS
"""After `finish`, mirrored requests are still sent for the delay plus REST_NS, but at most for REST_MAX_NS."""

Say = Callable[[str], None]


class Following:
    """A source that is followed, which is also the live part of its run (see `replay.engine.live.LiveSource`)."""

    def __init__(
        self, stream: Stream, importer: Importer, wanted: Wanted, scenario: Scenario, say: Say
    ) -> None:
        self.wanted, self.scenario, self._say = wanted, scenario, say
        self._wall = WallClock()
        self._copies = copies_max(scenario)
        clients = CLIENTS_MAX // self._copies
        named = [
            *(rule.route for rule in scenario.body),
            *(rule.route for rule in scenario.set),
            *(rule.route for rule in scenario.capture),
            *(rule.route for rule in scenario.check),
            *(route for route, _ in scenario.scale if route),
            *_routes_of_objectives(scenario),
        ]
        book = RouteBook(
            [*METHODS, OTHER_METHOD],
            rules_of(scenario.actions).before(wanted.options.routes),
            [name for name in named if name not in ("all", "*")],
        )
        rewrite = read_rewrite(scenario.rewrite) if scenario.rewrite else None
        self.reading = Reading(
            stream, importer, wanted.options, book, RequestStore(), clients_max=clients, rewrite=rewrite
        )
        self.stream = stream
        self.delay_ns, self.delay_reason = delay_of(wanted, stream, self.reading.resolution_ns)
        self._rest_ns = 0 if stream.is_recorded else min(self.delay_ns + REST_NS, REST_MAX_NS)
        self.drain_s = min(scenario.timeout_ns / SECOND_NS, DRAIN_MAX_S) + self._rest_ns / SECOND_NS
        self.reading.start()
        self._routes: list[RouteStart] = []
        self._metrics: Sequence[LaneMetrics] = ()
        self._why = ""
        self._changed = False
        self._keeper: Keeper | None = None
        self._kept = ""
        self._has_begun = False
        self._not_due = 0

    def wait_for_history(self) -> None:
        """Wait until the lines from before the run have been read, then prepare the schedule from their routes.

        Raises the error with which reading failed, or OutputError if the trace to keep cannot be created.
        """
        while not self.reading.ready.wait(0.05):
            pass
        if self.reading.failure is not None:
            raise self.reading.failure
        book = self.reading.book
        self._selecting = Selecting(
            self.scenario, self.reading.methods, book.names, book.actions, CLIENTS_MAX // self._copies
        )
        self.rows = FollowedRows(
            self.reading,
            self._selecting,
            self._wall,
            self.delay_ns,
            self.scenario.duration_ns,
            self.wanted.seed,
            needs_own=bool(self.scenario.rewrite_host) or "host" in self.scenario.send_headers,
        )
        self.looking = Looking(self.rows, self._wall, self.delay_ns, self._say)
        self.rows.on_rename = self._rename
        if self.wanted.keep is not None:
            self._keeper = Keeper(self.wanted.keep, self.reading, self.wanted.options)

    def schedule(self) -> Schedule:
        """Return the schedule that the source feeds."""
        trace = FollowedTrace(self.wanted.name, self.reading, CLIENTS_MAX)
        self._digest = trace.digest
        return Schedule(
            trace, self.scenario, self._plan(), 1 << 62, np.zeros(self.reading.book.size, np.int64), self.rows
        )

    def _plan(self) -> Plan:
        history, scenario = self.reading.history, self.scenario
        factor = max((float(factor) for _, factor in scenario.scale), default=1.0)
        peak = max(history.peak_1s, 1) * factor
        at_once = min(max(64, 2 * history.peak_1s), 1_000)
        return Plan(
            trace=units.name_text(self.wanted.name),
            target=scenario.target,
            pace=f"as recorded, {format_duration(self.delay_ns)} later",
            trace_rows=0,
            rows_in_window=0,
            rows=None,
            passes=1.0,
            skipped={},
            by_method={},
            by_route=[],
            recorded_hosts=dict(history.hosts or {}),
            recorded_headers=isinstance(self.reading.reader, RecordReader),
            peak_1s_per_s=peak if history.rows else 1.0,
            peak_60s_per_s=None,
            peak_at_ns=None,
            feed_rate_per_s=max(4 * peak, FEED_RATE_MIN_PER_S),
            mean_per_s=None,
            length_ns=scenario.duration_ns or 0,
            warm_up_ns=scenario.warm_up_ns,
            connections_estimate=1,
            connections_recorded=False,
            clients=ClientsPlan(at_once=at_once, connects=0, connects_peak_1s=0)
            if scenario.connect == "per-client"
            else None,
            recorded_from_ns=time.time_ns() - self.delay_ns,
            recorded_until_ns=time.time_ns() - self.delay_ns,
            time_zone=self.reading.found.time_zone or "UTC",
            utc_offset_s=0,
            speed=1.0,
        )

    def set_addresses(self, addresses: Sequence[str]) -> None:
        """Set the limits of the run. If an address is not loopback, limits that the scenario lacks get defaults."""
        self.looking.set_limits(self.scenario, is_local=all(map(is_loopback, addresses)))

    def begin(self, start: ClockPair, routes: list[RouteStart], metrics: Sequence[LaneMetrics]) -> None:
        """Begin to feed the schedule, at the start of the run (see `LiveSource`)."""
        self._routes, self._metrics = routes, metrics
        if (keeper := self._keeper) is not None:
            self.rows.on_recorded = lambda entries, part: keeper.add(part)
        self._has_begun = True
        self.rows.begin(start)
        self.looking.begin(start.monotonic_ns)

    @property
    def _has_own_routes(self) -> bool:
        """Return whether the run counts by the routes of the source; with a Kafka target, it counts by partition."""
        return scheme_of(self.scenario.target) != "kafka"

    def _rename(self, row: int, name: str, action: str) -> None:
        if not self._has_own_routes:
            return
        self._routes[row] = msgspec.structs.replace(self._routes[row], name=name, action=action)
        self._changed = True

    async def watch(self, end: Callable[[str, str], None], changed: Callable[[], None]) -> None:
        """Check the source once per second, until cancelled (see `LiveSource`)."""
        while True:
            await trio.sleep(1.0)
            if self._changed:
                self._changed = False
                changed()
            if over := self.looking.second(self._metrics):
                end("over_limit", over)
            if self.looking.is_too_long():
                self.finish(
                    f"the limit of {format_duration(self.looking.length_max_ns or 0)} (--max-duration sets it)"
                )

    def finish(self, why: str) -> None:
        """Stop following, because of `why` (see `LiveSource`). Only the first reason is kept.

        Mirrored requests exist nowhere else. They are therefore still sent, if they are due soon enough.
        """
        if self.stream.is_recorded:
            self.rows.stop()
        elif not self._why:
            self.stream.finish()
            self.rows.end_within(self._rest_ns)
        self._why = self._why or why

    def why_ended(self) -> str:
        """Return why the source ended (see `LiveSource`).

        While the source continues, this is "", or the requested duration if there is one.
        """
        if self._why:
            return f"followed until {self._why}"
        if self.reading.failure is not None:
            return f"the source could no longer be read: {self.reading.failure}"
        if self.stream.ended_by_itself:
            return f"followed until the end of {self.stream.name}"
        if self.scenario.duration_ns is not None:
            return f"followed for {format_duration(self.scenario.duration_ns)}"
        return ""

    def close(self) -> None:
        """Stop reading, count the entries read so far, and complete the kept trace."""
        if not self.stream.is_recorded:
            self.stream.close()
        self.reading.stop()
        with suppress(OSError):
            self.stream.close()
        if self._has_begun:
            self.rows.settle()
        if self._keeper is not None:
            keeper, self._keeper = self._keeper, None
            trace = keeper.close()
            self._kept_dropped, self._keep_failure = keeper.dropped, keeper.failure
            if trace is not None:
                self._kept, self._digest = str(trace.path), trace.digest

    _kept_dropped = 0
    _keep_failure: Exception | None = None

    def keep_problem(self) -> str:
        """Return why the kept trace is not complete, or "" if it is."""
        if self._keep_failure is None and not self._kept_dropped:
            return ""
        why = "the disk was too slow" if self._keep_failure is None else reason_of(self._keep_failure)
        what = "is not complete" if self._kept else "was not made"
        return (
            f"{self.wanted.keep} {what}: {counted(self._kept_dropped, 'entry', 'entries')} not kept ({why})"
        )

    def failed(self) -> bool:
        """Return whether reading the source has failed."""
        return self.reading.failure is not None

    def figures(self, planned: int) -> SourceFigures:
        """Stop following, and return the final figures of the source.

        `planned` is the number of requests that were due.
        """
        self.close()
        figures = self._figures().with_planned(planned)
        self._not_due = figures.not_due
        return figures

    def so_far(self) -> SourceSoFar:
        """Return the figures of the source at this moment, while the run continues."""
        return SourceSoFar(source=self._figures(), trace=self.identity())

    def _figures(self) -> SourceFigures:
        account, reading = self.rows.account, self.reading
        return SourceFigures(
            source=units.name_text(self.wanted.name),
            format=reading.importer.name,
            delay_ns=self.delay_ns,
            delay_reason=self.delay_reason,
            entries=account.entries,
            late_at_source=account.late,
            before_start=account.before_start,
            skipped=dict(account.skipped),
            copies=account.copies,
            needed_delay_ns=account.needed.at(),
            needed_delay_max_ns=account.needed.max_ns,
            lines=reading.lines(),
            rejected=reading.rejected(),
            rotations=self.stream.rotations,
            truncations=self.stream.truncations,
            own_requests=account.own_requests,
            silent_max_s=round(self.looking.silent_max_s, 1),
            ended_by=self._why or ("end of the source" if self.stream.ended_by_itself else ""),
            kept=self._kept,
            kept_dropped=self._kept_dropped,
        )

    def identity(self) -> TraceIdentity:
        """Return what run.json records of the source in place of a trace."""
        return TraceIdentity(
            path=units.name_text(self.wanted.name),
            digest=self._digest,
            rows=self.rows.account.entries,
            first_at_ns=self.rows.first_at_ns,
            last_at_ns=self.rows.last_at_ns,
            lines=self.reading.lines(),
            rejected=self.reading.rejected(),
        )

    def recorded_routes(self) -> None:
        """Add the recorded status classes of each route to the run's routes; a Kafka target has none."""
        if not self._has_own_routes:
            return
        for row, counts in enumerate(self.rows.statuses.tolist()):
            if sum(counts):
                statuses = {
                    name: count
                    for name, count in zip(STATUS_CLASSES, counts, strict=True)
                    if count and name != "unknown"
                }
                recorded = Recorded(count=sum(counts), statuses=statuses)
                self._routes[row] = msgspec.structs.replace(self._routes[row], recorded=recorded)

    def notes(self) -> list[Note]:
        """Return the notes about the source for the end of the run."""
        notes = [*self.looking.notes(), *self.stream.notes()]
        if problem := self.keep_problem():
            notes.append(Note("TRACE_NOT_WHOLE", problem))
        if self._not_due and not self.stream.is_recorded:
            what = counted(self._not_due, "request")
            notes.append(Note("NOT_DUE", f"not sent, because due after the end: {what} from the mirror"))
        unused = [
            rule for rule in self.wanted.options.scrub.as_list() if rule not in self.reading.found.rules_used
        ]
        notes += [
            Note("SCRUB_UNUSED", f"--scrub {rule}: it matches no value of this source") for rule in unused
        ]
        return notes


def _routes_of_objectives(scenario: Scenario) -> list[str]:
    from replay.results import slo

    return [objective.route for objective in map(slo.parse, map(str, scenario.slo)) if objective.route]
