"""The four methods of a sink."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from replay.results.deltas import Deltas
from replay.results.document import RunDocument, Started
from replay.results.timeline import Second

METHODS = ("start", "second", "end", "close")


@runtime_checkable
class Sink(Protocol):
    """Writes a run down while it goes. Subclass it and override what you need: each method does nothing by default.

    The calls come in this order, all from one thread: `start` once, `second` about once per second, `end` where the run
    was saved, `close` always, last. Whatever a method raises is counted and reported; the run goes on.
    """

    def start(self, started: Started) -> None:
        """Before the first request is due: target, routes, scenario, start time."""
        return None

    def second(self, second: Second, deltas: Deltas) -> None:
        """What happened in one second: the row of timeline.jsonl, and everything that was counted."""
        return None

    def end(self, document: RunDocument) -> None:
        """The run is over and saved; `document` is its run.json."""
        return None

    def close(self) -> None:
        """Release what the sink holds. Called once after `start`, also where `start` failed."""
        return None


def name_of(sink: object) -> str:
    """What reports call a sink: its `name`, or its class."""
    name = getattr(sink, "name", "")
    return name if isinstance(name, str) and name else type(sink).__name__


def lacking(sink: object) -> list[str]:
    """The methods that an object lacks to be a sink."""
    return [method for method in METHODS if not callable(getattr(sink, method, None))]


@runtime_checkable
class LingeringSink(Protocol):
    """A sink that may need more time after the run, such as a port that is still to be scraped. The command asks it once the
    report was printed; a program that runs `replay.run` may do the same.
    """

    def lingering(self) -> str:
        """What it still waits for, in a sentence; empty if nothing."""

    def linger(self) -> str:
        """Waits for it. Returns a warning if it did not come, else an empty string."""
