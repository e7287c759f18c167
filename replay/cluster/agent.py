"""An agent of a run over many machines.

It applies the rules of `agent_state` to a real connection, and runs its share of the requests in a thread.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import trio

from replay.engine.watch import ENDING
from replay.errors import Exit, InputError, OutputError, UsageError, reason_of
from replay.results.document import RunDocument

from . import shipping, values
from .agent_clock import AgentClock
from .agent_state import AgentPhase, AgentState
from .framing import Broken, Connection
from .handshake import introduce
from .messages import AnyMessage, End, Fetch, Message, Piece, Plan, Refusal, Release, Report, Want
from .protocol import ORPHANED_NS, Begin, Finish, Leave, Output, Prepare, Send
from .share_run import ShareRun, failure_words

TICK_S = 0.1
REPORTS_MAX = 256
"""While this many messages wait to be sent, new reports are dropped, but no other messages.

The totals of a later report replace those of a dropped one.
"""


def default_store() -> Path:
    """Return the folder of an agent's traces and run folders: `replay/agent` in REPLAY_CACHE or the user's cache."""
    base = os.environ.get("REPLAY_CACHE") or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser().absolute() / "replay" / "agent"


@dataclass
class AgentOptions:
    """The options that only the agent's own machine sets."""

    allow: tuple[str, ...] = ()
    store: Path = field(default_factory=default_store)
    runs: Path | None = None
    """The folder in which the agent creates its run folder; None means a folder in the store."""
    token: bytes = b""
    order: str = ""
    clock: AgentClock = field(default_factory=AgentClock)
    say: Callable[[str], None] = lambda line: None


class Agent:
    """An agent on one connection. It serves one order."""

    def __init__(self, connection: Connection, options: AgentOptions) -> None:
        self._connection, self._options = connection, options
        self._state = AgentState(self._now())
        self._share: ShareRun | None = None
        self._pieces, self._wanted = trio.open_memory_channel[Piece](1)
        self._outgoing, self._to_send = trio.open_memory_channel[Message](REPORTS_MAX)
        self._area = Path(tempfile.mkdtemp(prefix="replay-agent-"))
        self._offered: dict[str, int] = {}
        self._left: Leave | None = None
        self._failed_code = 0
        self.dropped_reports = 0

    def _now(self) -> int:
        return self._options.clock.now_ns()

    async def run(self) -> int:
        """Serve the order that the coordinator gives, and return the exit code.

        Raises UsageError if coordinator and agent do not accept each other or the coordinator does not answer,
        InputError if the connection fails while the agent introduces itself.
        """
        try:
            welcome = await introduce(
                self._connection, self._options.token, self._options.order, self._options.clock.identity
            )
            self._options.say(f"agent {welcome.agent}: accepted by the coordinator")
            async with trio.open_nursery() as self._nursery:
                self._token = trio.lowlevel.current_trio_token()
                self._nursery.start_soon(self._send_all)
                self._nursery.start_soon(self._watch_signals)
                self._nursery.start_soon(self._tick)
                self._nursery.start_soon(self._receive_all)
        except Broken as error:
            raise InputError(f"the connection to the coordinator failed: {error}") from None
        finally:
            shutil.rmtree(self._area, ignore_errors=True)
            with trio.move_on_after(1, shield=True):
                await self._connection.close()
        return self._exit_code()

    def _exit_code(self) -> int:
        why = self._left.why if self._left is not None else ""
        if why:
            self._options.say(f"the agent ends: {why}")
        if self._share is not None and self._share.out.exists():
            self._options.say(f"the agent's run is in {self._share.out}")
        if self._failed_code:
            return self._failed_code
        return Exit.CRASHED if why else Exit.PASSED

    async def _receive_all(self) -> None:
        why = "the connection to the coordinator ended"
        try:
            while (message := await self._connection.receive()) is not None:
                await self._received(message)
        except Broken as error:
            why = str(error)
        self._act(self._state.disconnected(why))

    async def _received(self, message: AnyMessage) -> None:
        if isinstance(message, Piece):
            await self._pieces.send(message)
        elif isinstance(message, Fetch):
            self._nursery.start_soon(self._send_piece, message)
        else:
            self._act(self._state.receive(message, self._now()))
            if self._share is not None:
                heard_until_ns = self._state.heard_ns + ORPHANED_NS
                self._share.order.until_ns = self._options.clock.monotonic(heard_until_ns)
            if isinstance(message, Release) and message.remove and self._share is not None:
                shutil.rmtree(self._share.out, ignore_errors=True)

    async def _send_piece(self, fetch: Fetch) -> None:
        assert self._share is not None
        read = partial(shipping.read_piece, self._share.out, self._offered, fetch.file, fetch.offset)
        try:
            piece = await trio.to_thread.run_sync(read)
        except InputError:
            piece = Piece(file=fetch.file, offset=fetch.offset, data=b"", last=True)
        self._put(piece)

    async def _ask(self, name: str, offset: int) -> Piece:
        """Request a piece of the trace from the coordinator, and return it."""
        self._put(Want(file=name, offset=offset))
        return await self._wanted.receive()

    def _put(self, message: Message) -> None:
        try:
            self._outgoing.send_nowait(message)
        except trio.WouldBlock:
            if not isinstance(message, Report):
                self._nursery.start_soon(self._outgoing.send, message)
            else:
                self.dropped_reports += 1

    async def _send_all(self) -> None:
        async for message in self._to_send:
            try:
                await self._connection.send(message)
            except Broken:
                return

    async def _tick(self) -> None:
        while True:
            await trio.sleep(TICK_S)
            self._act(self._state.tick(self._now()))

    async def _watch_signals(self) -> None:
        with trio.open_signal_receiver(*ENDING) as received:
            async for number in received:
                name = signal.Signals(number).name
                if self._share is not None and self._state.phase in (AgentPhase.STARTED, AgentPhase.ENDING):
                    self._share.finish("drain", name)
                else:
                    self._act(self._state.failed(f"the agent was ended by {name}", code=Exit.INTERRUPTED))
                    self._act([Leave(f"it received {name}")])

    def _act(self, outputs: list[Output]) -> None:
        for output in outputs:
            if isinstance(output, Send):
                if isinstance(output.message, Refusal):
                    self._failed_code = output.message.code
                    self._options.say(output.message.why)
                self._put(output.message)
            elif isinstance(output, Prepare):
                self._nursery.start_soon(self._serve, output.plan)
            elif isinstance(output, Begin):
                assert self._share is not None
                self._share.begin(output.start, self._options.clock.monotonic(output.start.agent_ns))
            elif isinstance(output, Finish):
                assert self._share is not None
                self._options.say(f"the run is ending: {output.why or 'the coordinator requested it'}")
                self._share.finish(output.how, output.why or "the coordinator ended it")
            elif isinstance(output, Leave):
                self._leave(output)

    def _leave(self, leave: Leave) -> None:
        self._left = leave
        if self._share is not None:
            self._share.call_off()
        self._nursery.start_soon(self._cancel_soon)

    async def _cancel_soon(self) -> None:
        """Wait up to one second until the last messages are sent, then end every task."""
        with trio.move_on_after(1):
            while self._state.is_connected and self._to_send.statistics().current_buffer_used:
                await trio.sleep(0.01)
            await trio.sleep(0.02)
        self._nursery.cancel_scope.cancel()

    async def _serve(self, plan: Plan) -> None:
        """Obtain the trace, run the share in a thread, and report its end or failure."""
        try:
            share = await self._prepared(plan)
            if share is None:
                return
            document = await trio.to_thread.run_sync(share.run)
        except trio.Cancelled:
            raise
        except BaseException as error:
            found = error
            while isinstance(found, BaseExceptionGroup):
                found = found.exceptions[0]
            if isinstance(found, KeyboardInterrupt):
                raise
            self._act(self._state.failed(*failure_words(found)))
            return
        if document is not None:
            self._act(self._state.ended(self._end(plan, share, document)))

    async def _prepared(self, plan: Plan) -> ShareRun | None:
        options = self._options
        scenario = values.decoded(plan.scenario)
        values.check_environment(scenario, plan.environ)
        os.environ.update(plan.environ)
        settled = values.settled(scenario, plan.files, self._area, options.allow, plan.lanes)
        trace, came = await shipping.obtain_trace(
            plan.trace_digest, plan.trace_path, plan.trace, options.store / "traces", self._ask
        )
        if came:
            options.say(f"the trace was transferred: {came:,} bytes")
        runs = options.runs or options.store / "runs"
        try:
            runs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{runs} cannot be made: {reason_of(error)}") from None
        out = runs / (f"agent-{plan.agent}" if options.runs else f"{plan.run_id}-{plan.agent}")
        if self._state.phase is not AgentPhase.PREPARING:
            return None
        self._share = ShareRun(plan, settled, trace, out, self._tell)
        return self._share

    def _end(self, plan: Plan, share: ShareRun, document: RunDocument) -> End:
        files = shipping.offers(share.out)
        self._offered = {file.name: file.size for file in files}
        accounts = {
            name: int(getattr(document.accounts, name) or 0) for name in document.accounts.__struct_fields__
        }
        return End(
            epoch=plan.epoch,
            accounts=accounts,
            ending=document.ending.how,
            folder=str(share.out.absolute()),
            files=files,
        )

    def _tell(self, what: str, *values: Any) -> None:
        """Pass an event from a thread of the share to the agent's task.

        `what` is the method of AgentState to call.
        """

        def heard() -> None:
            self._act(getattr(self._state, what)(*values))

        self._token.run_sync_soon(heard)


def check_runs(runs: Path | None) -> None:
    """Raise UsageError if the path for run folders exists, but is not a folder."""
    if runs is not None and runs.exists() and not runs.is_dir():
        raise UsageError(f"--runs {runs} is not a folder", hint="give a folder, which may be new")
