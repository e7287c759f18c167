"""The ring of raw requests: what was put into it comes out in order, whether it was copied or received in place."""

from __future__ import annotations

import random
from collections import deque

import numpy as np
import pytest
from numba import types

from replay.recording.ring import MirrorRing
from replay_native.ground.jit import kernel
from replay_native.mirror.memory import CONNECTION, RING_TYPE, RecordWords, connection_type
from replay_native.mirror.request import HeadWords
from replay_native.mirror.ring import RECORD_BYTES, next_record, publish, put, reserve

SIZE = 4_096
_DATA, _HEAD, _CONNECTIONS = types.uint8[::1], types.int64[::1], connection_type[::1]


@kernel(types.boolean(RING_TYPE, _DATA, _HEAD, _CONNECTIONS))
def put_copy(ring, data, head, connections):
    return put(ring, data, np.int64(0), np.int64(data.shape[0]), head, connections[0])


@kernel(types.int64(RING_TYPE, types.int64))
def reserve_place(ring, request_bytes):
    return reserve(ring, request_bytes)


@kernel(types.void(RING_TYPE, types.int64, types.int64, _HEAD, _CONNECTIONS))
def publish_place(ring, at, request_bytes, head, connections):
    publish(ring, at, request_bytes, head, connections[0])


@kernel(types.int64(RING_TYPE, types.int64))
def next_place(ring, taken):
    return next_record(ring, taken)


class Ring:
    """A small ring, and the requests that are in it."""

    def __init__(self) -> None:
        self.ring = MirrorRing.create(SIZE)
        self.inside = deque[tuple[int, bytes]]()
        self.taken = self.number = self.laps = self.refused = 0
        self._connections = np.zeros(1, CONNECTION)
        self._head = np.zeros(len(HeadWords._fields), np.int64)

    def put(self, request: bytes, reserved: int) -> None:
        """Put a request into the ring: by copying, or in a place of `reserved` bytes if that is not less."""
        self._connections["at_ns"] = self.number
        data = np.frombuffer(request, np.uint8)
        if reserved < len(request):
            is_put = put_copy(self.ring.arrays, data, self._head, self._connections)
        elif is_put := (at := reserve_place(self.ring.arrays, reserved)) >= 0:
            begin = at + RECORD_BYTES
            assert begin + reserved <= SIZE
            self.ring.arrays.data[begin : begin + len(request)] = data
            publish_place(self.ring.arrays, at, len(request), self._head, self._connections)
        if is_put:
            self.inside.append((self.number, request))
        else:
            self.refused += 1
            assert self.ring.waiting_bytes + 2 * (RECORD_BYTES + max(reserved, len(request)) + 8) > SIZE
        self.number += 1

    def take(self) -> None:
        """Take one request out of the ring, if there is one, and compare it with what was put."""
        at = next_place(self.ring.arrays, self.taken)
        assert (at >= 0) == bool(self.inside)
        if at < 0:
            return
        self.laps += at // SIZE > self.taken // SIZE or at % SIZE == 0
        begin = at % SIZE
        words = self.ring.arrays.data[begin : begin + RECORD_BYTES].view(np.int64)
        end = begin + RECORD_BYTES + int(words[RecordWords.END])
        taken = int(words[RecordWords.AT_NS]), self.ring.arrays.data[begin + RECORD_BYTES : end].tobytes()
        assert taken == self.inside.popleft()
        self.taken = int(at + words[RecordWords.SIZE])
        self.ring.take(self.taken, 1)
        assert self.ring.waiting == len(self.inside)


@pytest.mark.parametrize("seed", range(20))
def test_requests_leave_the_ring_in_the_order_in_which_they_entered(seed: int) -> None:
    draw, ring = random.Random(seed), Ring()
    for _ in range(2_000):
        if draw.random() < 0.5:
            size = draw.choice([1, 7, 8, 100, 700, draw.randrange(1, 1_500)])
            reserved = draw.choice([0, size, size + 1, 1_500])
            ring.put(draw.randbytes(size), reserved)
        else:
            ring.take()
    while ring.inside:
        ring.take()
    ring.take()
    assert ring.laps > 10
    assert ring.refused > 10


def test_a_reserved_place_is_not_visible_before_it_is_published() -> None:
    ring = Ring()
    assert reserve_place(ring.ring.arrays, 500) == 0
    assert next_place(ring.ring.arrays, 0) == -1
    ring.put(b"other", 0)
    ring.take()
    assert not ring.inside


def test_a_closed_ring_accepts_nothing() -> None:
    ring = Ring()
    ring.ring.close()
    assert reserve_place(ring.ring.arrays, 1) == -1
