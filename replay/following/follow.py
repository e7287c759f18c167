"""Puts a followed run together: the source, what is read of it, the schedule that it feeds, and what is looked after."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import trio

from replay import units
from replay.errors import InputError, ReplayError
from replay.plan.due import STATUS_CLASSES
from replay.plan.safety import is_loopback
from replay.plan.schedule import ClientsPlan, Plan, Schedule
from replay.results.document import (
    ClockPair,
    Note,
    Recorded,
    RouteStart,
    SourceFigures,
    TraceIdentity,
)
from replay.settings.groups.safety import DEFAULT_MAX_DURATION_NS, DEFAULT_MAX_RATE_PER_S
from replay.settings.scenario import Scenario
from replay.trace.importing.pipeline import tell_format
from replay.trace.importing.readers.records import RecordReader
from replay.trace.importing.registry import Importer, Options
from replay.units import MS_NS, SECOND_NS, format_duration
from replay.workload.rewrite import read_rewrite
from replay_native.ledger.lane_metrics import LaneMetrics

from .clock import WallClock
from .keep import Keeper
from .mirror import MIRROR, MirrorStream
from .own_requests import OwnRequests
from .pending import SPREAD_TOGETHER_NS, FollowedRows
from .reading import METHODS, OTHER_METHOD, Reading
from .routes import RouteBook
from .selecting import Selecting, copies_max
from .store import RequestStore
from .stream import Stream
from .trace import FollowedTrace

SLACK_NS = 2 * SECOND_NS
"""The default delay beyond the resolution of the stamps: lines are buffered, written and read in it."""

SILENT_S = 30.0
CLIENTS_MAX = 1 << 16
FEED_RATE_MIN_PER_S = 5_000.0
"""What the lanes' feeds are made for at least: the rate of a source is not known beforehand."""

DRAIN_MAX_S = 10.0
NOT_FOLLOWED = {
    "har": "a HAR file is whole only at its end",
    "pcap": "a capture is imported once it is whole",
    "jmeter": "results of JMeter are imported once they are whole",
}
COMPRESSED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1", b"BZh", b"\xfd7zXZ")

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """How a source is to be followed. `delay_ns` is None for the default."""

    name: str
    format: Importer | None = None
    options: Options = field(default_factory=Options)
    delay_ns: int | None = None
    seed: int = 0
    keep: Path | None = None


def format_of(stream: Stream, wanted: Wanted) -> Importer:
    """The format of a source by its first lines. InputError where it is none that can be followed."""
    if isinstance(stream, MirrorStream):
        return MIRROR
    if stream.head.startswith(COMPRESSED):
        raise InputError(
            f"{stream.name} is compressed: a compressed log does not grow", hint="follow the log itself"
        )
    found = tell_format(stream, wanted.options, named=wanted.format)
    if found.name in NOT_FOLLOWED:
        raise InputError(
            f"{stream.name} is {found.title}: {NOT_FOLLOWED[found.name]}",
            hint="replay import, then replay run",
        )
    stream.has_header = found.name in ("csv", "tsv")
    return found


def delay_of(wanted: Wanted, stream: Stream, resolution_ns: int) -> tuple[int, str]:
    """The delay, and why it is this one."""
    if wanted.delay_ns is not None:
        return wanted.delay_ns, "--delay"
    resolution = format_duration(max(resolution_ns, 1))
    if stream.kind == "mirror":
        return SLACK_NS, "the default for a mirror"
    if resolution_ns < SPREAD_TOGETHER_NS:
        return SLACK_NS, f"the default for stamps of {resolution}"
    return (
        SLACK_NS + resolution_ns,
        f"the default for stamps of {resolution}: {format_duration(SLACK_NS)} more than that",
    )


class Following:
    """A source that is followed, and the live part of its run (`replay.engine.live.LiveSource`)."""

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
            wanted.options.routes,
            [name for name in named if name not in ("all", "*")],
        )
        rewrite = read_rewrite(scenario.rewrite) if scenario.rewrite else None
        self.reading = Reading(
            stream, importer, wanted.options, book, RequestStore(), clients_max=clients, rewrite=rewrite
        )
        self.stream = stream
        self.delay_ns, self.delay_reason = delay_of(wanted, stream, self.reading.resolution_ns)
        self.drain_s = min(scenario.timeout_ns / SECOND_NS, DRAIN_MAX_S)
        self.reading.start()
        self._routes: list[RouteStart] = []
        self._metrics: Sequence[LaneMetrics] = ()
        self._why = ""
        self._changed = False
        self._jumped_ns = 0
        self._silent_max_s = 0.0
        self._keeper: Keeper | None = None
        self._kept = ""

    def wait_for_history(self) -> None:
        """Wait until the lines from before have been read; they say what routes there are."""
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
        self._own = OwnRequests(self.delay_ns, self.reading.resolution_ns)
        self.rows.on_entries, self.rows.on_released = self._own.entered, self._own.released
        self.rows.on_rename = self._rename

    def schedule(self) -> Schedule:
        """The schedule that the source feeds."""
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
        """Where the target is: beyond this machine the default limits hold."""
        local = all(is_loopback(address) for address in addresses)
        scenario = self.scenario
        self._rate_max = scenario.max_rate_per_s or (None if local else DEFAULT_MAX_RATE_PER_S)
        self._length_max_ns = scenario.max_duration_ns or (None if local else DEFAULT_MAX_DURATION_NS)

    def begin(self, start: ClockPair, routes: list[RouteStart], metrics: Sequence[LaneMetrics]) -> None:
        """See `LiveSource`."""
        self._routes, self._metrics = routes, metrics
        if self.wanted.keep is not None:
            self._keeper = Keeper(self.wanted.keep, self.reading, self.wanted.options.routes)
            keeper = self._keeper
            self.rows.on_recorded = lambda entries, part: keeper.add(part)
        self._start_ns = start.monotonic_ns
        self.rows.begin(start)

    def _rename(self, row: int, name: str, action: str) -> None:
        self._routes[row] = RouteStart(name, None, action)
        self._changed = True

    async def watch(self, end: Callable[[str, str], None], changed: Callable[[], None]) -> None:
        """See `LiveSource`."""
        released, told_s = 0, 0.0
        while True:
            await trio.sleep(1.0)
            if self._changed:
                self._changed = False
                changed()
            self.rows.remember(self._sampled())
            self._look_for_own_requests()
            self._look_at_clock()
            told_s = self._look_for_silence(told_s)
            now = self.rows.account.released + self.rows.account.copies
            if self._rate_max is not None and now - released > 1.2 * self._rate_max:
                rate, limit = units.format_rate(now - released), units.format_rate(self._rate_max)
                end(
                    "over_limit",
                    f"the source has {rate}; the limit is {limit} (--max-rate {now - released}/s allows it)",
                )
            released = now
            if self._length_max_ns is not None and time.monotonic_ns() - self._start_ns > self._length_max_ns:
                self.finish(f"the limit of {format_duration(self._length_max_ns)} (--max-duration)")

    def _sampled(self) -> set[int]:
        """Sequence numbers of the requests that the lanes keep as samples now."""
        found: set[int] = set()
        for metrics in self._metrics:
            for samples, counts in (
                (metrics.slowest, metrics.slowest_counts),
                (metrics.failed, metrics.failed_counts),
            ):
                for row in np.flatnonzero(counts).tolist():
                    found.update(samples[row]["seq"][: int(counts[row])].tolist())
        return found

    def _look_for_own_requests(self) -> None:
        if self.rows.account.own_requests == 0 and self._own.second():
            self.rows.account.own_requests = self._own.found
            self._say(self._own_words())
        elif self.rows.account.own_requests:
            self._own.second()
            self.rows.account.own_requests = self._own.found

    def _own_words(self) -> str:
        return (
            f"{self.stream.name} holds requests of this run: what is sent is logged there, and is sent again and again."
            " Give the target a log of its own, or follow a log that it does not write to"
        )

    def _look_at_clock(self) -> None:
        jumped_ns = self._wall.jumped_ns()
        if jumped_ns and not self._jumped_ns:
            self._say(self._clock_words(jumped_ns))
        self._jumped_ns = jumped_ns or self._jumped_ns

    def _clock_words(self, jumped_ns: int) -> str:
        how = "forward" if jumped_ns > 0 else "back"
        effect = "later" if jumped_ns > 0 else "earlier"
        moved = format_duration(abs(jumped_ns))
        return f"the system's clock was set {how} by {moved}: entries after that are due {moved} {effect}"

    def _look_for_silence(self, told_s: float) -> float:
        """Say that the source is silent, once for each time."""
        if self.reading.ended.is_set():
            return 0.0
        silent_s = (time.monotonic_ns() - self.rows.last_entry_ns) / SECOND_NS
        self._silent_max_s = max(self._silent_max_s, silent_s)
        if silent_s < SILENT_S:
            return 0.0
        if not told_s:
            trouble = self.stream.trouble() or self._rejected_words()
            self._say(
                f"no entry for {silent_s:.0f} s from {self.stream.name}" + (f": {trouble}" if trouble else "")
            )
        return silent_s

    def _rejected_words(self) -> str:
        rejected = self.reading.rejected()
        if not rejected:
            return ""
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in rejected.items())
        return f"{sum(rejected.values()):,} lines were rejected ({reasons})"

    def finish(self, why: str) -> None:
        """See `LiveSource`."""
        self._why = self._why or why
        self.rows.stop()

    def why_ended(self) -> str:
        """See `LiveSource`."""
        if self._why:
            return f"followed until {self._why}"
        if self.reading.failure is not None:
            return f"the source could not be read any more: {self.reading.failure}"
        if self.stream.ended_by_itself:
            return f"followed until the end of {self.stream.name}"
        if self.scenario.duration_ns is not None:
            return f"followed for {format_duration(self.scenario.duration_ns)}"
        return ""

    def close(self) -> None:
        """Stop reading; write the rest of the kept trace."""
        self.reading.stop()
        with suppress(OSError):
            self.stream.close()
        if self._keeper is not None:
            keeper, self._keeper = self._keeper, None
            trace = keeper.close()
            self._kept_dropped, self._keep_failure = keeper.dropped, keeper.failure
            if trace is not None:
                self._kept, self._digest = str(trace.path), trace.digest

    _kept_dropped = 0
    _keep_failure: ReplayError | None = None

    def failed(self) -> bool:
        """See `LiveSource`."""
        return self.reading.failure is not None

    def figures(self, planned: int) -> SourceFigures:
        """See `LiveSource`."""
        self.close()
        account, reading = self.rows.account, self.reading
        return SourceFigures(
            source=units.name_text(self.wanted.name),
            format=reading.importer.name,
            delay_ns=self.delay_ns,
            delay_reason=self.delay_reason,
            entries=account.entries,
            late_at_source=account.late,
            before_start=account.before_start,
            not_due=account.not_due(planned),
            skipped=dict(account.skipped),
            copies=account.copies,
            needed_delay_ns=account.needed.at(),
            needed_delay_max_ns=account.needed.max_ns,
            lines=reading.lines(),
            rejected=reading.rejected(),
            rotations=self.stream.rotations,
            truncations=self.stream.truncations,
            own_requests=account.own_requests,
            silent_max_s=round(self._silent_max_s, 1),
            ended_by=self._why or ("end of the source" if self.stream.ended_by_itself else ""),
            kept=self._kept,
            kept_dropped=self._kept_dropped,
        )

    def identity(self) -> TraceIdentity:
        """See `LiveSource`."""
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
        """See `LiveSource`."""
        for row, counts in enumerate(self.rows.statuses.tolist()):
            if sum(counts):
                statuses = {
                    name: count
                    for name, count in zip(STATUS_CLASSES, counts, strict=True)
                    if count and name != "unknown"
                }
                route = self._routes[row]
                self._routes[row] = RouteStart(
                    route.name, Recorded(count=sum(counts), statuses=statuses), route.action
                )

    def notes(self) -> list[Note]:
        """See `LiveSource`."""
        account, notes = self.rows.account, []
        if account.late:
            notes.append(Note("LATE_AT_SOURCE", self._late_words()))
        if rejected := self._rejected_words():
            notes.append(
                Note("LINES_REJECTED", f"{rejected} of {units.counted(self.reading.lines(), 'line')}")
            )
        if account.own_requests:
            notes.append(Note("OWN_REQUESTS", self._own_words()))
        if self._jumped_ns:
            notes.append(Note("CLOCK_CHANGED", self._clock_words(self._jumped_ns)))
        if self.stream.truncations:
            how_often = units.counted(self.stream.truncations, "time")
            words = f"{self.stream.name} was truncated or replaced in place {how_often}"
            notes.append(Note("SOURCE_TRUNCATED", f"{words}: lines written just before may be missing"))
        if self._silent_max_s >= SILENT_S:
            notes.append(Note("SOURCE_SILENT", f"the source had no entry for {self._silent_max_s:.0f} s"))
        if self.reading.clients_full:
            notes.append(
                Note("CLIENTS_SHARED", "there were more clients than can be told apart: some share a number")
            )
        if self._keep_failure is not None or self._kept_dropped:
            why = f": {self._keep_failure}" if self._keep_failure is not None else ""
            notes.append(
                Note("TRACE_NOT_WHOLE", f"{self._kept_dropped:,} entries are not in the kept trace{why}")
            )
        return notes

    def _late_words(self) -> str:
        account = self.rows.account
        words = (
            f"{account.late:,} of {units.counted(account.entries, 'entry', 'entries')} came after they were due,"
            " and were not sent"
        )
        if account.before_start:
            words += f" ({account.before_start:,} were due before the run could send)"
        needed = account.needed.at()
        if needed is None or (account.late > account.entries // 2 and needed > 3600 * SECOND_NS):
            return f"{words}; their stamps are long past: replay a recording with `replay run`, or see --tz"
        return f"{words}; --delay {_rounded_up(needed)} would have been enough for 99.9%"


def _rounded_up(needed_ns: int) -> str:
    step = 100 * MS_NS if needed_ns < 10 * SECOND_NS else SECOND_NS
    return units.duration_text(-(-needed_ns // step) * step)


def _routes_of_objectives(scenario: Scenario) -> list[str]:
    from replay.results import slo

    return [objective.route for objective in map(slo.parse, map(str, scenario.slo)) if objective.route]
