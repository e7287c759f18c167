"""The interface of a source that is followed during a run, such as a growing log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from replay.results.document import ClockPair, Note, RouteStart, SourceFigures, SourceSoFar, TraceIdentity
from replay_native.ledger.lane_metrics import LaneMetrics


class LiveSource(Protocol):
    """Feeds the schedule during the run, and accounts for every entry at its end."""

    drain_s: float
    """How long requests in flight may take to end after a signal."""

    def begin(self, start: ClockPair, routes: list[RouteStart], metrics: Sequence[LaneMetrics]) -> None:
        """Begin to read: the run starts at `start`.

        Routes that are found later replace unused rows of `routes`. `metrics` are those of the lanes.
        """
        ...

    async def watch(self, end: Callable[[str, str], None], changed: Callable[[], None]) -> None:
        """Watch the source until cancelled.

        `end(how, detail)` stops the run; `changed()` reports that routes have new names.
        """
        ...

    def finish(self, why: str) -> None:
        """Stop reading: the run ends when everything that is due by now has ended."""
        ...

    def why_ended(self) -> str:
        """Return why the source ended, as a sentence; empty while it continues."""
        ...

    def failed(self) -> bool:
        """Return whether the source ended because it could not be read."""
        ...

    def so_far(self) -> SourceSoFar:
        """Return the account of the entries until now, without the number of entries that were not due."""
        ...

    def figures(self, planned: int) -> SourceFigures:
        """Return the counts of the entries, of which `planned` requests were due."""
        ...

    def identity(self) -> TraceIdentity:
        """Return the identity of the followed source, which run.json has in place of that of a trace."""
        ...

    def recorded_routes(self) -> None:
        """Add the recorded status classes of each route to the routes that `begin` was given."""
        ...

    def notes(self) -> list[Note]:
        """Return the notes on the source for run.json, such as entries that were not due."""
        ...
