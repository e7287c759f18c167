"""Back-off: how long it is, and who is next."""

from __future__ import annotations

import heapq
from collections import namedtuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay_native.ground import jit
from replay_native.lane import retry

MS_NS = 1_000_000

pytestmark = pytest.mark.boundscheck


@pytest.fixture(scope="module", autouse=True)
def _kernels() -> None:
    jit.warm(["lane.retry"])


@given(seq=st.integers(0, 1 << 50), base_ns=st.integers(0, 1 << 40), most_ns=st.integers(0, 1 << 40))
def test_without_jitter_a_back_off_doubles_up_to_its_longest(seq: int, base_ns: int, most_ns: int) -> None:
    for number in range(1, 12):
        found = retry.backoff_ns(seq, number, base_ns, most_ns, 0, 1)
        assert found == min(base_ns * 2 ** (number - 1), most_ns)


def test_full_jitter_is_uniform_and_the_same_again() -> None:
    waits = np.array([retry.backoff_ns(seq, 1, MS_NS, MS_NS, retry.PPM, 7) for seq in range(4_000)])
    assert ((waits >= 0) & (waits < MS_NS)).all()
    assert waits.mean() == pytest.approx(MS_NS / 2, rel=0.05)
    assert np.histogram(waits, 10)[0] == pytest.approx(np.full(10, 400), abs=100)
    assert retry.backoff_ns(5, 1, MS_NS, MS_NS, retry.PPM, 7) == waits[5]
    assert retry.backoff_ns(5, 1, MS_NS, MS_NS, retry.PPM, 8) != waits[5]
    assert retry.backoff_ns(5, 1, MS_NS, MS_NS, retry.PPM // 2, 7) >= MS_NS // 2


Heap = namedtuple("Heap", "state backoff wait_queue")


@given(
    times=st.lists(st.integers(0, 50), min_size=1, max_size=40),
    pops=st.lists(st.booleans(), min_size=40, max_size=40),
)
def test_the_next_is_the_one_that_a_heap_would_give(times: list[int], pops: list[bool]) -> None:
    """The kernels' Python bodies are held against `heapq`; the lane's suite runs them compiled."""
    push, pop = retry.push_backoff.py_func, retry.pop_backoff.py_func  # type: ignore[attr-defined]
    lane = Heap(
        np.zeros(1, [("backing_off", "i8")]).view(np.recarray),
        np.zeros(len(times), np.int32),
        np.array([(at,) for at in times], [("retry_ns", "i8")]).view(np.recarray),
    )
    twin: list[int] = []
    for row, (at, also) in enumerate(zip(times, pops, strict=False)):
        push(lane, row)
        heapq.heappush(twin, at)
        if also:
            assert times[pop(lane)] == heapq.heappop(twin)
    while twin:
        assert times[pop(lane)] == heapq.heappop(twin)
    assert lane.state[0].backing_off == 0
