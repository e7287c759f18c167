"""What a run needs of a source that is followed while it goes on, such as a growing log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from replay.results.document import ClockPair, Note, RouteStart, SourceFigures, TraceIdentity
from replay_native.ledger.lane_metrics import LaneMetrics


class LiveSource(Protocol):
    """Feeds the schedule of a run while the run goes on, and says at its end what became of every entry."""

    drain_s: float
    """How long requests in flight may take to end after a signal."""

    def begin(self, start: ClockPair, routes: list[RouteStart], metrics: Sequence[LaneMetrics]) -> None:
        """The run starts at `start`. New routes take the place of unused rows of `routes`."""
        ...

    async def watch(self, end: Callable[[str, str], None], changed: Callable[[], None]) -> None:
        """Look after the source until cancelled. `end(how, detail)` breaks the run off; `changed()` says that routes have
        got other names.
        """
        ...

    def finish(self, why: str) -> None:
        """Read no more: the run ends once what is due by now has ended."""
        ...

    def why_ended(self) -> str:
        """Why the source ended, as a sentence; empty while it goes on."""
        ...

    def failed(self) -> bool:
        """Whether it ended because the source could not be read."""
        ...

    def figures(self, planned: int) -> SourceFigures:
        """What became of the entries, of which `planned` requests were due."""
        ...

    def identity(self) -> TraceIdentity:
        """What was followed, in place of the trace of other runs."""
        ...

    def recorded_routes(self) -> None:
        """Add to the routes what was recorded of each."""
        ...

    def notes(self) -> list[Note]:
        """What is worth knowing about the source."""
        ...
