"""The serving side of a recording, which passes exchanges to the writer's process without waiting for it."""

from __future__ import annotations

import contextlib
import fcntl
import math
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec
import trio

from replay.errors import EngineError, OutputError

from .exchange import Accounts, Exchange
from .setup import Setup
from .writer import ACCOUNTS, EXCHANGES, FRAME, SETUP, Began, Ended, Given

if TYPE_CHECKING:
    from .ring import MirrorRing

QUEUE_BYTES, QUEUE_EXCHANGES = 128 << 20, 1 << 16
"""Maximum bytes and number of exchanges in the queue to the writer. Further exchanges are lost."""

FRAME_EXCHANGES, FRAME_BYTES = 512, 1 << 20
GATHER_S = 0.02
ACCOUNTS_EVERY_S = 0.5
PIPE_BYTES = 1 << 20
END_WITHIN_S = 30.0
EXCHANGE_BYTES = 512
"""Approximate size of an exchange without its bodies, in bytes."""

QUEUE_FULL, WRITER_ENDED = "queue full", "the writer ended"


class Recorder:
    """Accepts exchanges through `put`, and has them written by a separate process. `run` is its task.

    The writer also takes the requests that a native receiver puts into `ring`. If the disk is too slow, queue and
    ring fill up, and further exchanges are lost. Each loss is counted, and the first one is reported.
    """

    def __init__(
        self, setup: Setup, accounts: Accounts, say: Callable[[str], None], ring: MirrorRing | None = None
    ) -> None:
        self._setup, self.accounts, self._say, self._ring = setup, accounts, say, ring
        self._setup.ring = -1 if ring is None else ring.file
        self._queue: deque[tuple[Exchange, int]] = deque()
        self._bytes = 0
        self._wake = trio.Event()
        self._is_dead = self._is_reported = self._closing = False
        self._ended = trio.Event()
        self._sent_s = -math.inf

    async def start(self) -> None:
        """Start the writer. Raises OutputError if it cannot write, and EngineError if it does not start."""
        command = [sys.executable, "-m", "replay.recording.writer"]
        self._process = await trio.lowlevel.open_process(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
            pass_fds=[] if self._ring is None else [self._ring.file],
        )  # fmt: skip
        assert self._process.stdin is not None
        self._pipe = self._process.stdin
        with contextlib.suppress(OSError, AttributeError):
            fcntl.fcntl(self._pipe.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)  # type: ignore[attr-defined]
        await self._send(SETUP, self._setup)
        line = await self._line()
        if not line:
            raise EngineError("the writer of the recording did not start")
        began = msgspec.json.decode(line, type=Began)
        if began.error:
            raise OutputError(began.error, hint=began.hint)

    def put(self, exchange: Exchange) -> None:
        """Queue an exchange for the writer. It is lost if the queue is full or the writer has ended."""
        size = EXCHANGE_BYTES + len(exchange.body or b"")
        if exchange.response is not None:
            size += len(exchange.response.body or b"")
        is_full = self._bytes + size > QUEUE_BYTES or len(self._queue) >= QUEUE_EXCHANGES
        if self._is_dead or is_full:
            self.lose(1)
        else:
            self._queue.append((exchange, size))
            self._bytes += size
            self._wake.set()

    def lose(self, count: int) -> None:
        """Count exchanges that the writer did not receive, and report the first loss while the writer runs."""
        self.accounts.lost[WRITER_ENDED if self._is_dead else QUEUE_FULL] += count
        if not self._is_dead and not self._is_reported:
            self._is_reported = True
            self._say(
                "the disk or the processor is too slow for the recording: some requests are not recorded"
            )

    async def run(self) -> None:
        """Pass on exchanges until `close` is called and the queue is empty, or until the writer has ended."""
        try:
            while not (self._closing and not self._queue):
                with trio.move_on_after(ACCOUNTS_EVERY_S):
                    await self._wake.wait()
                if not self._closing:
                    await trio.sleep(GATHER_S)
                self._wake = trio.Event()
                while self._queue:
                    await self._hand_over()
                await self._send_accounts()
            await self._send_accounts(ended=True)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._writer_died()
        finally:
            self._ended.set()

    async def _hand_over(self) -> None:
        """Send the first exchanges of the queue in one frame."""
        taken, size = list[Exchange](), 0
        while self._queue and len(taken) < FRAME_EXCHANGES and size < FRAME_BYTES:
            exchange, each = self._queue.popleft()
            taken.append(exchange)
            size += each
        try:
            await self._send(EXCHANGES, taken)
        except BaseException:
            self.accounts.lost[WRITER_ENDED] += len(taken)
            raise
        finally:
            self._bytes -= size

    async def _send_accounts(self, *, ended: bool = False) -> None:
        now_s = trio.current_time()
        if not ended and now_s - self._sent_s < ACCOUNTS_EVERY_S:
            return
        self._sent_s = now_s
        accounts = self.accounts
        given = Given(dict(accounts.lost), dict(accounts.incomplete), dict(accounts.refused), ended)
        await self._send(ACCOUNTS, given)

    def _writer_died(self) -> None:
        self._is_dead = True
        if self._ring is not None:
            self._ring.close()
        self.accounts.lost[WRITER_ENDED] += len(self._queue)
        self._queue.clear()
        self._bytes = 0
        self._say("the writer of the recording has ended: requests are no longer recorded")

    async def _send(self, kind: bytes, value: object) -> None:
        payload = msgspec.msgpack.encode(value)
        await self._pipe.send_all(FRAME.pack(kind, len(payload)) + payload)

    async def _line(self) -> bytes:
        """Return the next line from the writer, or b"" if it has ended."""
        assert self._process.stdout is not None
        line = bytearray()
        while not line.endswith(b"\n"):
            data = await self._process.stdout.receive_some(65_536)
            if not data:
                return b""
            line += data
        return bytes(line)

    async def close(self) -> Ended | None:
        """Pass on the remaining exchanges, and end the writer.

        Returns the writer's result, or None if it does not report one within END_WITHIN_S. Exchanges that are still
        in the queue or in the ring are then counted as lost.
        """
        self._closing = True
        self._wake.set()
        line = b""
        with trio.move_on_after(END_WITHIN_S) as patience:
            await self._ended.wait()
            await self._pipe.aclose()
            line = await self._line()
            await self._process.wait()
        if patience.cancelled_caught:
            self.accounts.lost[QUEUE_FULL] += len(self._queue)
            self._say(
                f"the recording could not be written within {END_WITHIN_S:g} s: requests not yet written are lost"
            )
            self._process.kill()
        if self._ring is not None and not line:
            self.accounts.lost[QUEUE_FULL if patience.cancelled_caught else WRITER_ENDED] += (
                self._ring.waiting
            )
        return msgspec.json.decode(line, type=Ended) if line else None
