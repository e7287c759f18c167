"""The portable engine's retries (docs/retries.md): which requests are retried, and when."""

from __future__ import annotations

import heapq

from replay.lane.contract import Retry
from replay_native.lane.retry import FAILURE, PPM, backoff_ns
from replay_native.ledger.lane_metrics import REFUSED

from .protocol import Outcome
from .waiting import Job


class Retries:
    """Requests in back-off, ordered by the time of the next attempt, and the retry budget.

    At most `room` requests are in back-off at once.
    """

    def __init__(self, retry: Retry | None, room: int) -> None:
        self._retry, self._room = retry, room
        self._tokens_ppm = retry.burst_ppm if retry is not None else 0
        self._backing_off: list[tuple[int, int, Job]] = []

    @property
    def next_ns(self) -> int | None:
        """When the next back-off ends; None if there is none."""
        return self._backing_off[0][0] if self._backing_off else None

    def earn(self) -> None:
        """Increase the budget for a first attempt, which earns a share of a retry."""
        if self._retry is not None:
            self._tokens_ppm = min(self._tokens_ppm + self._retry.budget_ppm, self._retry.burst_ppm)

    def asks(self, job: Job, outcome: Outcome) -> bool:
        """Return whether an attempt with this outcome should be retried, if the budget allows it."""
        retry = self._retry
        if retry is None or job.tries >= retry.attempts:
            return False
        if not retry.on[outcome.status if outcome.code < REFUSED else FAILURE + outcome.code]:
            return False
        never_filled_in = job.sent_ns < 0 and job.request.patches
        return not never_filled_in and (job.request.is_idempotent or retry.all_methods)

    def grant(self) -> bool:
        """Take one retry from the budget; False if the budget is used up, or if too many requests are in back-off."""
        assert self._retry is not None
        if len(self._backing_off) >= self._room:
            return False
        if self._retry.budget_ppm >= 0:
            if self._tokens_ppm < PPM:
                return False
            self._tokens_ppm -= PPM
        return True

    def back_off(self, job: Job, now_ns: int) -> None:
        """Hold a request until its next attempt."""
        retry, seq = self._retry, job.request.seq
        assert retry is not None
        wait_ns = backoff_ns(
            seq, job.tries, retry.backoff_ns, retry.backoff_max_ns, retry.jitter_ppm, retry.seed
        )
        heapq.heappush(self._backing_off, (now_ns + int(wait_ns), seq, job))

    def pop_due(self, now_ns: int) -> Job | None:
        """Return the next request whose back-off has ended; None if there is none."""
        if not self._backing_off or self._backing_off[0][0] > now_ns:
            return None
        return heapq.heappop(self._backing_off)[2]

    def give_up(self) -> list[Job]:
        """Remove and return all requests in back-off."""
        jobs = [job for _, _, job in self._backing_off]
        self._backing_off.clear()
        return jobs
