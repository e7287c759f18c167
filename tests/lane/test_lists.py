"""A lane turn by turn: after each its lists, its counters and its tables say the same of every request and connection."""

from __future__ import annotations

import os
import socket
import tempfile
import time
from pathlib import Path

import numpy as np
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from replay.lane.addresses import AddressTable
from replay.lane.contract import Address, LaneSpec, Retry
from replay.lane.feed import FeedWriter
from replay.lane.native import make_lane
from replay.protocols.http1.session_spec import SessionSpec
from replay_native.feed.ring import ENTRY, IDEMPOTENT, Feed
from replay_native.ground import jit
from replay_native.lane import loop
from replay_native.lane.connections import FREE, TIMED, UNUSED
from replay_native.lane.retry import FAILURE, RETRY_ON
from replay_native.lane.states import BUSY, CLOSED, CONNECTING, IDLE
from replay_native.ledger import lane_metrics
from replay_native.ledger.lane_metrics import REFUSED, RESET, TIMEOUT, C, Stop

from .lists import all_rows, rows_of

MS_NS = 1_000_000
CLIENTS, CONNECTIONS, ENTRIES = 4, 3, 16
REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
RESPONSES = {
    "whole": WHOLE,
    "failed": b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n",
    "last": b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    "half": WHOLE[:20],
    "garbage": b"nothing of the kind\r\n",
    "nothing": b"",
}
NOT_SENT = (C.unsent_max_wait, C.unsent_interrupted, C.unsent_limit, C.unsent_capture)


def listener() -> socket.socket:
    found = socket.create_server(("127.0.0.1", 0))
    found.setblocking(False)
    return found


class Turns(RuleBasedStateMachine):
    """A lane and its target, both moved on by one thread."""

    def __init__(self) -> None:
        super().__init__()
        jit.warm(["lane.loop"])
        self.folder = tempfile.TemporaryDirectory()
        self.server, closed = listener(), listener()
        self.ports = [self.server.getsockname()[1], closed.getsockname()[1]]
        closed.close()
        self.peers: list[socket.socket] = []
        self.seq = 0
        self.ended = False

    @initialize(
        connect=st.sampled_from(["pool", "per-client", "per-request"]), ordered=st.booleans(), retries=st.booleans(),
        refuses=st.booleans(),
    )  # fmt: skip
    def begin(self, connect: str, ordered: bool, retries: bool, refuses: bool) -> None:
        on = np.zeros(RETRY_ON, np.uint8)
        on[503] = on[FAILURE + REFUSED] = on[FAILURE + RESET] = on[FAILURE + TIMEOUT] = 1
        self.spec = LaneSpec(
            metrics=lane_metrics.create(Path(self.folder.name) / "lane", 1, 0),
            feed=Feed(np.zeros(ENTRIES, ENTRY), np.zeros(4_096, np.uint8)),
            wake_fd=os.eventfd(0, os.EFD_NONBLOCK),
            addresses=self.addresses(refuses),
            connections=CONNECTIONS,
            timeout_ns=20 * MS_NS,
            max_wait_ns=15 * MS_NS,
            connect=connect,  # type: ignore[arg-type]
            client_connections=2,
            idle_timeout_ns=10 * MS_NS,
            ordered=ordered,
            retry=Retry(on, attempts=3, backoff_ns=2 * MS_NS, backoff_max_ns=8 * MS_NS) if retries else None,
            clients=CLIENTS,
            sessions=SessionSpec(),
        )
        self.lane, self.writer = make_lane(self.spec), FeedWriter(self.spec)
        assert loop.begin_lane(self.lane) == 0

    def addresses(self, refuses: bool) -> tuple[Address, ...]:
        return tuple(Address("127.0.0.1", port) for port in self.ports[: 1 + refuses])

    @rule(clients=st.lists(st.integers(0, CLIENTS - 1), min_size=1, max_size=6))
    def requests(self, clients: list[int]) -> None:
        for client in clients:
            self.seq += self.writer.push_nowait(
                time.monotonic_ns(), self.seq, REQUEST, client=client, flags=IDEMPOTENT
            )
        self.writer.publish()
        self.turn()

    @rule(turns=st.integers(1, 4))
    def turns(self, turns: int) -> None:
        for _ in range(turns):
            self.turn()

    @rule(which=st.integers(0, CONNECTIONS), how=st.sampled_from(sorted(RESPONSES)), closes=st.integers(0, 3))
    def respond(self, which: int, how: str, closes: int) -> None:
        self.accept()
        if not self.peers:
            return
        peer = self.peers[which % len(self.peers)]
        try:
            peer.recv(65_536)
            peer.send(RESPONSES[how])
        except OSError:
            pass
        if closes == 0:
            self.peers.remove(peer)
            peer.close()
        self.turn()

    @rule()
    def respond_to_all(self) -> None:
        self.accept()
        for which in range(len(self.peers)):
            self.respond(which, "whole", 1)

    @rule(ms=st.sampled_from([1, 4, 12, 25]))
    def wait(self, ms: int) -> None:
        time.sleep(ms / 1_000)
        self.turn()

    @rule(refuses=st.booleans(), removes=st.booleans())
    def change_addresses(self, refuses: bool, removes: bool) -> None:
        found = self.addresses(refuses)
        AddressTable(self.spec.metrics).use(found[1:] or found if removes else found)
        self.turn()

    def accept(self) -> None:
        while True:
            try:
                peer, _ = self.server.accept()
            except BlockingIOError:
                return
            peer.setblocking(False)
            self.peers.append(peer)

    def turn(self) -> None:
        if not self.ended:
            # The lane finds an event and does not sleep.
            self.writer.wake()
            self.ended = loop.turn(self.lane) == 0
        self.check()

    def teardown(self) -> None:
        if not hasattr(self, "lane"):
            return
        self.writer.stop(Stop.DRAIN)
        deadline = time.monotonic() + 5
        while not self.ended and time.monotonic() < deadline:
            self.turn()
        assert self.ended
        assert self.counter(C.in_flight) == self.counter(C.waiting) == 0
        loop.end_lane(self.lane)
        os.close(self.spec.wake_fd)
        for one in (self.server, *self.peers):
            one.close()
        self.folder.cleanup()

    def counter(self, which: int) -> int:
        return int(self.spec.metrics.counters[which])

    def check(self) -> None:
        lane, state = self.lane, self.lane.state[0]
        waits = rows_of(lane.wait_order)
        self.check_connections(lane.connections, int(state["open"]), int(state["connecting"]))
        backing_off = lane.backoff[: state["backing_off"]].tolist()
        self.check_rows(waits, backing_off)
        tried = [row for row in waits if lane.wait_queue[row]["tries"]]
        in_ring = int(state["taken"] - state["head"])
        untried = in_ring + len(waits) - len(tried)
        given_up = sum(map(self.counter, NOT_SENT))
        assert self.counter(C.planned) == int(state["taken"])
        assert self.counter(C.planned) == self.counter(C.sent) + given_up + untried
        assert self.counter(C.waiting) == in_ring + len(waits)
        carried = [
            c for c in lane.connections if c["state"] == BUSY or (c["state"] == CONNECTING and c["bound"])
        ]
        assert self.counter(C.in_flight) == len(carried) + len(backing_off) + len(tried)
        ended = self.counter(C.ok) + self.counter(C.error) + self.counter(C.timeout)
        assert self.counter(C.sent) == ended + self.counter(C.in_flight)
        if self.spec.by_client:
            keys = [int(c["key"]) for c in carried]
            keys += [int(lane.wait_queue[row]["key"]) for row in (*backing_off, *tried)]
            assert lane.clients["in_flight"].tolist() == [keys.count(key) for key in range(CLIENTS)]

    def check_connections(self, slots: np.ndarray, opened: int, connecting: int) -> None:
        by_state = all_rows(self.lane.slots_by_state)
        of = {state: set(np.flatnonzero(slots["state"] == state).tolist()) for state in range(4)}
        assert set(by_state[TIMED]) == of[CONNECTING] | of[BUSY]
        assert set(by_state[FREE]) == of[IDLE]
        assert set(by_state[UNUSED]) == of[CLOSED]
        deadlines = slots["deadline_ns"][by_state[TIMED]].tolist()
        assert deadlines == sorted(deadlines)
        assert opened == self.counter(C.open) == len(slots) - len(of[CLOSED])
        assert connecting == len(of[CONNECTING])
        if self.spec.connect == "per-client":
            key, client = slots["key"], self.lane.clients
            idle = all_rows(self.lane.idle_of_client)
            assert [set(rows) for rows in idle] == [
                {s for s in of[IDLE] if key[s] == k} for k in range(CLIENTS)
            ]
            used = [slot for slot in range(len(slots)) if slots["state"][slot] != CLOSED]
            assert client["open"].tolist() == [sum(key[used] == k) for k in range(CLIENTS)]
            made = [slot for slot in of[CONNECTING] if not slots["bound"][slot]]
            assert client["connecting"].tolist() == [sum(key[made] == k) for k in range(CLIENTS)]

    def check_rows(self, waits: list[int], backing_off: list[int]) -> None:
        lane, state = self.lane, self.lane.state[0]
        rows, queues = lane.wait_queue, all_rows(lane.client_queues)
        assert sorted(waits) == sorted(row for queue in queues for row in queue)
        assert sorted([*rows_of(lane.free_rows), *waits, *backing_off]) == list(range(len(rows)))
        assert int(state["waiting_bytes"]) == int(rows["length"][waits].sum())
        retry_ns = rows["retry_ns"][backing_off]
        assert all(retry_ns[(at - 1) // 2] <= retry_ns[at] for at in range(1, len(backing_off)))
        ready = [sum(rows["ready_ns"][queue] >= 0) for queue in queues]
        assert int(state["startable"]) == sum(ready)
        assert lane.clients["startable"].tolist() == ready
        assert all((rows["key"][queue] == key).all() for key, queue in enumerate(queues) if queue)
        waiting_clients = set(rows_of(lane.ready_clients)) | set(rows_of(lane.dial_clients))
        if self.spec.connect != "per-client":
            assert {key for key, count in enumerate(ready) if count} <= waiting_clients
        if self.spec.ordered:
            assert max(ready, default=0) <= 1


TestTurns = Turns.TestCase
TestTurns.settings = settings(
    max_examples=40, stateful_step_count=40, deadline=None, phases=(Phase.explicit, Phase.generate)
)
"""Nothing is shrunk: it is about time, and a step may do something else the second time."""
