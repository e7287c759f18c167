"""The recording of a run: the recorder computes each second, and sinks write it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import msgspec

from replay.errors import OutputError
from replay.ledger import host
from replay.results.assemble import assemble, write_document
from replay.results.deltas import RunEvent
from replay.results.document import (
    AnswerFigures,
    Ending,
    KafkaFigures,
    NameFigures,
    Note,
    RunDocument,
    SourceFigures,
    SourceSoFar,
    Started,
    TraceIdentity,
    WatchFigures,
)
from replay.results.facts import Facts
from replay.results.folder import RunFolder
from replay.results.recorder import Recorder
from replay.results.samples import Lookup
from replay.results.timeline import Second
from replay_native.ledger.lane_metrics import LaneMetrics

from .sinks.interface import Sink
from .sinks.run_folder import RunFolderSink
from .sinks.threads import SinkThreads


class _Ended(NamedTuple):
    """The last tick of a run: its time (CLOCK_MONOTONIC), and the machine's counters at that time."""

    at_ns: int
    load: host.HostLoad
    run_delay: host.RunDelay | None


class Recording:
    """The recorder of a run with its sinks: first the run folder, then the run's own sinks, then all others."""

    def __init__(
        self,
        folder: RunFolder,
        all_metrics: Sequence[LaneMetrics],
        started: Started,
        sinks: Sequence[Sink] = (),
        others: SinkThreads | None = None,
    ) -> None:
        """Write the facts known at the start.

        Raises OutputError if the disk is full, UsageError for an invalid objective.
        """
        self._folder, self._all_metrics, self._started = folder, list(all_metrics), started
        self._others = others or SinkThreads(())
        self._recorder = Recorder(all_metrics, started, every_total=self._others.want_every_total)
        self._folder_sink = RunFolderSink(folder, self._recorder.logged)
        self._sinks: list[Sink] = [self._folder_sink, *sinks, self._others]
        try:
            for sink in self._sinks:
                sink.start(started)
        except BaseException:
            self.close()
            raise
        self._load, self._threads = host.load(), host.threads()
        self._sink_notes: list[Note] = []
        self._ended: _Ended | None = None

    def started_changed(self) -> None:
        """Write started.json again, because routes of a followed source got names.

        If the disk is full, the older file stays.
        """
        with contextlib.suppress(OutputError):
            self._folder.write(self._folder.started, msgspec.json.encode(self._started))

    def source_changed(self, so_far: SourceSoFar) -> None:
        """Save the account of a followed source, so that this run can be recovered if it is killed.

        A kill does not lose written data, so the data is not flushed to the disk. If the disk is full, the older
        account stays.
        """
        with contextlib.suppress(OutputError):
            self._folder.write(self._folder.source, msgspec.json.encode(so_far), durable=False)

    def tick(
        self,
        now_ns: int,
        *,
        last: bool = False,
        lag: dict[str, int] | None = None,
        watched: dict[str, float | None] | None = None,
        events: Sequence[RunEvent] = (),
    ) -> Second:
        """Pass the counts since the last tick to every sink, and return the row of the timeline.

        The run ends with its `last` tick. Raises OutputError if the disk of the folder is full.
        """
        if last:
            # If the run is interrupted before its first request is due, its length is 0, not negative.
            ended_ns = max(now_ns, self._started.start.monotonic_ns)
            self._ended = _Ended(ended_ns, host.load(), self._run_delay())
        second, deltas = self._recorder.tick(now_ns, last=last, lag=lag, watched=watched)
        if events:
            deltas = replace(deltas, events=tuple(events))
        for sink in self._sinks:
            sink.second(second, deltas)
        return second

    def finish(self, now_ns: int, **facts: Any) -> RunDocument:
        """Complete the run folder, and remove the lanes' memory when everything is safely on the disk.

        The last tick is computed if that is not done yet. `facts` are the arguments of `_assembled`. Raises
        OutputError if there is no space; the lanes' memory then stays, so that `replay.results.recover` can still
        complete the folder.
        """
        ending = facts.get("ending")
        try:
            if self._ended is None:
                self.tick(now_ns, last=True)
            self._folder_sink.close_logs()
        except OutputError:
            if ending is None or ending.how != "failed":
                raise
            # The logs of a failed run may be incomplete. The totals do not depend on them.
        assert self._ended is not None
        document = self._assembled(self._ended, **facts)
        for sink in self._sinks:
            sink.end(document)
        self.close()
        return document

    def _assembled(
        self,
        ended: _Ended,
        *,
        ending: Ending | None = None,
        control_cpu_s: float = 0.0,
        lookup: Lookup | None = None,
        skipped: dict[str, int] | None = None,
        lanes_lost: int = 0,
        kafka: Sequence[KafkaFigures | None] = (),
        notes: Sequence[Note] = (),
        names: Sequence[NameFigures] = (),
        watches: Sequence[WatchFigures] = (),
        answers: AnswerFigures | None = None,
        source: SourceFigures | None = None,
        trace: TraceIdentity | None = None,
    ) -> RunDocument:
        """Write run.json with its histograms and samples, and return it.

        `lookup(seqs)` finds the recorded rows of sampled requests; `kafka` has the figures of each target.
        """
        self._sink_notes = self._others.notes()
        facts = Facts(
            ending=ending or Ending(at_s=self._recorder.last_s),
            ended_ns=ended.at_ns,
            control_cpu_s=control_cpu_s,
            skipped=self._started.skipped if skipped is None else skipped,
            lanes_lost=lanes_lost,
            throttled_share=host.throttled_share(self._load, ended.load),
            steal_share=host.steal_share(self._load, ended.load),
            run_delay=ended.run_delay,
            peak_rss_bytes=host.peak_rss_bytes(),
            kafka=list(kafka),
            notes=[*notes, *self._sink_notes],
            names=list(names),
            watches=list(watches),
            answers=answers,
            source=source,
            trace=trace,
        )
        return assemble(self._folder, self._all_metrics, self._started, facts, lookup)

    def _run_delay(self) -> host.RunDelay | None:
        """Return how long the lanes' threads waited for a CPU.

        The portable engine runs its lanes in this thread, the native engine in other threads. Threads of sinks do not
        count.
        """
        portable, own = self._started.engine == "portable", threading.get_native_id()
        others = self._others.thread_ids()
        now = {
            thread: load
            for thread, load in host.threads().items()
            if (thread == own) == portable and thread not in others
        }
        return host.run_delay(self._threads, now, len(self._all_metrics))

    def with_last_notes(self, document: RunDocument) -> RunDocument:
        """Return the document, written again if the notes on sinks have changed since it was written."""
        notes = self._others.notes()
        if notes == self._sink_notes:
            return document
        kept = [note for note in document.notes if note not in self._sink_notes]
        document = msgspec.structs.replace(document, notes=[*kept, *notes])
        with contextlib.suppress(OutputError):  # The run is already saved, without these notes.
            write_document(self._folder, document)
        return document

    def close(self) -> None:
        """Close every sink, even after a failed run. Written data stays, and can be recovered."""
        for sink in self._sinks:
            sink.close()
