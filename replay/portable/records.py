"""Records the requests of a portable lane, with the kernels that the native lane uses."""

from __future__ import annotations

import time

import numpy as np

from replay.lane.contract import LaneSpec
from replay_native.ledger.lane_metrics import MALFORMED, C
from replay_native.ledger.record import (
    Ending,
    record_done,
    record_evaluation,
    record_malformed,
    record_net,
    record_net_unsent,
    record_sent,
    record_unsent,
)
from replay_native.ledger.record import Request as DueRequest

from .protocol import Evaluated, Outcome, Request
from .waiting import Job


def _due_request(job: Job) -> DueRequest:
    """Return the fields of a request that are recorded."""
    request = job.request
    return DueRequest(request.flags, request.route, request.seq, request.client, job.due_ns, job.taken_ns)


class Records:
    """The metrics of one lane, updated as its requests change state."""

    def __init__(self, spec: LaneSpec) -> None:
        self._metrics, self._counters = spec.metrics, spec.metrics.counters
        self._closed_loop, self._max_wait_ns = spec.closed_loop, spec.max_wait_ns

    def _own_ns(self, job: Job) -> int:
        """Return the lane's own share of the time until a request was first sent, or until now if it was not."""
        return job.own_ns if job.sent_ns >= 0 else job.own_ns + int(self._counters[C.lost_ns])

    def unsent(self, job: Job, reason: int) -> None:
        """Count a request that will not be attempted; `reason` is a counter."""
        request = job.request
        waited_ns = time.monotonic_ns() - job.due_ns
        record_net_unsent(
            self._metrics,
            reason,
            request.route,
            request.flags,
            self._own_ns(job),
            waited_ns,
            self._max_wait_ns,
        )
        record_unsent(self._metrics, reason, _due_request(job), self._max_wait_ns)

    def sent(self, job: Job, now_ns: int, *, is_fresh: bool) -> None:
        """Record that a request is sent for the first time, on a new (`is_fresh`) or a reused connection."""
        job.own_ns = self._own_ns(job)
        job.sent_ns = now_ns
        record_sent(
            self._metrics, job.request.flags, now_ns - job.taken_ns, job.ready_ns - job.taken_ns, is_fresh,
            self._closed_loop,
        )  # fmt: skip

    def evaluated(self, job: Job, outcome: Outcome, evaluated: Evaluated) -> None:
        """Record the results of a route's rules for a complete response."""
        self._counters[C.answers_cut] += not evaluated.is_whole
        first_byte_ns = job.request.first_byte_ns
        ending = Ending(outcome.code, outcome.status, 0, job.sent_ns, first_byte_ns, time.monotonic_ns())
        record_evaluation(self._metrics, evaluated.found, _due_request(job), ending, self._closed_loop)

    def traffic(self, request: Request) -> None:
        """Count the bytes and interim responses of one attempt."""
        self._counters[C.bytes_sent] += request.bytes_sent
        self._counters[C.bytes_received] += request.bytes_received
        self._counters[C.informational] += request.informational

    def ended(self, job: Job, outcome: Outcome, unread_ns: int) -> None:
        """Record the end of a request.

        `unread_ns` is how long its response may have waited in the socket before the lane read it.
        """
        request, now = job.request, time.monotonic_ns()
        record_net(
            self._metrics, request.flags, job.due_ns, job.sent_ns, now, self._own_ns(job), unread_ns,
            self._closed_loop,
        )  # fmt: skip
        if outcome.code == MALFORMED:
            beginning = np.frombuffer(bytearray(outcome.beginning), np.uint8)
            record_malformed(
                self._metrics, request.flags, request.route, outcome.reason, beginning, len(outcome.beginning)
            )
        ending = Ending(
            outcome.code, outcome.status, request.bytes_received, job.sent_ns, request.first_byte_ns, now
        )
        record_done(self._metrics, _due_request(job), ending, self._closed_loop)
