"""The coordinator: the rules of `coordinator_state` over real connections to its agents."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import msgspec
import trio

from replay._version import __version__
from replay.decoding import examined
from replay.engine.watch import Signals
from replay.errors import EngineError, Exit, InputError, ReplayError, Sending, UsageError
from replay.plan.schedule import Schedule
from replay.results.document import Started
from replay.settings.instant import moment_text
from replay.settings.scenario import Scenario
from replay.trace import Trace
from replay.units import SECOND_NS

from . import shipping, values
from .broadcast import Broadcast
from .coordinator_state import CoordinatorState, Phase, Seat
from .cut import lanes_of_each, share_of
from .framing import Broken, Connection, Ended
from .handshake import kernels_digest, receive_hello
from .merged_facts import NOTHING_OBSERVED, Observed
from .messages import (
    AnyMessage,
    Fetch,
    FileOffer,
    Message,
    Opened,
    Piece,
    Plan,
    Refusal,
    Release,
    Report,
    Stop,
    Want,
)
from .protocol import AllHere, Began, Failed, Lost, Output, Over, Reported, Send
from .reports import Reports
from .share import NAME, read_share
from .transports import Transport

TICK_S = 0.125
MISSING_NS = 3 * SECOND_NS
"""An agent is reported as missing if it has not connected after this time."""

FETCH_S = 600.0
"""Time limit for all files of the agents, after the run."""


@dataclass
class Order:
    """The run to be made, as the coordinator has planned and checked it."""

    trace: Trace
    name: str
    scenario: Scenario
    schedules: Sequence[Schedule]
    on_lost: Literal["stop", "continue"] = "stop"
    start_at_ns: int | None = None
    """When the first request is due, in ns since the epoch; None: as soon as all agents are ready."""


@dataclass
class Gathered:
    """The result: each agent's seat, and the path of its run folder (None: there is none). `stopped_why` is the reason
    why the run was ended early, `interrupted_by` the signal that the coordinator received; both are empty for an
    undisturbed run."""

    run_id: str
    epoch: str
    seats: list[Seat]
    folders: list[Path | None]
    instant_ns: int
    wall_ns: int
    stopped_why: str
    interrupted_by: str
    reports: list[Reports] = field(default_factory=list)
    lanes: list[tuple[int, int, int]] = field(default_factory=list)
    last_sending_ns: dict[int, int] = field(default_factory=dict)
    drifts: list[float] = field(default_factory=list)
    bytes_received: int = 0
    bytes_sent: int = 0
    observed: Observed = NOTHING_OBSERVED
    pauses_ns: list[int] = field(default_factory=list)


class Coordinator:
    """One run over many agents. `say` prints a line; `reported` gets each report."""

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
            now_ns=time.monotonic_ns(),
            on_lost=order.on_lost,
        )
        self._connections: dict[int, Connection] = {}
        self._outgoing: dict[int, trio.MemorySendChannel[Message]] = {}
        self._pieces: dict[int, trio.MemorySendChannel[Piece]] = {}
        self._over = trio.Event()
        self._failure: Failed | None = None
        self._trace_files: list[FileOffer] = []
        self._sent = self._received = 0
        self._interrupted_by = ""
        self._wall_ns = 0
        self._is_waiting = self._is_missing_said = False
        self._made_ns = time.monotonic_ns()
        self._reports = [Reports() for _ in range(transport.agents)]
        self._lanes = 1

    async def run(self, *, signals: bool = False) -> Gathered:
        """Make the run, and return the result even if agents were lost. ReplayError if it cannot begin."""
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
            folders = [] if self._failure is not None else await self._collect()
            gathered = self._gathered(folders)
            gathered.observed = await self._broadcast.finish()
            await self._release(folders)
            nursery.cancel_scope.cancel()
        if self._failure is not None:
            raise _error_of(self._failure)
        return gathered

    def _gathered(self, folders: list[Path | None]) -> Gathered:
        seats = self.state.seats
        for connection in self._connections.values():
            self._sent += connection.sent_bytes
            self._received += connection.received_bytes
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
            lanes=[
                (seat.agent * self._lanes, (seat.agent + 1) * self._lanes, len(seats) * self._lanes)
                for seat in seats
            ],
            last_sending_ns={
                seat.agent: self.state.last_sending_ns(seat.agent)
                for seat in seats
                if seat.lost_ns is not None
            },
            drifts=[seat.clock.drift()[0] for seat in seats],
            bytes_received=self._received,
            bytes_sent=self._sent,
            pauses_ns=self.state.pauses_ns,
        )

    async def _serve(self) -> None:
        try:
            await self._transport.serve(self._accept, self._folder, self._order.scenario.allow)
        except ReplayError as error:
            self._fail(str(error), error.hint, int(error.exit_code))

    async def _accept(self, connection: Connection) -> None:
        """Serve one connection, from the challenge to its end."""
        try:
            hello = await receive_hello(connection, self._transport.token)
        except Broken as error:
            # If the coordinator starts the agents' processes, it reports an ended agent elsewhere
            # (`_watch_for_missing`).
            if not (isinstance(error, Ended) and self._transport.started):
                self._say(f"a connection was refused: {error}")
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
        self._connections[agent] = connection
        await self._serve_agent(agent, connection, outputs, hello.nonce)

    def _refused_agent(self, refusal: Refusal) -> None:
        """End the run if an agent is refused, because it would be refused again."""
        if self.state.phase is Phase.GATHERING:
            self._fail(
                f"an agent was refused: {refusal.why}",
                "install the same version of replay on every machine",
                2,
            )

    async def _serve_agent(
        self, agent: int, connection: Connection, outputs: list[Output], nonce: bytes
    ) -> None:
        send, receive = trio.open_memory_channel[Message](1024)
        self._outgoing[agent] = send
        self._welcome(outputs, nonce)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send_all, connection, receive)
            self._act(outputs)
            why = "its connection ended"
            try:
                while (message := await connection.receive()) is not None:
                    self._receive(agent, message)
            except Broken as error:
                why = str(error)
            self._act(self.state.disconnected(agent, time.monotonic_ns(), why))
            self._outgoing.pop(agent, None)
            if agent in self._pieces:
                self._pieces[agent].close()
            nursery.cancel_scope.cancel()

    def _welcome(self, outputs: list[Output], nonce: bytes) -> None:
        """Add the proof that this side knows the token to the welcome message."""
        from .handshake import proof
        from .messages import Welcome

        for index, output in enumerate(outputs):
            if isinstance(output, Send) and isinstance(output.message, Welcome):
                shown = proof(self._transport.token, "coordinator", nonce)
                outputs[index] = Send(Welcome(agent=output.message.agent, proof=shown), output.agent)

    async def _send_all(self, connection: Connection, messages: trio.MemoryReceiveChannel[Message]) -> None:
        async for message in messages:
            try:
                await connection.send(message)
            except Broken:
                return

    def _receive(self, agent: int, message: AnyMessage) -> None:
        if isinstance(message, Want):
            self._nursery.start_soon(self._ship, agent, message)
        elif isinstance(message, Piece):
            # A message that was not requested is ignored.
            with contextlib.suppress(trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
                if agent in self._pieces:
                    self._pieces[agent].send_nowait(message)
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
        offered = {file.name: file.size for file in self._trace_files}
        read = partial(shipping.read_piece, self._order.trace.path, offered, want.file, want.offset)
        try:
            piece = await trio.to_thread.run_sync(read)
        except InputError as error:
            self._fail(f"the trace cannot be transferred: {error}", "", 2)
            return
        self._put(agent, piece)

    def _put(self, agent: int, message: Message) -> None:
        channel = self._outgoing.get(agent)
        if channel is None:
            return
        try:
            channel.send_nowait(message)
        except trio.WouldBlock:
            return  # The agent does not read. Its silence will be noticed elsewhere.

    def _act(self, outputs: list[Output]) -> None:
        for output in outputs:
            if isinstance(output, Send):
                self._put(output.agent, output.message)
            elif isinstance(output, AllHere):
                self._nursery.start_soon(self._give_orders)
            elif isinstance(output, Began):
                Sending.began = True
                left_ns = output.instant_ns - time.monotonic_ns()
                self._wall_ns = time.time_ns() + left_ns
                left_s = left_ns / 1e9
                self._broadcast.begin(output.instant_ns, self._wall_ns)
                self._nursery.start_soon(self._broadcast.sample)
                self._say(f"all {len(self.state.seats)} agents are ready; they start in {left_s:.1f} s")
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
            plans = await self._plans()
        except ReplayError as error:
            self._fail(str(error), error.hint, int(error.exit_code))
            return
        self._act(self.state.order(plans))

    async def _plans(self) -> list[Plan]:
        """The plan of each agent's share."""
        order, agents = self._order, len(self.state.seats)
        hellos = [seat.hello for seat in self.state.seats if seat.hello is not None]
        length_ns = max(schedule.plan.length_ns or 0 for schedule in order.schedules)
        wait_ns = max((order.start_at_ns or 0) - time.time_ns(), 0)
        scenario, files = await values.for_agents(order.scenario, agents, wait_ns + length_ns)
        lanes = self._lanes = lanes_of_each(order.schedules, order.scenario, hellos)
        path = order.trace.path.absolute()
        self._trace_files = await trio.to_thread.run_sync(shipping.trace_offers, path)
        digest = shipping.trace_digest(path)
        for hello in hellos:
            self._say(
                f"agent on {hello.host}, pid {hello.pid}: {hello.cpus} CPUs, {lanes} of {agents * lanes} lanes"
            )
        return [
            Plan(
                epoch=self.state.epoch,
                run_id=self.run_id,
                agent=agent,
                agents=agents,
                first_lane=share_of(agent, agents, lanes).first,
                lanes=lanes,
                all_lanes=agents * lanes,
                scenario=values.encoded(scenario),
                environ=values.environment(order.scenario),
                files=files,
                trace_digest=digest,
                trace_name=order.name,
                trace_path=str(path),
                trace=self._trace_files,
            )
            for agent in range(agents)
        ]

    async def _tick(self) -> None:
        while True:
            await trio.sleep(TICK_S)
            self._await_instant()
            self.state.how_to_join = self._transport.how_to_join
            self._say_who_is_missing()
            self._act(self.state.tick(time.monotonic_ns()))
            expected = [seat.agent for seat in self.state.seats if not seat.is_settled]
            self._broadcast.tick(time.monotonic_ns(), expected)

    def _say_who_is_missing(self) -> None:
        """Report once that agents which are started elsewhere have not connected yet."""
        waited_ns = time.monotonic_ns() - self._made_ns
        if self._is_missing_said or self.state.phase is not Phase.GATHERING or waited_ns < MISSING_NS:
            return
        self._is_missing_said = True
        if self.state.how_to_join:
            came = sum(seat.hello is not None for seat in self.state.seats)
            count = f"{came} of {len(self.state.seats)} agents have connected"
            self._say(f"{count}; start the others by `{self.state.how_to_join}`")

    def _await_instant(self) -> None:
        """Follow the wall clock, because it may be set while the run waits for its start time."""
        at_ns = self._order.start_at_ns
        if at_ns is None:
            return
        self.state.start_at_ns = time.monotonic_ns() + at_ns - time.time_ns()
        if self.state.is_waiting and not self._is_waiting:
            self._is_waiting = True
            self._say(f"all agents are ready; the first request is due at {moment_text(at_ns)}")

    async def _watch_processes(self) -> None:
        """Report agents whose processes have ended, because they send nothing more."""
        while True:
            await trio.sleep(TICK_S)
            self._watch_for_missing()
            for seat in self.state.seats:
                if seat.hello is None or seat.gone_ns is not None or seat.end is not None:
                    continue
                if await self._transport.gone(seat.hello.order):
                    self._act(
                        self.state.lost(seat.agent, "its process ended", time.monotonic_ns(), is_gone=True)
                    )

    def _watch_for_missing(self) -> None:
        """Report an agent whose process ends before it connects."""
        if self.state.phase is not Phase.GATHERING:
            return
        came = {seat.hello.order for seat in self.state.seats if seat.hello is not None}
        for order, started in self._transport.started.items():
            if started.ended.is_set() and order not in came:
                log = self._folder / f"agent-{order}.log"
                lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
                last = lines[-1][:300] if lines else "it printed nothing"
                self._say(f"LOST agent {order}: it ended before it connected")
                self._fail(f"agent {order} ended before it connected: {last}", "", 1)

    async def _watch_signals(self) -> None:
        received = Signals()
        self._nursery.start_soon(received.watch)
        await received.first.wait()
        self._interrupted_by = received.name
        self._act(self.state.stop("drain", received.name))
        await received.second.wait()
        self._act(self.state.stop("abandon", received.name))

    async def _collect(self) -> list[Path | None]:
        """The run folder of each agent, local or fetched."""
        with trio.move_on_after(FETCH_S):
            return [await self._folder_of(seat) for seat in self.state.seats]
        raise EngineError("the agents' results did not arrive in time", hint=f"see {self._folder}")

    async def _folder_of(self, seat: Seat) -> Path | None:
        own = self._folder / f"agent-{seat.agent}"
        if self._is_share(own, seat.agent):
            return own
        if seat.end is None or seat.agent not in self._outgoing:
            return None
        try:
            await self._fetch(seat.agent, own, seat.end.files)
        except (InputError, trio.EndOfChannel) as error:
            self._say(f"the results of {seat.name} were not fetched: {error or 'its connection ended'}")
            return None
        return own if self._is_share(own, seat.agent) else None

    def _is_share(self, path: Path, agent: int) -> bool:
        if not (path / NAME).is_file():
            return False
        try:
            share = read_share(path)
        except InputError:
            return False
        return (share.epoch, share.agent) == (self.state.epoch, agent)

    async def _fetch(self, agent: int, folder: Path, files: list[FileOffer]) -> None:
        send, receive = trio.open_memory_channel[Piece](64)
        self._pieces[agent] = send

        async def ask(name: str, offset: int) -> Piece:
            self._put(agent, Fetch(file=name, offset=offset))
            return await receive.receive()

        folder.mkdir(exist_ok=True)
        await shipping.receive_files(folder, files, ask)

    async def _release(self, folders: list[Path | None]) -> None:
        """Release the agents. Those whose results have been fetched remove their own copies. If the run failed, they
        first get the reason."""
        for seat in self.state.seats:
            if self._failure is not None:
                self._put(seat.agent, Stop(epoch=self.state.epoch, how="abandon", why=self._failure.why))
            path = folders[seat.agent] if folders else None
            fetched = path is not None and seat.end is not None and str(path.absolute()) != seat.end.folder
            self._put(seat.agent, Release(remove=fetched))
        with trio.move_on_after(2):
            while any(channel.statistics().current_buffer_used for channel in self._outgoing.values()):
                await trio.sleep(0.01)
            await trio.sleep(0.05)


def _error_of(failed: Failed) -> ReplayError:
    """The error of a run that could not begin."""
    if failed.code == 1:
        return EngineError(failed.why, hint=failed.hint)
    if failed.code == Exit.INTERRUPTED:
        raise KeyboardInterrupt
    return UsageError(failed.why, hint=failed.hint)
