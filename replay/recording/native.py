"""The mirror receiver on a native thread: its memory, its connections that need Python, and its counts.

Kernels in `replay_native.mirror` receive and answer ordinary requests. A connection with any other request is
handed to the server, with the data that was read from it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
from collections.abc import Callable

import numpy as np
import trio

from replay.errors import EngineError
from replay_native.ground import shared
from replay_native.ground.jit import warm
from replay_native.ground.libc import EPOLL_EVENT_BYTES, lanes_supported
from replay_native.mirror import loop
from replay_native.mirror import memory as layout
from replay_native.mirror.memory import MirrorWords
from replay_native.mirror.request import HeadWords

from .exchange import Accounts, Clock
from .listening import Begin, Begun, Limits
from .ring import MirrorRing, peer_of

SLOTS = 4_096
"""Maximum number of connections that the native thread handles. Further ones are handed to the server."""

ROW_BYTES = 64 << 10
"""Bytes of the input buffer of a connection. A request that does not fit into it is left to the server."""

PARTIAL_S = 1.0
COUNT_EVERY_S = 0.25
JOIN_S = 10.0


def native_unsupported() -> str:
    """Return why the native receiver cannot run here, or "" if it can."""
    return lanes_supported() or ("" if hasattr(os, "memfd_create") else "the system has no memfd_create")


class NativeAcceptor:
    """Receives ordinary requests on a native thread and puts them into `ring`; passes on other connections.

    `lose` is called with the number of requests that did not fit into the ring. The attribute `waits` is called when
    the limit of connections was reached. `answers` are three responses: to a request of HTTP/1.1 and of HTTP/1.0 on
    a connection that continues, and the last response on a connection. `clock` must be the server's clock, because
    the server continues connections that are handed over.
    """

    def __init__(
        self, listener: socket.socket, ring: MirrorRing, answers: tuple[bytes, bytes, bytes], limits: Limits,
        *, accounts: Accounts, lose: Callable[[int], None], clock: Clock,
    ) -> None:  # fmt: skip
        warm(["mirror.loop"])
        self._ring, self._answers, self._limits = ring, answers, limits
        self._accounts, self._lose = accounts, lose
        self._listener, self._wall_offset_ns = listener, clock.offset_ns
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._given = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._seen = dict.fromkeys((MirrorWords.REQUESTS, MirrorWords.LOST, MirrorWords.ACCEPTED,
                                    MirrorWords.WAITS, MirrorWords.FAILED), 0)  # fmt: skip
        self._took = 0
        self.connections_max, self.waits = SLOTS, lambda: None

    def _make(self) -> layout.Mirror:
        connections = np.zeros(SLOTS, layout.CONNECTION)
        connections["fd"] = layout.NONE
        settings = np.zeros(1, layout.SETTINGS)
        settings["listener"], settings["wake_fd"] = self._listener.fileno(), self._wake
        settings["given_fd"], settings["wall_offset_ns"] = self._given, self._wall_offset_ns
        settings["idle_ns"], settings["partial_ns"] = round(self._limits.idle_s * 1e9), round(PARTIAL_S * 1e9)
        settings["connections_max"], settings["free_first"] = self.connections_max, layout.NONE
        ends = np.cumsum([0, *map(len, self._answers)])
        return layout.Mirror(
            control=np.zeros(MirrorWords.WORDS, np.int64),
            connections=connections,
            inputs=np.zeros((SLOTS, ROW_BYTES), np.uint8),
            settings=settings,
            given=np.zeros(SLOTS + layout.FRESH_MAX, layout.HANDED_OVER),
            answers=np.frombuffer(b"".join(self._answers), np.uint8).copy(),
            answer_ends=ends.astype(np.int64),
            events=np.zeros(layout.EVENTS_AT_ONCE * EPOLL_EVENT_BYTES, np.uint8),
            scratch=np.zeros(8, np.int64),
            head=np.zeros(len(HeadWords._fields), np.int64),
        )

    async def run(self, begin: Begin) -> None:
        """Receive until cancelled. Raises EngineError if the native thread ends."""
        self._memory = self._make()
        self._thread = threading.Thread(
            target=loop.run, args=(self._memory, self._ring.arrays), name="mirror", daemon=True
        )
        self._thread.start()
        while self._thread.is_alive():
            with trio.move_on_after(COUNT_EVERY_S):
                await trio.lowlevel.wait_readable(self._given)
            self._take(begin)
            self._count()
        raise EngineError(f"the native receiver ended: {os.strerror(-self._word(MirrorWords.STATE))}")

    def end(self, begin: Begin) -> None:
        """Stop receiving, and hand the remaining connections to the server.

        Raises EngineError if the thread does not end within JOIN_S.
        """
        shared.write_word(self._memory.control, MirrorWords.STOP, 1)
        os.eventfd_write(self._wake, 1)
        self._thread.join(JOIN_S)
        if self._thread.is_alive():
            raise EngineError(f"the native receiver did not stop within {JOIN_S:g} s")
        self._take(begin)
        self._count()
        os.close(self._wake)
        os.close(self._given)

    def took(self, connections: int) -> None:
        """Report to the native thread how many connections the server itself handles."""
        shared.write_word(self._memory.control, MirrorWords.FOREIGN, connections)

    def _word(self, index: int) -> int:
        return int(shared.read_word(self._memory.control, index))

    def _take(self, begin: Begin) -> None:
        """Pass on the connections that the native thread handed over."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._given)
        given = self._word(MirrorWords.GIVEN)
        for number in range(self._took, given):
            row = self._memory.given[number % self._memory.given.size]
            data = self._memory.inputs[row["slot"], : row["in_end"]].tobytes() if row["slot"] >= 0 else b""
            owed, answer = int(row["owed"]), int(row["answer"])
            begun = Begun(
                data,
                int(row["at_ns"]),
                self._answers[answer][-owed:] if owed else b"",
                answer == layout.CLOSE,
            )
            peer = peer_of(int(row["family"]), int(row["address"]), int(row["more_address"]))
            try:
                sock = socket.socket(fileno=int(row["fd"]))
            except OSError as error:
                if error.errno == errno.EBADF:
                    raise
                os.close(int(row["fd"]))
                continue
            begin(sock, peer, begun)
        self._took = given
        shared.write_word(self._memory.control, MirrorWords.TOOK, given)

    def _since(self, word: int) -> int:
        """Return by how much a count has grown since the last call."""
        now, before = self._word(word), self._seen[word]
        self._seen[word] = now
        return now - before

    def _count(self) -> None:
        """Add the native thread's counts to the accounts."""
        counts = self._accounts.counts
        counts["requests"] += self._since(MirrorWords.REQUESTS)
        counts["connections"] += self._since(MirrorWords.ACCEPTED)
        if failed := self._since(MirrorWords.FAILED):
            counts["accept failed"] += failed
        if lost := self._since(MirrorWords.LOST):
            self._lose(lost)
        if self._since(MirrorWords.WAITS):
            self.waits()
