"""The log of a twin: one JSON object per line, for each event with its reason."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

LINES_PER_S = 20
"""The maximum number of events per second, service and kind that get a line each. The others are counted in one line."""

WHATS = {
    "started": "the twin is ready",
    "stopped": "the twin stops",
    "died": "a process of the twin died",
    "set": "a setting was changed",
    "set_failed": "a process of the twin did not apply a changed setting",
    "queue_full": "a queue was full: the request got 503",
    "waited_too_long": "a request waited longer than `queue_wait`: it got 503",
    "pool_full": "too many requests waited for a database connection",
    "pool_timeout": "a request waited longer than `database.wait` for a connection",
    "stale_read": "a read replica lacked a client's own last write",
    "timed_out": "a call took longer than its time limit",
    "call_failed": "a call was refused, cut off, or answered with 5xx",
    "gave_up": "a call that may be retried failed, and no further retry is made",
    "abandoned": "the caller disconnected before its answer was ready: the work was wasted",
    "retry": "a call is retried",
    "retry_of_retry": "a call is retried for a request that is itself a retry",
    "budget_spent": "the retry budget is spent: no retry",
    "in_flight_limit": "too many concurrent calls: one failed at once",
    "breaker_open": "a circuit breaker opened",
    "breaker_probing": "a circuit breaker lets probe calls through",
    "breaker_closed": "a circuit breaker closed",
    "loop": "a request followed a cycle of calls: it got 508",
    "name_failed": "a name could not be looked up",
    "quota_hit": "a query over the quota of the name server got SERVFAIL",
    "cache_emptied": "a cache was emptied",
    "cache_filled": "a cache was filled with its most popular keys",
    "stampede": "several requests compute the same missing entry",
    "scaling_up": "the autoscaler starts replicas",
    "scaled_up": "a new replica serves",
    "scaled_down": "the autoscaler ended replicas",
    "at_most": "the autoscaler wanted more replicas than `max`",
    "jobs_full": "a queue of jobs or messages was full: the request got 503",
    "job_retry": "a background job or message is retried",
    "job_dead": "a background job or message failed after its last retry",
    "dead_dropped": "the dead set was full: its oldest job or message was dropped",
}
"""Every kind of event that can be logged, with its meaning."""


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
        """Log an event of the kind `what`, with its reason and further members."""
        assert what in WHATS, what
        key = (service, what)
        count = self._counts[key] = self._counts.get(key, 0) + 1
        if count <= LINES_PER_S:
            self._write({"at_ns": self._clock_ns(), "service": service, "what": what, "why": why, **more})

    def tick(self) -> None:
        """Log the counts of events that got no line of their own. Call it each second."""
        # The name server's thread also calls `note`, so this dictionary is replaced before it is read.
        counts, self._counts = self._counts, {}
        for (service, what), count in counts.items():
            if count > LINES_PER_S:
                more = count - LINES_PER_S
                why = f"{more:,} more of these in this second"
                self._write(
                    {"at_ns": self._clock_ns(), "service": service, "what": what, "why": why, "more": more}
                )

    def close(self) -> None:
        """Write the remaining counts, and close the file."""
        self.tick()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _write(self, event: dict[str, object]) -> None:
        if self._descriptor >= 0:
            os.write(self._descriptor, self._encoder.encode(event) + b"\n")
