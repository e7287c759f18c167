"""Samples all watched figures of a run, once per second, without delaying it.

Each figure has a task of its own, whose samples are taken in a thread. A source that is slower than a second has fewer
samples; the seconds between them are empty, never filled with an old value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import trio

from replay.results.figures import WatchFigures
from replay.settings.groups.output import Watch

from .sources import Command, Permitted, Sample, SampleError, source_of

PERIOD_S = 1.0


@dataclass(slots=True)
class _Watched:
    watch: Watch
    sample: Sample
    fresh: float | None = None
    samples: int = 0
    failed: int = 0
    reason: str = ""


class Sampler:
    """The watched figures of a run."""

    def __init__(self, watches: Sequence[Watch], permitted: Permitted) -> None:
        """Only loopback and what is `permitted` is asked."""
        self._all = [_Watched(watch, source_of(watch, permitted)) for watch in watches]

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
                watched.fresh = await trio.to_thread.run_sync(
                    watched.sample, limiter=limiter, abandon_on_cancel=True
                )
                watched.samples += 1
            except SampleError as error:
                watched.failed += 1
                watched.reason = watched.reason or str(error)
            due_s = max(due_s + PERIOD_S, trio.current_time())
            await trio.sleep_until(due_s)

    def take(self) -> dict[str, float | None]:
        """The newest sample of each figure since the last call; None if there is none."""
        taken = {watched.watch.name: watched.fresh for watched in self._all}
        for watched in self._all:
            watched.fresh = None
        return taken

    def figures(self) -> list[WatchFigures]:
        """What was sampled and what failed, by figure."""
        return [
            WatchFigures(
                name=watched.watch.name,
                source="prometheus"
                if watched.watch.prometheus
                else "json"
                if watched.watch.json
                else "command",
                samples=watched.samples,
                failed=watched.failed,
                reason=watched.reason,
            )
            for watched in self._all
        ]
