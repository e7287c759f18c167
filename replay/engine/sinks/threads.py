"""Runs each sink in its own thread, behind a bounded queue.

A sink may be code of a third party. It may raise, take longer than a second for each second, or never return. The
run must not wait for it and must not fail with it, so the recorder only puts each second into a queue. A full
queue drops the second. Each loss and its reason become a note in run.json and in the report.

A thread that hangs cannot be ended. It is a daemon thread, so that the process can end without it.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Iterable, Sequence
from typing import Any

import trio

from replay.engine.priority import CONTROL_NICE
from replay.results.deltas import Deltas
from replay.results.document import Note, RunDocument, Started
from replay.results.timeline import Second
from replay.shown import shown
from replay.units import counted

from .interface import Sink, name_of

QUEUED_MAX = 60
"""When this many calls wait for a slow sink, further seconds are dropped until the queue is shorter."""

LEAVE_S = 2.0
"""The longest time of each wait for the sinks at the end of a run."""

SINK_NOTES = (SINK_FAILED, SINK_BEHIND) = ("SINK_FAILED", "SINK_BEHIND")
"""The codes of the notes on sinks."""

_POLL_S = 0.005
_ERROR_KEPT = 200
"""The maximum number of characters of an error's message in a note."""


class SinkThread:
    """One sink in its own thread. The run's thread queues calls; this thread makes them, in order."""

    def __init__(self, sink: Sink) -> None:
        self.name = name_of(sink)
        self.noted = getattr(sink, "noted", True)
        """Whether the run notes the sink's losses. A sink with `noted = False`, such as the screen, is left out."""
        self.wants_every_total = getattr(sink, "every_total", True)
        """Whether it needs histograms over all routes that the run folder does not keep. The screen does not."""
        self._sink = sink
        self._calls: queue.SimpleQueue[tuple[str, tuple[Any, ...]]] = queue.SimpleQueue()
        self._queued = self._returned = 0
        self._seconds = self._written = self._raised = 0
        self._errors: dict[str, str] = {}
        self.is_given_up = False
        self._thread = threading.Thread(target=self._run, name=f"sink {self.name}", daemon=True)

    def begin(self) -> None:
        """Start the thread."""
        self._thread.start()

    def call(self, method: str, *arguments: object) -> None:
        """Queue a call. A second is dropped if QUEUED_MAX calls are waiting."""
        if method == "second":
            self._seconds += 1
            if self._queued - self._returned >= QUEUED_MAX:
                return
        self._queued += 1
        self._calls.put((method, arguments))

    @property
    def native_id(self) -> int | None:
        """The system's thread id; None before the thread has begun."""
        return self._thread.native_id

    @property
    def is_idle(self) -> bool:
        """Whether every call that was queued has returned."""
        return self._returned >= self._queued

    def give_up(self) -> None:
        """Make no further calls after the current one, except `close`."""
        self.is_given_up = True

    def _run(self) -> None:
        thread = threading.get_native_id()
        with contextlib.suppress(OSError):
            os.setpriority(
                os.PRIO_PROCESS, thread, max(os.getpriority(os.PRIO_PROCESS, thread), CONTROL_NICE)
            )
        method = ""
        while method != "close":
            method, arguments = self._calls.get()
            if method == "close" or not (self.is_given_up or "start" in self._errors):
                self._make(method, arguments)
            self._returned += 1

    def _make(self, method: str, arguments: tuple[Any, ...]) -> None:
        try:
            getattr(self._sink, method)(*arguments)
        except BaseException as error:  # Any exception of the sink, even SystemExit, must end only this call.
            text = " ".join(f"{type(error).__name__}: {error}".rstrip(": ").split())[:_ERROR_KEPT]
            self._errors.setdefault(method, text)
            self._raised += method == "second"
        else:
            self._written += method == "second"

    def notes(self) -> list[Note]:
        """Return the sink's losses so far, with the reason; empty if there are none."""
        if not self.noted:
            return []
        notes = []
        if self._errors:
            method, text = next(iter(self._errors.items()))
            words = f"the sink {self.name} failed in {method}(): {text}"
            notes.append(Note(SINK_FAILED, shown(words + self._lost(self._raised))))
        late = self._seconds - self._written - self._raised
        if "start" in self._errors or not (late or self.is_given_up):
            return notes
        words = f"the sink {self.name} was too slow"
        if self.is_given_up:
            words = f"the sink {self.name} had not ended {LEAVE_S:g} s after the run, and was left behind"
        notes.append(Note(SINK_BEHIND, shown(words + self._lost(late))))
        return notes

    def _lost(self, seconds: int) -> str:
        if "start" in self._errors:
            return "; it wrote nothing"
        return f"; it lost {seconds:,} of {counted(self._seconds, 'second')}" if seconds else ""


class SinkThreads:
    """All threaded sinks of a run, as one sink whose four methods return at once and never raise."""

    def __init__(self, sinks: Iterable[Sink]) -> None:
        self._threads = [SinkThread(sink) for sink in sinks]
        self._begun = self._closed = False

    def __len__(self) -> int:
        return len(self._threads)

    @property
    def want_every_total(self) -> bool:
        """Whether any sink needs each histogram over all routes in every second."""
        return any(thread.wants_every_total for thread in self._threads)

    def thread_ids(self) -> set[int]:
        """Return the system's ids of the sinks' threads."""
        return {number for thread in self._threads if (number := thread.native_id) is not None}

    def start(self, started: Started) -> None:
        """Start the threads. After this call `close` must be called."""
        self._begun = True
        for thread in self._threads:
            thread.begin()
        self._call("start", started)

    def second(self, second: Second, deltas: Deltas) -> None:
        """Queue a second for each sink."""
        self._call("second", second, deltas)

    def end(self, document: RunDocument) -> None:
        """Queue the document for each sink."""
        self._call("end", document)

    def close(self) -> None:
        """Queue the last call of each sink. A second call has no effect."""
        if self._begun and not self._closed:
            self._closed = True
            self._call("close")

    def _call(self, method: str, *arguments: object) -> None:
        for thread in self._threads:
            thread.call(method, *arguments)

    async def caught_up(self) -> None:
        """Wait until every sink has processed its queue, for LEAVE_S at most; the others are given up.

        A cancellation waits for that, too. An interrupt ends the waiting, not the run.
        """
        with (
            trio.CancelScope(shield=True),
            contextlib.suppress(KeyboardInterrupt),
            trio.move_on_after(LEAVE_S),
        ):
            while self._busy():
                await trio.sleep(_POLL_S)
        for thread in self._busy():
            thread.give_up()

    def _busy(self) -> Sequence[SinkThread]:
        return [
            thread for thread in self._threads if self._begun and not (thread.is_idle or thread.is_given_up)
        ]

    def notes(self) -> list[Note]:
        """Return the losses of the sinks so far."""
        return [note for thread in self._threads for note in thread.notes()]
