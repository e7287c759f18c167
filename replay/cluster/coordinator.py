"""The coordinator of a run: it applies the rules of `coordinator_state` to real connections to its agents.

links        the connections, and the messages that they transfer
orders       the plan of each agent
attendance   agents that are missing, and agents whose processes have ended
gathering    the agents' run folders, after the run
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import trio

from replay._version import __version__
from replay.decoding import examined
from replay.engine.watch import Signals
from replay.errors import EngineError, Exit, InputError, ReplayError, Sending, UsageError
from replay.results.document import Started
from replay.settings.instant import moment_text

from . import values
from .agent_clock import same_clock
from .attendance import Attendance
from .broadcast import Broadcast
from .coordinator_state import CoordinatorState, Phase
from .framing import Broken, Connection, Ended
from .gathering import Gathered, Gathering
from .handshake import kernels_digest, proof, receive_hello
from .links import Links
from .messages import AnyMessage, Opened, Refusal, Report, Want, Welcome
from .orders import Order, Orders
from .protocol import AllHere, Began, Failed, Lost, Output, Over, Reported, Send
from .reports import Reports
from .transports import Transport

TICK_S = 0.125


class Coordinator:
    """The coordinator of one run. `say` prints a line; `reported` receives each report."""

    def __init__(
        self,
        order: Order,
        transport: Transport,
        folder: Path,
        say: Callable[[str], None] = lambda line: None,
        reported: Callable[[int, Report], None] = lambda agent, report: None,
        broadcast: Broadcast | None = None,
    ) -> None:
        self._order, self._transport, self._folder = order, transport, folder
        self._say, self._reported = say, reported
        self._broadcast = broadcast if broadcast is not None else Broadcast(order.scenario)
        self.run_id, epoch = secrets.token_hex(4), secrets.token_hex(8)
        self.state = CoordinatorState(
            transport.agents,
            epoch=epoch,
            version=__version__,
            kernels=kernels_digest(),
            clock=same_clock(),
            now_ns=time.monotonic_ns(),
            on_lost=order.on_lost,
        )
        self._links = Links()
        self._orders = Orders(order, self.run_id, say)
        self._attendance = Attendance(self.state, transport, folder, say)
        self._gathering = Gathering(self.state, self._links, folder, say)
        self._over = trio.Event()
        self._failure: Failed | None = None
        self._interrupted_by = ""
        self._wall_ns = 0
        self._is_waiting = False
        self._reports = [Reports() for _ in range(transport.agents)]

    async def run(self, *, signals: bool = False) -> Gathered:
        """Make the run, and return the result even if agents were lost.

        Raises ReplayError if the run cannot begin or the results do not arrive in time, KeyboardInterrupt if the
        coordinator was interrupted before the start.
        """
        values.check_fits(self._order.scenario)
        values.checked_headers(self._order.scenario)
        values.environment(self._order.scenario)
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._serve)
            nursery.start_soon(self._tick)
            nursery.start_soon(self._watch_processes)
            if signals:
                nursery.start_soon(self._watch_signals)
            await self._over.wait()
            folders = [] if self._failure is not None else await self._gathering.folders()
            gathered = self._gathered(folders)
            gathered.observed = await self._broadcast.finish()
            await self._gathering.release(folders, "" if self._failure is None else self._failure.why)
            nursery.cancel_scope.cancel()
        if self._failure is not None:
            raise _error_of(self._failure)
        return gathered

    def _gathered(self, folders: list[Path | None]) -> Gathered:
        seats = self.state.seats
        return Gathered(
            run_id=self.run_id,
            epoch=self.state.epoch,
            seats=seats,
            folders=folders,
            instant_ns=self.state.instant_ns or 0,
            wall_ns=self._wall_ns,
            stopped_why=self.state.stopped_why,
            interrupted_by=self._interrupted_by,
            reports=self._reports,
            lanes=self._orders.lanes(len(seats)),
            last_sending_ns={
                seat.agent: self.state.last_sending_ns(seat.agent)
                for seat in seats
                if seat.lost_ns is not None
            },
            clocks=[self.state.clock_at_start(seat) for seat in seats],
            bytes_received=self._links.received_bytes,
            bytes_sent=self._links.sent_bytes,
            pauses_ns=self.state.pauses_ns,
        )

    async def _serve(self) -> None:
        try:
            await self._transport.serve(self._accept, self._folder, self._order.scenario.allow)
        except ReplayError as error:
            self._fail(str(error), error.hint, int(error.exit_code))

    async def _accept(self, connection: Connection) -> None:
        """Serve one connection, from the challenge to its end; refuse a peer that is no agent of this run."""
        try:
            hello = await receive_hello(connection, self._transport.token)
        except Broken as error:
            # If the coordinator started the agents' processes, `Attendance` reports those that have ended.
            if not (isinstance(error, Ended) and self._transport.started):
                self._say(f"a connection was not accepted: {error}")
            await connection.close()
            return
        agent, outputs = self.state.joined(hello, time.monotonic_ns())
        if agent < 0:
            for output in outputs:
                if isinstance(output, Send) and isinstance(output.message, Refusal):
                    self._say(f"the agent on {hello.host} (pid {hello.pid}) is refused: {output.message.why}")
                    self._refused_agent(output.message)
                    with contextlib.suppress(Broken):
                        await connection.send(output.message)
            await connection.close()
            return
        await self._serve_agent(agent, connection, self._with_proof(outputs, hello.nonce))

    def _refused_agent(self, refusal: Refusal) -> None:
        """End the run if an agent is refused before the run is planned, because it would be refused again."""
        if self.state.phase is Phase.GATHERING:
            self._fail(f"an agent was refused: {refusal.why}", refusal.hint, 2)

    async def _serve_agent(self, agent: int, connection: Connection, outputs: list[Output]) -> None:
        """Serve an agent that was accepted, until its connection ends."""
        self._links.open(agent, connection)
        self._act(outputs)
        why = await self._links.serve(agent, lambda message: self._receive(agent, message))
        self._act(self.state.disconnected(agent, time.monotonic_ns(), why))

    def _with_proof(self, outputs: list[Output], nonce: bytes) -> list[Output]:
        """Return the outputs, with a proof in the welcome that the coordinator knows the token."""
        shown = proof(self._transport.token, "coordinator", nonce)
        return [
            Send(Welcome(agent=output.message.agent, proof=shown), output.agent)
            if isinstance(output, Send) and isinstance(output.message, Welcome)
            else output
            for output in outputs
        ]

    def _receive(self, agent: int, message: AnyMessage) -> None:
        if isinstance(message, Want):
            self._nursery.start_soon(self._ship, agent, message)
        elif isinstance(message, Opened):
            self._opened(message)
        else:
            self._act(self.state.receive(agent, message, time.monotonic_ns()))

    def _opened(self, message: Opened) -> None:
        if message.epoch == self.state.epoch:
            with contextlib.suppress(msgspec.DecodeError):
                started = msgspec.json.decode(message.started, type=examined(Started))
                self._broadcast.opened(started, len(self.state.seats))

    async def _ship(self, agent: int, want: Want) -> None:
        try:
            piece = await trio.to_thread.run_sync(self._orders.piece, want)
        except InputError as error:
            self._fail(f"the trace cannot be transferred: {error}", "", 2)
            return
        self._links.put(agent, piece)

    def _act(self, outputs: list[Output]) -> None:
        for output in outputs:
            if isinstance(output, Send):
                self._links.put(output.agent, output.message)
            elif isinstance(output, AllHere):
                self._nursery.start_soon(self._give_orders)
            elif isinstance(output, Began):
                Sending.began = True
                left_ns = output.instant_ns - time.monotonic_ns()
                self._wall_ns = time.time_ns() + left_ns
                left_s = left_ns / 1e9
                self._broadcast.begin(output.instant_ns, self._wall_ns)
                self._nursery.start_soon(self._broadcast.sample)
                self._say(f"all agents are ready; they start in {left_s:.1f} s")
                for seat in self.state.seats:
                    if seat.ready is not None and not seat.ready.planned:
                        self._say(f"{seat.name} has nothing to send: its share of the requests is empty")
            elif isinstance(output, Reported):
                self._reports[output.agent].add(output.report)
                self._reported(output.agent, output.report)
                self._broadcast.reported(output.agent, self.state.seats[output.agent].name, output.report)
            elif isinstance(output, Lost):
                words = f"{self.state.seats[output.agent].name}: {output.why}"
                self._say(f"LOST {words}")
                self._broadcast.happened(time.monotonic_ns(), "agent_lost", f"lost {words}")
            elif isinstance(output, Failed):
                self._fail(output.why, output.hint, output.code)
            elif isinstance(output, Over):
                self._over.set()

    def _fail(self, why: str, hint: str, code: int) -> None:
        if self._failure is None and not self._over.is_set():
            self._failure = Failed(why, hint, code)
            self._over.set()

    async def _give_orders(self) -> None:
        try:
            plans = await self._orders.plans(self.state)
        except ReplayError as error:
            self._fail(str(error), error.hint, int(error.exit_code))
            return
        self._act(self.state.order(plans))

    async def _tick(self) -> None:
        while True:
            await trio.sleep(TICK_S)
            self._await_instant()
            self._attendance.say_who_is_missing()
            self._act(self.state.tick(time.monotonic_ns()))
            expected = [seat.agent for seat in self.state.seats if not seat.is_settled]
            self._broadcast.tick(time.monotonic_ns(), expected)

    def _await_instant(self) -> None:
        """Convert the start time to CLOCK_MONOTONIC again, because the wall clock may be set while the run waits.

        When all agents are ready, print once when the first request is due.
        """
        at_ns = self._order.start_at_ns
        if at_ns is None:
            return
        self.state.start_at_ns = time.monotonic_ns() + at_ns - time.time_ns()
        if self.state.is_waiting and not self._is_waiting:
            self._is_waiting = True
            self._say(f"all agents are ready; the first request is due at {moment_text(at_ns)}")

    async def _watch_processes(self) -> None:
        """Watch the agents' processes, if the transport knows them, and report those that have ended."""
        while True:
            await trio.sleep(TICK_S)
            for failed in self._attendance.never_came():
                self._fail(failed.why, failed.hint, failed.code)
            await self._attendance.report_gone(self._act)

    async def _watch_signals(self) -> None:
        received = Signals()
        self._nursery.start_soon(received.watch)
        await received.first.wait()
        self._interrupted_by = received.name
        self._act(self.state.stop("drain", received.name))
        await received.second.wait()
        self._act(self.state.stop("abandon", received.name))


def _error_of(failed: Failed) -> ReplayError:
    """Return the error to raise for a failed run, by its exit code: EngineError for 1, otherwise UsageError.

    Raises KeyboardInterrupt for the exit code of an interrupt.
    """
    if failed.code == 1:
        return EngineError(failed.why, hint=failed.hint)
    if failed.code == Exit.INTERRUPTED:
        raise KeyboardInterrupt
    return UsageError(failed.why, hint=failed.hint)
