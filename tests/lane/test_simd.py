"""Bytes looked at thirty-two at a time, against Python's own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay_native.ground import jit
from replay_native.ground import simd as wide

pytestmark = pytest.mark.boundscheck

TEXTS = st.text(alphabet="ab", max_size=100).map(str.encode)


def array(text: bytes) -> np.ndarray:
    return np.frombuffer(bytearray(text), dtype=np.uint8)


@pytest.fixture(scope="module", autouse=True)
def _warm() -> None:
    jit.warm(["ground.simd"])


@given(text=TEXTS, at=st.integers(0, 110), end=st.integers(0, 100))
def test_a_byte_is_found_where_it_first_is_and_not_past_the_end(text: bytes, at: int, end: int) -> None:
    end = min(end, len(text))
    found = text.find(b"b", at, end)
    assert wide.find_one(array(text), at, end, ord("b")) == (end if found < 0 else found)


@given(left=TEXTS, shared=TEXTS, right=TEXTS, places=st.tuples(st.integers(0, 40), st.integers(0, 40)))
def test_stretches_are_alike_up_to_the_first_byte_that_differs(
    left: bytes, shared: bytes, right: bytes, places: tuple[int, int]
) -> None:
    left_text, right_text = b"-" * places[0] + shared + left, b"-" * places[1] + shared + right
    length = len(shared) + min(len(left), len(right))
    pairs = zip(left_text[places[0] :], right_text[places[1] :], strict=False)
    same = next((i for i, (one, other) in enumerate(pairs) if one != other), length)
    assert wide.count_alike(array(left_text), places[0], array(right_text), places[1], length) == same
