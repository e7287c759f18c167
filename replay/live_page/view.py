"""The data of the live page: the current run, and the earlier runs of the same command."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from replay.decoding import examined
from replay.ledger.catalog import CONSUMED, tag_over_all
from replay.ledger.histogram import Histogram
from replay.results.deltas import Deltas
from replay.results.document import RunDocument, Started
from replay.results.failures import failed_words, failures_of
from replay.results.latencies import Latency
from replay.results.so_far import SoFar
from replay.results.standing import StandingNow
from replay.results.timeline import Second
from replay.units import format_latency

from .history import HEAT_KINDS, History
from .route_heat import ROUTES_MAX, RouteHeat

LATENCIES_SHOWN = (*HEAT_KINDS, "wait", *CONSUMED)
"""Latencies for which the page shows figures."""

SHORT_S = 0.5
"""The last row of a run may be a few milliseconds long. A row shorter than this does not replace
the figures of the last second, unless it is the first."""

EVENTS_MAX, RUNS_MAX = 200, 200
"""Maximum numbers of listed events of a run (its start and the latest ones), and of listed runs (the latest ones)."""


@dataclass(frozen=True, slots=True)
class Event:
    """An event of the run, `at_s` seconds after its start."""

    at_s: float
    text: str
    is_bad: bool = False


@dataclass(frozen=True, slots=True)
class EndedRun:
    """A run of this command that has ended."""

    number: int
    target: str
    sent: int
    p99: str
    verdict: str
    failed: str


@dataclass
class View:
    """The data of one run.

    `number` counts the runs of this command. `ended` are its runs that have ended, after `end` with this one.
    """

    started: Started
    number: int
    ended: list[EndedRun] = field(default_factory=list)
    history: History = field(default_factory=History)
    events: list[Event] = field(default_factory=list)
    events_left_out: int = 0
    standings: list[StandingNow] = field(default_factory=list)
    last: Second | None = None
    last_histograms: dict[str, Histogram] = field(default_factory=dict)
    document: RunDocument | None = None

    def __post_init__(self) -> None:
        self.so_far = SoFar(self.started)
        self.route_heat = RouteHeat(self.usual)
        self._in_breach: dict[str, bool] = {}
        self.happened(0.0, "start")

    @property
    def usual(self) -> str:
        """The latency that users see. A closed loop measures only the service time."""
        return "service" if self.started.closed_loop else "response"

    @property
    def biggest(self) -> list[str]:
        """The ROUTES_MAX busiest routes, whose latency over time is shown."""
        return [route for route, _ in self.so_far.routes[:ROUTES_MAX]]

    def happened(self, at_s: float, text: str, *, is_bad: bool = False) -> None:
        """Add an event to the list. The oldest are dropped, except for the start."""
        self.events.append(Event(at_s, text, is_bad))
        if len(self.events) > EVENTS_MAX:
            del self.events[1]
            self.events_left_out += 1

    def take(self, second: Second, deltas: Deltas) -> None:
        """Add one second."""
        self.standings = self.so_far.take(second, deltas)
        self.history.add(second, deltas.counters.get("retries", 0))
        wanted = {tag_over_all(kind): kind for kind in LATENCIES_SHOWN}
        histograms = {
            wanted[delta.tag]: delta.histogram for delta in deltas.histograms if delta.tag in wanted
        }
        for kind in HEAT_KINDS:
            if kind in histograms:
                self.history.add_column(kind, second.t_s, histograms[kind])
        if second.length_s >= SHORT_S or self.last is None:
            self.last, self.last_histograms = second, histograms
        self.route_heat.take(deltas, self.biggest)
        for event in deltas.events:
            self.happened(event.at_s, event.text or event.kind, is_bad=event.kind != "address")
        self._follow_breaches(second)

    def _follow_breaches(self, second: Second) -> None:
        at_s = round(second.t_s + second.length_s, 3)
        for standing in self.standings:
            if standing.met_now is None:
                continue
            was_in_breach = self._in_breach.get(standing.text, False)
            if not standing.met_now and not was_in_breach:
                self.happened(at_s, f"breach of {standing.text}: {standing.now}", is_bad=True)
            elif standing.met_now and was_in_breach:
                self.happened(at_s, f"recovery of {standing.text}: {standing.now}")
            self._in_breach[standing.text] = not standing.met_now

    def end(self, document: RunDocument) -> None:
        """Add the document of the run, which has ended and is saved."""
        self.document = msgspec.json.decode(msgspec.json.encode(document), type=examined(RunDocument))
        how = document.ending.how
        words = "end" if how == "whole" else f"end: {document.ending.detail or how}"
        failed = failed_words(failures_of(document))
        words += f"; {document.validity.verdict}" + (f"; {failed}" if failed else "")
        self.happened(round(document.duration_s, 3), words, is_bad=bool(failed) or how != "whole")
        latency = getattr(document.latency, self.usual)
        p99 = format_latency(latency.p99_ns) if isinstance(latency, Latency) else ""
        ended = EndedRun(
            self.number, document.target, document.accounts.sent, p99, document.validity.verdict, failed
        )
        self.ended = [*self.ended, ended][-RUNS_MAX:]
