"""The four methods of a sink."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from replay.results.deltas import Deltas
from replay.results.document import RunDocument, Started
from replay.results.timeline import Second

METHODS = ("start", "second", "end", "close")


@runtime_checkable
class Sink(Protocol):
    """Receives the figures of a run while it is in progress.

    Subclass it and override the methods that you need: each does nothing by default. The calls come from one
    thread, in this order: `start` once, `second` about once per second, `end` if the run was saved, and always
    `close` at the end. An exception from a method is counted and reported; the run continues.
    """

    def start(self, started: Started) -> None:
        """Receive the facts of the run before the first request is due: target, routes, scenario, start time."""
        return None

    def second(self, second: Second, deltas: Deltas) -> None:
        """Receive the results of one second: the row of timeline.jsonl, and everything that was counted."""
        return None

    def end(self, document: RunDocument) -> None:
        """Receive the run.json of the run, after it was saved."""
        return None

    def close(self) -> None:
        """Release the sink's resources. Called once after `start`, even if `start` failed."""
        return None


def name_of(sink: object) -> str:
    """Return a sink's name in reports: its `name`, or the name of its class."""
    name = getattr(sink, "name", "")
    return name if isinstance(name, str) and name else type(sink).__name__


def lacking(sink: object) -> list[str]:
    """Return the methods that an object lacks to be a sink."""
    return [method for method in METHODS if not callable(getattr(sink, method, None))]


@runtime_checkable
class LingeringSink(Protocol):
    """A sink that may need more time after the run, such as a port that has not been scraped yet.

    The command gives it that time after printing the report; a program that calls `replay.run` may do the same.
    """

    def lingering(self) -> str:
        """Return the reason for waiting, as a sentence; empty if there is none."""

    def linger(self) -> str:
        """Wait, and return a sentence to print, such as a warning; empty if there is nothing to report."""
