"""Samples all watched figures of a run, once per second, without delaying it.

Each figure has its own task, whose samples are taken in a thread. A source that takes longer than a second has fewer
samples. The seconds between them are empty, and are never filled with an old value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import trio

from replay.results.figures import WatchFigures
from replay.settings.groups.output import SOURCES, Watch
from replay.settings.scenario import Kafka

from .sources import Command, Members, Permitted, Sample, SampleError, source_of

PERIOD_S = 1.0


@dataclass(slots=True)
class _Watched:
    watch: Watch
    sample: Sample
    fresh: dict[str, float | None] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)
    """The number of samples by figure. A watched JSON object may have several figures."""
    failed: int = 0
    reason: str = ""

    def __post_init__(self) -> None:
        if not self.watch.members:
            self.names[self.watch.name] = 0

    def add(self, sample: float | Members) -> None:
        """Store a sample as the newest one of its figure; an object has one sample for each of its figures."""
        prefix = f"{self.watch.name}." if self.watch.name else ""
        of = {prefix + name: value for name, value in sample.items()} if isinstance(sample, dict) else None
        for name, value in ({self.watch.name: sample} if of is None else of).items():
            self.fresh[name] = value  # type: ignore[assignment]
            self.names[name] = self.names.get(name, 0) + 1

    def take(self) -> dict[str, float | None]:
        """Return the newest sample of each figure since the last call; None for a figure without one."""
        taken = dict.fromkeys(self.names) | self.fresh
        self.fresh = {}
        return taken

    @property
    def source(self) -> str:
        """Return the setting that defines the source of the figure, one of SOURCES."""
        return next(name for name in SOURCES if getattr(self.watch, name))


class Sampler:
    """Samples the watched figures of a run."""

    def __init__(self, watches: Sequence[Watch], permitted: Permitted, kafka: Kafka = Kafka()) -> None:  # noqa: B008 - frozen
        """Prepare the sources of all figures.

        Only loopback and hosts that are `permitted` are queried. `kafka` holds the settings of connections to Kafka.
        """
        self._all = [_Watched(watch, source_of(watch, permitted, kafka)) for watch in watches]

    async def run(self) -> None:
        """Sample until cancelled."""
        limiter = trio.CapacityLimiter(max(len(self._all), 1))
        try:
            async with trio.open_nursery() as nursery:
                for watched in self._all:
                    nursery.start_soon(self._sample, watched, limiter)
        finally:
            for watched in self._all:
                if isinstance(watched.sample, Command):
                    watched.sample.stop()

    async def _sample(self, watched: _Watched, limiter: trio.CapacityLimiter) -> None:
        due_s = trio.current_time()
        while True:
            try:
                watched.add(
                    await trio.to_thread.run_sync(watched.sample, limiter=limiter, abandon_on_cancel=True)
                )
            except SampleError as error:
                watched.failed += 1
                watched.reason = watched.reason or str(error)
            due_s = max(due_s + PERIOD_S, trio.current_time())
            await trio.sleep_until(due_s)

    def take(self) -> dict[str, float | None]:
        """Return the newest sample of each figure since the last call; None for a figure without one.

        If two figures have the same name, the first one counts.
        """
        taken: dict[str, float | None] = {}
        for watched in self._all:
            taken = watched.take() | taken
        return taken

    def figures(self) -> list[WatchFigures]:
        """Return the number of samples and failures of each figure.

        Failures of an object count for each of its figures. If two figures have the same name, the samples of the second
        one count as failures.
        """
        found: dict[str, WatchFigures] = {}
        for watched in self._all:
            for name, samples in (
                watched.names or {watched.watch.name or watched.watch.json.partition("?")[0]: 0}
            ).items():
                if name in found:
                    reason = f"another figure is called {name}, too"
                    found[name] = msgspec.structs.replace(
                        found[name], failed=found[name].failed + samples, reason=reason
                    )
                    continue
                found[name] = WatchFigures(
                    name=name,
                    source=watched.source,
                    samples=samples,
                    failed=watched.failed,
                    reason=watched.reason,
                    limit=watched.watch.limit,
                )
        return list(found.values())
