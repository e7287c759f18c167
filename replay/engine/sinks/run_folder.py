"""The run folder as a sink: `started.json` at the start, and intervals and rows during the run."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Collection

import msgspec

from replay.errors import OutputError
from replay.results import hlog
from replay.results.deltas import Deltas
from replay.results.document import RunDocument, Started
from replay.results.folder import AppendFile, RunFolder
from replay.results.timeline import Second


class RunFolderSink:
    """Writes `started.json`, `latency.hlog` and `timeline.jsonl`.

    It locks `started.json` while it is open: a folder whose lock is free may be recovered
    (`replay.results.recover`).
    """

    def __init__(self, folder: RunFolder, logged: Collection[str]) -> None:
        """Prepare to write.

        `logged` are the tags of histograms over all routes that latency.hlog contains; it contains all histograms
        by route.
        """
        self._folder, self._logged = folder, logged
        self._lock_fd = -1
        self._logs: list[AppendFile] = []

    def start(self, started: Started) -> None:
        """Open the logs, and write `started.json`. Raises OutputError if the disk is full.

        `started.json` makes the folder one that can be recovered. It comes last, so that the folder of a run that is
        killed at this moment has both logs or is not a run yet.
        """
        self._logs.append(AppendFile(self._folder.latency))
        self._logs[0].append(hlog.header(started.start.wall_ns))
        self._logs.append(AppendFile(self._folder.timeline))
        self._folder.write(self._folder.started, msgspec.json.encode(started))
        self._lock_fd = os.open(self._folder.started, os.O_RDONLY | os.O_CLOEXEC)
        fcntl.flock(self._lock_fd, fcntl.LOCK_EX)

    def second(self, second: Second, deltas: Deltas) -> None:
        """Append a second to both logs.

        Raises OutputError if the disk is full; lines that were written before stay whole.
        """
        latency, timeline = self._logs
        latency.append(
            b"".join(
                hlog.line(delta.tag, delta.since_s, delta.length_s, delta.histogram)
                for delta in deltas.histograms
                if delta.tag in self._logged or delta.route
            )
        )
        timeline.append(msgspec.json.encode(second) + b"\n")

    def close_logs(self) -> None:
        """Flush both logs to the disk and close them. Raises OutputError if that fails."""
        with contextlib.ExitStack() as stack:
            for log in self._logs:
                stack.callback(log.close)

    def end(self, document: RunDocument) -> None:
        """Release the lock, because the folder is complete."""
        self._release()

    def close(self) -> None:
        """Close the files, also those of a run that failed. Written data can be recovered."""
        with contextlib.suppress(OutputError):
            self.close_logs()
        self._release()

    def _release(self) -> None:
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1
