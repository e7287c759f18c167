"""What the coordinator observes during a run: the watched figures, and each second of the whole run for the sinks.

Sinks (`--sink`, `--live`, `--notify`) run only here, and receive seconds that are summed from the agents' reports.
Figures from the target's side are sampled only on the coordinator's machine.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import trio

from replay.engine.sinks import Sink, make_sinks
from replay.engine.sinks.threads import SINK_NOTES, SinkThreads
from replay.errors import OutputError
from replay.plan.safety import allowed
from replay.results.assemble import write_document
from replay.results.deltas import RunEvent
from replay.results.document import ClockPair, RunDocument, Started
from replay.results.folder import RunFolder
from replay.settings.scenario import Scenario
from replay.units import SECOND_NS
from replay.watching.sampler import Sampler

from .merged_facts import Observed
from .messages import Report
from .whole_seconds import WholeSeconds


class Broadcast:
    """The sinks and the watched figures of one run over agents. A slow or failing sink does not affect the run."""

    def __init__(self, scenario: Scenario, sinks: Sequence[Sink | str] = ()) -> None:
        self._threads = SinkThreads(make_sinks(sinks))
        self._sampler = Sampler(scenario.watch, allowed(scenario), scenario.kafka)
        self._scenario = scenario.saved()
        self._samples: dict[int, dict[str, float | None]] = {}
        self._events: list[RunEvent] = []
        self._seconds = WholeSeconds(0)
        self._start = ClockPair(0, 0)
        self._has_started = False

    async def sample(self) -> None:
        """Sample the watched figures until cancelled."""
        await self._sampler.run()

    def begin(self, instant_ns: int, wall_ns: int) -> None:
        """Set the instant at which the first request is due, on CLOCK_MONOTONIC and in ns since the epoch."""
        self._start = ClockPair(instant_ns, wall_ns)
        self._seconds = WholeSeconds(wall_ns)

    def opened(self, started: Started, agents: int) -> None:
        """Start the sinks with the facts that the first agent sent about its start.

        Facts of later agents are ignored.
        """
        if self._has_started:
            return
        self._has_started = True
        self._threads.start(whole_started(started, agents, self._start, self._scenario))

    def reported(self, agent: int, name: str, report: Report) -> None:
        """Add an agent's report to the seconds of the whole run, if there are sinks."""
        if not len(self._threads):
            return
        self._seconds.add(agent, report)
        self._events += [RunEvent(at_s, kind, f"{name}: {text}") for at_s, kind, text in report.events]

    def happened(self, now_ns: int, kind: str, text: str) -> None:
        """Add an event that the coordinator noticed, at the instant `now_ns`."""
        self._events.append(RunEvent(round(max(self._elapsed_s(now_ns), 0.0), 3), kind, text))

    def tick(self, now_ns: int, expected: Collection[int]) -> None:
        """Take a sample of the watched figures once per second, and pass complete seconds to the sinks.

        `expected` are the agents that will still report.
        """
        elapsed_s = self._elapsed_s(now_ns)
        number = int(elapsed_s)
        if self._scenario["watch"] and number > 0 and number not in self._samples:
            self._samples[number] = self._sampler.take()
        while self._has_started and self._pass_on(elapsed_s, expected):
            pass

    def _elapsed_s(self, now_ns: int) -> float:
        """Return the seconds since the start; negative before it."""
        return (now_ns - self._start.monotonic_ns) / SECOND_NS if self._start.monotonic_ns else -1.0

    def _pass_on(self, elapsed_s: float, expected: Collection[int]) -> bool:
        """Pass the next second to the sinks, if it is complete, and return whether it was passed."""
        watched = self._samples.get(self._seconds.next, {})
        found = self._seconds.take(elapsed_s, expected, watched, self._events)
        if found is None:
            return False
        self._events = []
        self._threads.second(*found)
        return True

    async def finish(self) -> Observed:
        """Pass on the remaining seconds, wait for the sinks, and return what was observed.

        Call it after the agents have ended.
        """
        while self._has_started and self._seconds.has_more:
            self._pass_on(float("inf"), ())
        await self._threads.caught_up()
        figures = self._sampler.figures() if self._scenario["watch"] else []
        return Observed(self._scenario, self._samples, figures, self._threads.notes())

    def end(self, document: RunDocument, folder: Path) -> RunDocument:
        """End the sinks after the run is merged and saved, and return the document.

        If the sinks' notes have changed since, the document gets the new ones and is written again.
        """
        before = self._threads.notes()
        if self._has_started:
            self._threads.end(document)
        self.close()
        after = self._threads.notes()
        if after == before:
            return document
        notes = [note for note in document.notes if note.code not in SINK_NOTES]
        document = msgspec.structs.replace(document, notes=[*notes, *after])
        with contextlib.suppress(OutputError):  # The run is already saved, without these notes.
            write_document(RunFolder(folder), document)
        return document

    def close(self) -> None:
        """Close the sinks, including those of a run that failed."""
        self._threads.close()
        trio.run(self._threads.caught_up)


def whole_started(started: Started, agents: int, start: ClockPair, saved: Mapping[str, Any]) -> Started:
    """Return the facts of the start of the whole run, from those of one agent and the coordinator's scenario.

    Lanes are multiplied by the number of agents, and so are connections and threads if they are numbers.
    """
    replace = msgspec.structs.replace
    scenario = dict(saved)
    for key in ("connections", "threads"):
        if isinstance(count := started.scenario.get(key), int):
            scenario[key] = count * agents
    targets = [replace(target, lanes=target.lanes * agents) for target in started.targets]
    return replace(started, start=start, scenario=scenario, targets=targets)
