"""The log of a twin: one JSON object per line, of what happened and why."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

LINES_PER_S = 20
"""Events of one kind at one service that are logged singly per second. The rest is counted in one line."""

WHATS = {
    "started": "a process of the twin serves",
    "stopped": "a process of the twin ends",
    "died": "a process of the twin ended by itself",
    "set": "a setting was changed",
    "set_failed": "a process of the twin did not take over a changed setting",
    "queue_full": "a queue was at its bound: the request got 503",
    "waited_too_long": "a request waited longer than `queue_wait`: it got 503",
    "pool_full": "too many requests waited for a database connection",
    "pool_timeout": "a request waited longer than `database.wait` for a connection",
    "stale_read": "a read replica lacked a client's own last write",
    "timed_out": "a call took longer than its time limit",
    "call_failed": "a call failed: refused, reset, or answered with 5xx",
    "gave_up": "a call failed for good, after its last retry",
    "abandoned": "the caller was gone before its answer was ready: the work was for nothing",
    "retry": "a call is tried again",
    "retry_of_retry": "a call is tried again for a request that is a retry itself",
    "budget_spent": "the retry budget is spent: no retry",
    "in_flight_limit": "too many calls at once: one failed at once",
    "breaker_open": "a circuit breaker opened",
    "breaker_probing": "a circuit breaker lets calls probe",
    "breaker_closed": "a circuit breaker closed",
    "loop": "a request went round in a cycle of calls: it got 508",
    "name_failed": "a name could not be looked up",
    "quota_hit": "a query over the quota of the name server got SERVFAIL",
    "cache_emptied": "a cache was emptied",
    "cache_filled": "a cache was filled with its most popular keys",
    "stampede": "several requests compute the same missing entry at once",
    "scaling_up": "the autoscaler starts replicas",
    "scaled_up": "a new replica serves",
    "scaled_down": "the autoscaler ended replicas",
    "at_most": "the autoscaler wanted more replicas than `max`",
    "jobs_full": "a job queue was at its bound",
    "job_retry": "a background job or message is tried again",
    "job_dead": "a background job or message failed for good",
    "dead_dropped": "the dead set was full: its oldest job is gone",
}
"""Every event that can be logged, and what it means."""


class EventLog:
    """Writes events. Any number of processes append to one file, each line in one write."""

    def __init__(self, path: Path | None, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._descriptor = -1
        if path is not None:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._descriptor = os.open(path, flags, 0o600)
        self._clock_ns = clock_ns
        self._counts: dict[tuple[str, str], int] = {}
        self._encoder = msgspec.json.Encoder()

    def note(self, service: str, what: str, why: str, **more: object) -> None:
        """Log an event."""
        assert what in WHATS, what
        key = (service, what)
        count = self._counts[key] = self._counts.get(key, 0) + 1
        if count <= LINES_PER_S:
            self._write({"at_ns": self._clock_ns(), "service": service, "what": what, "why": why, **more})

    def tick(self) -> None:
        """A second has passed: count what got no line."""
        # The name server adds notes from its own thread, so it gets a new dictionary before this one is read.
        counts, self._counts = self._counts, {}
        for (service, what), count in counts.items():
            if count > LINES_PER_S:
                more = count - LINES_PER_S
                why = f"{more:,} more of these in this second"
                self._write(
                    {"at_ns": self._clock_ns(), "service": service, "what": what, "why": why, "more": more}
                )

    def close(self) -> None:
        """Write what is left."""
        self.tick()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _write(self, event: dict[str, object]) -> None:
        if self._descriptor >= 0:
            os.write(self._descriptor, self._encoder.encode(event) + b"\n")
