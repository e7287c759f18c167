"""Calls to other services: name lookup, connection, time limit, retries, budget and circuit breaker."""

from __future__ import annotations

from typing import NamedTuple

import trio

from .clock import clock_ns
from .policies import Budget, CircuitBreaker, State, wait_ns
from .resolving import NameLookupError, Resolver
from .spec import Call
from .wire import Client, ClosedError, Request
from .world import World

HOPS_MAX = 16


class Outcome(NamedTuple):
    """The result of a call. `why` is the reason of a failure, and empty for a success."""

    status: int
    why: str = ""


class Caller:
    """Makes a call of a service, with the present settings of the call."""

    def __init__(self, world: World, service: str, name: str, target: str, resolver: Resolver) -> None:
        self._world, self._service, self._name, self._target = world, service, name, target
        self._resolver = resolver
        self._client = Client()
        self._random = world.random(f"{service}.calls.{name}")
        self._budget = Budget(self._call)
        self._breaker = CircuitBreaker()
        self._in_flight = 0
        prefix = self._prefix = f"{service}.calls.{name}"
        figures = world.figures
        figures.declare(
            *(f"{prefix}.{what}" for what in ("calls", "tries", "retries", "failures", "timeouts"))
        )
        figures.gauge(f"{prefix}.in_flight", lambda: self._in_flight, lambda: self._call.in_flight)
        figures.gauge(f"{prefix}.breaker", lambda: self._breaker.state.value)

    @property
    def _call(self) -> Call:
        return self._world.service(self._service).calls[self._name]

    async def make(self, served: Request) -> Outcome:
        """Make the call for a request that is being served, with retries, and return the outcome of the last try.

        If too many calls are in flight, no try is made, and the outcome is a failure.
        """
        call = self._call
        self._count("calls")
        self._budget.called()
        if call.in_flight and self._in_flight >= call.in_flight:
            self._note("in_flight_limit", f"{self._in_flight} calls at once")
            self._count("failures")
            return Outcome(503, "in_flight_limit")
        self._in_flight += 1
        try:
            attempt = 0
            while True:
                outcome = await self._try(call, self._request(call, served, attempt))
                if not outcome.why:
                    return outcome
                if attempt >= self._call.retries or outcome.why == "loop":
                    break
                attempt += 1
                if not self._budget.take():
                    self._note("budget_spent", f"{outcome.why}; retry {attempt} is not made")
                    break
                await trio.sleep(wait_ns(call, attempt, self._random) / 1e9)
                self._count("retries")
                what = "retry_of_retry" if served.retry else "retry"
                self._note(what, f"{outcome.why}; retry {attempt} of {call.retries}")
            if call.retries:
                self._note("gave_up", f"{outcome.why}; tries: {attempt + 1}")
            self._count("failures")
            return outcome
        finally:
            self._in_flight -= 1

    def close(self) -> None:
        """Close idle connections."""
        self._client.close()

    def _count(self, what: str) -> None:
        self._world.figures.count(f"{self._prefix}.{what}")

    def _note(self, what: str, why: str) -> None:
        self._world.log.note(self._service, what, why, call=self._name)

    @staticmethod
    def _request(call: Call, served: Request, attempt: int) -> Request:
        method, _, path = (f"POST /{call.topic}" if call.topic else call.request).partition(" ")
        own = (
            Request(method, path, body=served.body if call.topic else b"")
            if path
            else Request(served.method, served.path, body=served.body)
        )
        return own._replace(hops=served.hops + 1, retry=served.retry + attempt)

    async def _try(self, call: Call, request: Request) -> Outcome:
        """Make one try, if the circuit breaker allows it."""
        breaker, state = call.breaker, self._breaker
        if breaker is None:
            return await self._exchange(call, request)
        before = state.state
        if not state.admit(breaker, clock_ns()):
            return Outcome(503, "breaker_open")
        turns = state.turns
        if before is not state.state:
            self._note("breaker_probing", "single calls are allowed as probes")
        outcome = Outcome(503, "cancelled")
        try:
            outcome = await self._exchange(call, request)
        finally:
            before = state.state
            state.ended(breaker, bool(outcome.why), clock_ns(), turns)
            if state.state is State.OPEN and before is not State.OPEN:
                self._note(
                    "breaker_open", f"{outcome.why or 'calls failed'}; open for {breaker.open_ns / 1e9:g} s"
                )
            elif state.state is State.CLOSED and before is not State.CLOSED:
                self._note("breaker_closed", f"successful probes: {breaker.probes}")
        return outcome

    async def _exchange(self, call: Call, request: Request) -> Outcome:
        self._count("tries")
        outcome = Outcome(504, "timed_out")
        with trio.move_on_after(call.timeout_ns / 1e9):
            outcome = await self._answer(call, request)
        if outcome.why == "timed_out":
            self._count("timeouts")
            self._note("timed_out", f"no answer within {call.timeout_ns / 1e9:g} s")
        elif outcome.why and outcome.why != "name_failed":
            self._note("call_failed", outcome.why)
        return outcome

    async def _answer(self, call: Call, request: Request) -> Outcome:
        host, port = self._world.addresses[self._target]
        try:
            if self._client.is_fresh or not call.keep_alive:
                host = await self._resolver.address_of(self._target, call.name, host)
            status = await self._client.exchange(host, port, request, call.keep_alive)
        except NameLookupError as error:
            self._note("name_failed", str(error))
            return Outcome(503, "name_failed")
        except (ClosedError, OSError) as error:
            return Outcome(502, f"no answer: {error}")
        if status == 508:
            return Outcome(508, "loop")
        return Outcome(status, f"status {status}" if status >= 500 else "")
