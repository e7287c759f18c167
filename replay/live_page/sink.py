"""The live page as a sink: adds the seconds of each run to the feed, and the sections while there are viewers."""

from __future__ import annotations

import msgspec

from replay.results.deltas import Deltas
from replay.results.document import RunDocument, Started
from replay.results.timeline import Second

from .feed import Feed
from .sections import chart_sections, figure_sections, sections_of, waiting_sections
from .view import View


class LiveSink:
    """A sink for all runs of a command (`replay.engine.sinks`)."""

    name = "live page"

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._view: View | None = None
        self._drawn_s = 0.0
        feed.draw(waiting_sections("The run has not begun."))

    @property
    def is_interrupted(self) -> bool:
        """Whether the last run was interrupted. If so, the page is not kept open after it."""
        document = self._view.document if self._view is not None else None
        return document is not None and document.ending.how == "interrupted"

    def waiting(self, words: str) -> None:
        """Show what the page waits for."""
        self._feed.draw(waiting_sections(words))

    def start(self, started: Started) -> None:
        """Begin the page of a new run."""
        before = self._view
        self._view = (
            View(started, 1, []) if before is None else View(started, before.number + 1, before.ended)
        )
        self._drawn_s = 0.0
        facts = {"run": self._view.number, "run_id": started.run_id, "target": started.target}
        self._feed.append("start", msgspec.json.encode(facts))
        self._feed.draw(sections_of(self._view))

    def second(self, second: Second, deltas: Deltas) -> None:
        """Add one second: the row as in timeline.jsonl, and, if there are viewers, the sections."""
        view = self._view
        assert view is not None
        self._feed.append("second", b'{"run":%d,"row":%s}' % (view.number, msgspec.json.encode(second)))
        view.take(second, deltas)
        if not self._feed.viewers:
            return
        self._feed.draw(figure_sections(view))
        column_s = view.history.rows[0].length_s if view.history.rows else 0.0
        now_s = second.t_s + second.length_s
        # In a long run a column covers many seconds, so the charts are redrawn only after the length of a column.
        if now_s - self._drawn_s >= column_s - 0.5 or self._drawn_s == 0.0:
            self._drawn_s = now_s
            self._feed.draw(chart_sections(view))

    def end(self, document: RunDocument) -> None:
        """Show the sections of the report, because the run has ended and is saved."""
        view = self._view
        assert view is not None
        view.end(document)
        self._feed.draw(sections_of(view))
        facts = {"run": view.number, "verdict": document.validity.verdict, "how": document.ending.how}
        self._feed.append("end", msgspec.json.encode(facts))

    def close(self) -> None:
        """Do nothing: the feed continues, because another run may follow."""
