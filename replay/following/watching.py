"""Watches a source once per second: limits, silence, the clock, and the run's own requests."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from replay import units
from replay.results.document import Note
from replay.settings.groups.safety import DEFAULT_MAX_DURATION_NS, DEFAULT_MAX_RATE_PER_S
from replay.settings.scenario import Scenario
from replay.units import MS_NS, SECOND_NS, format_duration
from replay_native.ledger.lane_metrics import LaneMetrics

from .clock import WallClock
from .own_requests import OwnRequests
from .pending import FollowedRows

SILENT_S = 30.0
RATE_TOLERANCE = 1.2
"""The rate may exceed the limit by this factor, because a check may count a little more than a second."""

STAMPS_LONG_PAST_NS = 3_600 * SECOND_NS

Say = Callable[[str], None]


class Looking:
    """The checks that are made once per second, with their messages during the run and at its end."""

    def __init__(self, rows: FollowedRows, wall: WallClock, delay_ns: int, say: Say) -> None:
        self._rows, self._wall, self._say = rows, wall, say
        self._reading, self._stream = rows.reading, rows.reading.stream
        self._own = OwnRequests(delay_ns, rows.reading.resolution_ns)
        rows.on_entries, rows.on_released = self._own.entered, self._own.released
        self._rate_max_per_s: float | None = None
        self.length_max_ns: int | None = None
        self._start_ns = 0
        self._released = 0
        self._is_silent = False
        self._jumped_ns = 0
        self.silent_max_s = 0.0

    def set_limits(self, scenario: Scenario, *, is_local: bool) -> None:
        """Set the limits from the scenario; if the target is not on this machine, missing limits get defaults."""
        self._rate_max_per_s = scenario.max_rate_per_s or (None if is_local else DEFAULT_MAX_RATE_PER_S)
        self.length_max_ns = scenario.max_duration_ns or (None if is_local else DEFAULT_MAX_DURATION_NS)

    def begin(self, start_ns: int) -> None:
        """Note the start of the run."""
        self._start_ns = start_ns

    def second(self, all_metrics: Sequence[LaneMetrics]) -> str:
        """Make all checks, and return why the run must end, or "" if it need not."""
        self._rows.remember(sampled(all_metrics))
        self._look_for_own_requests()
        self._look_at_clock()
        self._look_for_silence()
        return self._over_rate()

    def is_too_long(self) -> bool:
        """Return whether the run has reached its maximum length."""
        return self.length_max_ns is not None and time.monotonic_ns() - self._start_ns > self.length_max_ns

    def _over_rate(self) -> str:
        before, self._released = self._released, self._rows.account.released + self._rows.account.copies
        count, limit = self._released - before, self._rate_max_per_s
        if limit is None or count <= RATE_TOLERANCE * limit:
            return ""
        return (
            f"the source needs {units.format_rate(count)}; the limit is {units.format_rate(limit)}"
            f" (--max-rate {count}/s allows it)"
        )

    def _look_for_own_requests(self) -> None:
        count = self._own.second()
        if count and not self._rows.account.own_requests:
            self._say(self._own_words())
        self._rows.account.own_requests = self._own.found

    def _own_words(self) -> str:
        return (
            f"{self._stream.name} holds requests of this run: each one that is sent appears there, and is sent"
            " again and again. Follow a source that the target's requests do not reach"
        )

    def _look_at_clock(self) -> None:
        jumped_ns = self._wall.jumped_ns()
        if jumped_ns and not self._jumped_ns:
            self._say(_clock_words(jumped_ns))
        self._jumped_ns = jumped_ns or self._jumped_ns

    def _look_for_silence(self) -> None:
        """Report that the source has had no entry for SILENT_S, once per silence."""
        if self._reading.ended.is_set():
            return
        silent_s = (time.monotonic_ns() - self._rows.last_entry_ns) / SECOND_NS
        self.silent_max_s = max(self.silent_max_s, silent_s)
        if silent_s >= SILENT_S and not self._is_silent:
            trouble = self._stream.trouble() or self._rejected_words()
            words = f"no entry for {silent_s:.0f} s from {self._stream.name}"
            self._say(words + (f": {trouble}" if trouble else ""))
        self._is_silent = silent_s >= SILENT_S

    @property
    def _unit(self) -> str:
        return "request" if self._stream.kind == "mirror" else "line"

    def _rejected_words(self) -> str:
        rejected = self._reading.rejected()
        if not rejected:
            return ""
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in rejected.items())
        return f"{units.counted(sum(rejected.values()), self._unit)} rejected ({reasons})"

    def notes(self) -> list[Note]:
        """Return the notes for the end of the run."""
        account, stream, notes = self._rows.account, self._stream, []
        if account.late:
            notes.append(Note("LATE_AT_SOURCE", self._late_words()))
        if rejected := self._rejected_words():
            # Requests that a mirror loses never become lines.
            total = self._reading.lines() + sum(stream.lost().values())
            notes.append(Note("LINES_REJECTED", f"{rejected}, of {units.counted(total, self._unit)} in all"))
        if account.own_requests:
            notes.append(Note("OWN_REQUESTS", self._own_words()))
        if self._jumped_ns:
            notes.append(Note("CLOCK_CHANGED", _clock_words(self._jumped_ns)))
        if stream.truncations:
            words = f"{stream.name} was truncated or replaced in place {units.counted(stream.truncations, 'time')}"
            notes.append(Note("SOURCE_TRUNCATED", f"{words}: lines written just before may be missing"))
        if self.silent_max_s >= SILENT_S:
            notes.append(Note("SOURCE_SILENT", f"the source had no entry for {self.silent_max_s:.0f} s"))
        if self._reading.clients_full:
            words = "there were more clients than can be distinguished: some share a number"
            notes.append(Note("CLIENTS_SHARED", words))
        return notes

    def _late_words(self) -> str:
        account = self._rows.account
        words = (
            f"{account.late:,} of {units.counted(account.entries, 'entry', 'entries')} arrived too late to be sent on time,"
            " and were not sent"
        )
        if account.before_start:
            words += f" ({account.before_start:,} were due before the start of the run)"
        needed = account.needed.at()
        if needed is None or (account.late > account.entries // 2 and needed > STAMPS_LONG_PAST_NS):
            return f"{words}; their stamps are long past: replay a recording with `replay run`, or see --tz"
        return f"{words}; --delay {_rounded_up(needed)} would have been enough for 99.9% of the entries"


def sampled(all_metrics: Sequence[LaneMetrics]) -> set[int]:
    """Return the sequence numbers of the requests that are samples of the lanes now."""
    found: set[int] = set()
    for metrics in all_metrics:
        for samples, counts in (
            (metrics.slowest, metrics.slowest_counts),
            (metrics.failed, metrics.failed_counts),
            (metrics.mismatched, metrics.mismatched_counts),
        ):
            for row in np.flatnonzero(counts).tolist():
                found.update(samples[row]["seq"][: int(counts[row])].tolist())
    return found


def _clock_words(jumped_ns: int) -> str:
    how, effect = ("forward", "later") if jumped_ns > 0 else ("back", "earlier")
    moved = format_duration(abs(jumped_ns))
    return f"the system's clock was set {how} by {moved}: entries after that are due {moved} {effect}"


def _rounded_up(needed_ns: int) -> str:
    step = 100 * MS_NS if needed_ns < 10 * SECOND_NS else SECOND_NS
    return units.duration_text(-(-needed_ns // step) * step)
