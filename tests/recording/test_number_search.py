"""Each search for phone, card and account numbers finds exactly what a search in plain Python finds."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import types

from replay_native.ground.jit import kernel
from replay_native.ground.nibbles import HAS_NIBBLES, byte_set
from replay_native.ground.simd import WIDTH
from replay_native.mirror.number_search import search_runs, search_steps

SIGNATURE = types.boolean(types.uint8[::1], types.int64, types.int64)
RUN = re.compile(rb"[0-9A-Z ()+.-]+")
PIECES = st.sampled_from(
    [
        b"4",
        b"12",
        b"555",
        b"0199",
        b"DE",
        b"A",
        b"+",
        b"(",
        b") ",
        b"-",
        b".",
        b" ",
        b"x",
        b",",
        b"\xe9",
        b"tea" * 9,
    ]
)


@kernel(SIGNATURE)
def by_steps(data, begin, end):
    return search_steps(data, begin, end)


@kernel(SIGNATURE)
def by_runs(data, begin, end):
    return search_runs(data, begin, end)


NO_AVX2 = pytest.mark.skipif(not HAS_NIBBLES, reason="kernels are compiled for a CPU without AVX2")


@pytest.fixture(
    params=[by_steps, pytest.param(by_runs, marks=NO_AVX2)], ids=["steps", "runs"], scope="module"
)
def search(request):
    def found(body: bytes, before: bytes = b"", after: bytes = b"") -> bool:
        data = np.frombuffer(before + body + after, np.uint8)
        return bool(request.param(data, len(before), len(before) + len(body)))

    return found


def may_be_number(run: bytes) -> bool:
    digits, capitals = len(re.findall(rb"[0-9]", run)), len(re.findall(rb"[A-Z]", run))
    return (
        digits >= 13
        or (b"+" in run and digits >= 8)
        or (b"(" in run and digits >= 10)
        or (capitals >= 2 and digits >= 2 and digits + capitals >= 15)
    )


def has_number(body: bytes) -> bool:
    return any(may_be_number(run) for run in RUN.findall(body))


@pytest.mark.parametrize("size", [WIDTH, 3 * WIDTH + 7])
@pytest.mark.parametrize(
    "number", [b"4111111111111111", b"+49 30 1234567", b"(555) 010-9999", b"DE02120300000000202051"]
)
def test_a_number_is_found_at_each_place(search, number, size):
    for at in range(size - len(number) + 1):
        body = b"x" * at + number + b"x" * (size - len(number) - at)
        assert search(body), at
        assert search(body, b"4" * 9, b"x" * WIDTH), at


@pytest.mark.parametrize("size", range(WIDTH + 3))
def test_bytes_outside_of_a_body_do_not_belong_to_a_number(search, size):
    assert not search(b"4" * min(size, 12), before=b"4" * 9, after=b"4" * WIDTH)
    assert not search(b"x" * size, before=b"4" * 20, after=b"4" * WIDTH)


@given(pieces=st.lists(PIECES, min_size=1, max_size=120), after=st.sampled_from([b"", b"4" * 40, b"x" * 40]))
def test_a_search_finds_what_a_plain_one_does(search, pieces, after):
    body = b"".join(pieces)
    assert search(body, b"4+", after) == has_number(body)


def test_a_set_has_at_most_eight_high_nibbles():
    with pytest.raises(ValueError, match=r"9 high nibbles, and a row has 8 bits"):
        byte_set(bytes(range(0, 144, 16)))
