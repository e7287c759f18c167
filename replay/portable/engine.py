"""The portable engine: the reference model of the lane's contract, in plain Trio, for any machine and any protocol.

One task keeps the schedule: it sleeps until a request is due, takes it, and queues it. One task per connection
serves the waiting requests, oldest first; idle connections wait on a stack. Trio sleeps in whole milliseconds,
so requests are up to about a millisecond late.
"""

from __future__ import annotations

import errno
import gc
import math
import os
import time

import trio

from replay import garbage
from replay.lane.addresses import AddressTable
from replay.lane.contract import LaneSpec
from replay.lane.polls import BEAT_NS, Polls
from replay.units import SECOND_NS
from replay_native.feed.addresses import A
from replay_native.ground import shared
from replay_native.ledger.lane_metrics import (
    GENERATOR,
    REFUSED,
    RESET,
    TIMEOUT,
    TLS,
    TRUNCATED,
    C,
    Control,
    State,
    Stop,
)
from replay_native.ledger.record import (
    record_attempt,
)

from .feed import FeedReader
from .pool import Pool, Worker
from .protocol import (
    HandshakeError,
    Outcome,
    Transport,
)
from .records import Records
from .retries import Retries
from .waiting import EVERYBODY, Job, Waiting

HEARTBEAT_NS = 100_000_000
FAR_NS = 1 << 62
TAKEN_AT_ONCE = 64
_OURS = frozenset((errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM))
"""Errors caused by the generator, not the target."""


async def run_lane(spec: LaneSpec, transport: Transport) -> None:
    """Run one lane to its end.

    The lane ends when the feed has ended and every request is settled, after Stop.DRAIN when no request is in
    flight, at once on Stop.ABANDON, or when it is cancelled. A failed request is an outcome, not an exception.
    """
    AddressTable(spec.metrics).begin(spec.addresses)
    garbage.shorten_pauses()
    try:
        await _Lane(spec, transport).run()
    finally:
        gc.unfreeze()


def outcome_of(error: OSError) -> int:
    """Return the outcome for an error while connecting or sending."""
    if error.errno in _OURS:
        return GENERATOR
    if isinstance(error, HandshakeError):
        return TLS
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return RESET
    return TIMEOUT if error.errno == errno.ETIMEDOUT else REFUSED


class _Lane:
    def __init__(self, spec: LaneSpec, transport: Transport) -> None:
        self._spec = spec
        self._transport = transport
        self._metrics = spec.metrics
        self._counters = spec.metrics.counters
        self._pool = Pool(spec)
        self._feed = FeedReader(spec, transport.answer_limit)
        self._records = Records(spec)
        self._per_client = spec.connect == "per-client"
        self._waiting = Waiting(ordered=spec.ordered, per_client=self._per_client)
        self._retries = Retries(spec.retry, self._feed.entries_limit)
        self._idle_timeout_s = spec.idle_timeout_ns / SECOND_NS if self._per_client else math.inf
        self._in_flight = 0
        self._draining = False
        self._started = not spec.closed_loop
        self._next_due_ns = FAR_NS
        self._woken = trio.Event()
        self._polls = Polls(spec.metrics)

    async def run(self) -> None:
        state = State.ENDED
        shared.write_word(self._metrics.control, Control.STATE, State.RUNNING)
        trio.lowlevel.add_instrument(self._polls)
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._heed_wakes)
                await self._loop()
                nursery.cancel_scope.cancel()
        except Exception:
            state = -errno.EIO
            raise
        finally:
            trio.lowlevel.remove_instrument(self._polls)
            self._counters[C.cpu_last_ns] = time.thread_time_ns()
            shared.write_word(self._metrics.control, Control.STATE, state)

    async def _loop(self) -> None:
        """Take due requests, serve, expire and sleep, until the feed ends or the lane is stopped."""
        while True:
            stop = shared.read_word(self._metrics.control, Control.STOP)
            if stop != Stop.RUN and not self._draining:
                self._drain()
            if stop == Stop.ABANDON:
                return
            self._pool.heed_addresses()
            if not self._draining:
                self._try_again()
                self._take_due()
                self._serve()
            self._expire()
            if self._finished():
                return
            await self._sleep()

    async def _sleep(self) -> None:
        """Sleep until the next due time, deadline, retry or heartbeat, or until woken."""
        now = time.monotonic_ns()
        self._counters[C.loops] += 1
        shared.write_word(self._metrics.control, Control.HEARTBEAT_NS, now)
        beat_ns = BEAT_NS if self._in_flight or self._waiting else HEARTBEAT_NS
        until = min(now + beat_ns, self._next_due_ns)
        if (oldest := self._waiting.oldest) is not None:
            until = min(until, oldest.since_ns + self._spec.max_wait_ns)
        if (next_try_ns := self._retries.next_ns) is not None:
            until = min(until, next_try_ns)
        with trio.move_on_after(max(until - now, 0) / SECOND_NS):
            await self._woken.wait()
        if self._woken.is_set():
            self._woken = trio.Event()
        self._counters[C.idle_ns] += time.monotonic_ns() - now

    async def _heed_wakes(self) -> None:
        """Wait for the control plane to wake the lane through its eventfd."""
        while True:
            await trio.lowlevel.wait_readable(self._spec.wake_fd)
            os.read(self._spec.wake_fd, 8)
            self._woken.set()

    def _finished(self) -> bool:
        if self._waiting or self._in_flight:
            return False
        if self._draining:
            return True
        return self._feed.is_ended and self._feed.tail == self._feed.taken

    def _take_due(self) -> None:
        """Take due requests, and set the next due time.

        At most TAKEN_AT_ONCE are taken, so that the connections' tasks can run. In a closed loop none is taken here:
        the loop only starts when its first request is due.
        """
        feed = self._feed
        until, tail = feed.taken + TAKEN_AT_ONCE, feed.tail
        while feed.taken < tail and not (self._spec.closed_loop and self._started):
            self._next_due_ns = feed.next_due_ns
            if self._next_due_ns > time.monotonic_ns():
                feed.is_starved = False
                return
            if feed.taken == until:
                return
            if self._spec.closed_loop:
                self._started = True
                break
            self._wait(feed.take_up())
            if self._pool.open >= self._spec.connections and not self._pool.has_idle:
                self._counters[C.cap_bound] += 1
            self._serve()
            self._count_waiting()
        self._next_due_ns = FAR_NS
        if feed.taken == tail and not feed.is_ended:
            feed.is_starved = True

    def _wait(self, job: Job) -> None:
        """Queue a request for its client's turn or a connection. If the queue is too full, give up the oldest requests.

        The queue may hold half of the rings. If the lane distinguishes clients, requests leave the rings at once;
        otherwise they stay there while they wait.
        """
        self._waiting.add(job)
        if self._spec.by_client:
            self._feed.release(job)
        while len(self._waiting) > 1 and (
            len(self._waiting) > self._feed.entries_limit or self._waiting.held_bytes > self._feed.ring_limit
        ):
            assert self._waiting.oldest is not None
            self._give_up(self._waiting.oldest, C.unsent_limit)

    def _leave(self, job: Job) -> None:
        """Update the rings and counters after a request has left the queue."""
        if not self._spec.by_client and not job.tries:
            self._feed.release(job)
        self._counters[C.waiting] = len(self._waiting)

    def _count_waiting(self) -> None:
        waiting = len(self._waiting)
        self._counters[C.waiting] = waiting
        self._counters[C.waiting_max] = max(self._counters[C.waiting_max], waiting)

    def _give_up(self, job: Job, reason: int) -> None:
        if job.last is not None:
            self._waiting.forget(job)
            self._leave(job)
            self._end(job, job.last)
            return
        self._waiting.drop(job, time.monotonic_ns())
        self._leave(job)
        self._records.unsent(job, reason)

    def _expire(self) -> None:
        """Give up requests that have waited for max_wait."""
        now = time.monotonic_ns()
        while (job := self._waiting.oldest) is not None and job.since_ns + self._spec.max_wait_ns <= now:
            self._give_up(job, C.unsent_max_wait)

    def _drain(self) -> None:
        """Stop taking and retrying requests, but let those in flight finish.

        Requests that are due or waiting and were never attempted count as planned and unsent. Requests that wait
        for a retry end with the result of their last attempt.
        """
        now = time.monotonic_ns()
        tail = self._feed.tail
        while not self._spec.closed_loop and self._feed.taken < tail:
            if self._feed.next_due_ns > now:
                break
            self._wait(self._feed.take_up())
        while (job := self._waiting.oldest) is not None:
            self._give_up(job, C.unsent_interrupted)
        for job in self._retries.give_up():
            assert job.last is not None
            self._end(job, job.last)
        self._draining = True
        self._next_due_ns = FAR_NS

    def _wanted(self, owner: int) -> int:
        """Count the requests that could be attempted now if a connection of this owner were free."""
        if self._draining or not self._started:
            return 0
        if self._spec.closed_loop:
            left = self._feed.tail - self._feed.taken
            return left + self._waiting.ready(owner)
        return self._waiting.ready(owner)

    def _next_job(self, owner: int) -> Job | None:
        """Return the next request to attempt, with its client's values filled in; it is in flight from now on.

        Requests whose values are missing are counted as unsent. None if no request is left.
        """
        while self._wanted(owner) > 0:
            if self._spec.closed_loop and not self._waiting.ready(owner):
                self._waiting.add(self._feed.take_up())
            job = self._waiting.take(owner)
            self._leave(job)
            if job.tries or self._transport.fill_in(job.request):
                self._count_try(job)
                return job
            self._records.unsent(job, C.unsent_capture)
            self._waiting.ended(job, time.monotonic_ns())
            self._woken.set()
        return None

    def _count_try(self, job: Job) -> None:
        """Count an attempt; the first one puts the request in flight."""
        if not job.tries:
            self._in_flight += 1
            record_attempt(self._metrics)
            self._retries.earn()
        job.tries += 1

    def _serve(self) -> None:
        """Assign free connections to waiting requests, and open more if needed."""
        for owner in (EVERYBODY,) if self._spec.closed_loop else tuple(self._waiting.unserved):
            if self._serve_owner(owner):
                self._waiting.unserved.pop(owner, None)

    def _serve_owner(self, owner: int) -> bool:
        """Serve the requests that wait for an owner's connections; False if the lane's connection limit prevents it."""
        owned = self._pool.of(owner)
        most = self._spec.client_connections if self._per_client else self._spec.connections
        while self._wanted(owner) > 0:
            if owned.idle:
                worker = self._pool.pop_idle(owned.idle[-1])
                if self._pool.is_open(worker):
                    worker.job = self._next_job(owner)
                worker.wake.set()
            elif owned.connecting >= self._wanted(owner) or owned.open >= most:
                return True
            elif self._pool.open >= self._spec.connections and not self._pool.make_room():
                return False
            else:
                owned.connecting += 1
                self._pool.count(owned, 1)
                self._nursery.start_soon(self._work, Worker(owner))
        return True

    async def _work(self, worker: Worker) -> None:
        """Run one connection: connect, serve waiting requests, wait while idle, until it ends."""
        owned = self._pool.of(worker.owner)
        try:
            failure = await self._connect(worker)
            owned.connecting -= 1
            if failure:
                self._fail_next(worker.owner, failure)
                return
            if self._pool.is_removed(worker):
                self._pool.close_drained(worker)
            while worker.connection is not None:
                job = self._next_job(worker.owner)
                if job is None:
                    job = await self._idle(worker)
                if job is not None:
                    await self._carry_out(worker, job)
        finally:
            self._pool.close(worker, abort=True)
            if worker.is_counted:
                self._pool.count(owned, -1)
            if self._waiting.ready(worker.owner):
                self._waiting.unserved[worker.owner] = None
            elif self._per_client:
                self._pool.forget(worker.owner, owned)
            self._woken.set()

    async def _idle(self, worker: Worker) -> Job | None:
        """Wait on the stack of free connections, and return the next request.

        None if the connection ended meanwhile, or if no request was left when it was woken.
        """
        self._pool.push_idle(worker)
        with trio.move_on_after(self._idle_timeout_s) as patience:
            await worker.wake.wait()
        if patience.cancelled_caught and self._pool.is_idle(worker):
            self._counters[C.idle_closed] += 1
            self._pool.end_idle(worker)
        return worker.job

    async def _connect(self, worker: Worker) -> int:
        """Connect within the time limit, and return 0 or the outcome of the failure."""
        self._counters[C.connects] += 1
        worker.fresh = True
        try:
            with trio.fail_after(self._spec.timeout_ns / SECOND_NS):
                worker.connection = await self._transport.connect(worker.owner)
        except trio.TooSlowError:
            failure = TIMEOUT
        except OSError as error:
            failure = outcome_of(error)
        else:
            return 0
        self._counters[C.connects_failed] += 1
        return failure

    def _fail_next(self, owner: int, failure: int) -> None:
        """Record a failed connect as an attempt of the next waiting request."""
        job = self._next_job(owner)
        if job is not None:
            self._record(job, Outcome(failure=failure))

    async def _carry_out(self, worker: Worker, job: Job) -> None:
        """Send a request and record its outcome.

        If a reused connection was closed before the response, a request that may be repeated is sent again on a new
        connection.
        """
        reused = not worker.fresh
        self._counters[C.retries] += job.tries > 1
        assert worker.connection is not None
        address = worker.connection.address
        outcome = await self._attempt(worker, job)
        if outcome.failure in (RESET, TRUNCATED):
            self._counters[C.closed_by_target] += 1
            if reused and outcome.stale and (outcome.unread or job.request.is_idempotent):
                outcome = await self._send_again(worker, job)
                address = worker.connection.address if worker.connection is not None else address
        self._record(job, outcome)
        if address >= 0:
            self._metrics.address_counts[address, A.requests] += 1
            self._metrics.address_counts[address, A.errors] += outcome.code >= REFUSED
        worker.fresh = False
        if not outcome.reusable or self._spec.connect == "per-request" or outcome.code >= REFUSED:
            self._pool.close(worker, abort=outcome.code >= REFUSED)
        elif self._pool.is_removed(worker):
            self._pool.close_drained(worker)

    async def _send_again(self, worker: Worker, job: Job) -> Outcome:
        self._counters[C.resent] += 1
        self._records.traffic(job.request)
        job.request.forget_answer()
        self._pool.close(worker)
        failure = await self._connect(worker)
        if failure:
            return Outcome(failure=failure)
        return await self._attempt(worker, job, resent=True)

    async def _attempt(self, worker: Worker, job: Job, *, resent: bool = False) -> Outcome:
        """Send once and read the response, within the time limit from now.

        `sent` keeps the time of the first attempt.
        """
        now = time.monotonic_ns()
        if job.sent_ns < 0:
            self._records.sent(job, now, is_fresh=worker.fresh)
        else:
            self._transport.sent_again(job.request, job.tries, resent=resent)
        assert worker.connection is not None
        self._counters[C.attempts] += 1
        outcome = Outcome(failure=TIMEOUT)
        with trio.move_on_after(self._spec.timeout_ns / SECOND_NS):
            try:
                outcome = await worker.connection.send(job.request)
            except OSError as error:
                outcome = Outcome(failure=outcome_of(error))
        return outcome

    def _record(self, job: Job, outcome: Outcome) -> None:
        """Record how an attempt ended; this ends the request unless it is retried."""
        request = job.request
        self._records.traffic(request)
        if request.is_evaluated and outcome.code < REFUSED:
            self._records.evaluated(job, outcome, self._transport.evaluate(request, outcome))
        if self._may_retry(job, outcome):
            self._counters[C.retried] += job.tries == 1
            job.last = outcome
            self._transport.tried_again(request)
            self._retries.back_off(job, time.monotonic_ns())
            self._woken.set()
        else:
            self._end(job, outcome, self._polls.unread_ns(time.monotonic_ns()))

    def _may_retry(self, job: Job, outcome: Outcome) -> bool:
        """Return whether a request is retried. A retry that is due but denied is counted."""
        if self._draining or not self._retries.asks(job, outcome):
            return False
        is_granted = self._retries.grant()
        self._counters[C.retries_denied] += not is_granted
        return is_granted

    def _try_again(self) -> None:
        """Queue and serve requests whose back-off has ended, ahead of all that wait for the same connections."""
        now = time.monotonic_ns()
        while (job := self._retries.pop_due(now)) is not None:
            job.request.forget_answer()
            self._waiting.add_again(job, now)
        self._serve()

    def _end(self, job: Job, outcome: Outcome, unread_ns: int = 0) -> None:
        """Record how a request ended, and make its client's next request ready.

        `unread_ns` is how long its response may have waited in the socket before the lane read it.
        """
        self._records.ended(job, outcome, unread_ns)
        self._transport.ended(job.request, job.due_ns, outcome)
        self._in_flight -= 1
        self._waiting.ended(job, time.monotonic_ns())
        if self._draining or not self._in_flight:
            self._woken.set()
