"""Linked lists over the rows of a table, against Python's own lists."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import int64

from replay_native.ground import jit
from replay_native.ground.jit import kernel
from replay_native.ground.linked import (
    LISTS_TYPE,
    drop,
    fill,
    first_of,
    is_in_list,
    last_of,
    length_of,
    make_lists,
    pop_front,
    push_back,
    push_front,
)

from .lists import rows_of

pytestmark = pytest.mark.boundscheck

FRONT, BACK, DROP, POP = range(4)
ROWS, LISTS = 6, 3


@kernel(int64(LISTS_TYPE, int64, int64, int64))
def operate(lists, operation, which, row):
    """One operation; the row that it moved."""
    if operation == FRONT:
        push_front(lists, which, row)
    elif operation == BACK:
        push_back(lists, which, row)
    elif operation == DROP:
        drop(lists, row)
    else:
        return pop_front(lists, which)
    return row


@kernel(int64(LISTS_TYPE, int64, int64, int64[::1]))
def describe(lists, which, row, out):
    """The first row of a list, its last row and its length; whether a row is in a list."""
    out[0], out[1], out[2] = first_of(lists, which), last_of(lists, which), length_of(lists, which)
    return np.int64(is_in_list(lists, row))


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    jit._entries.pop(__name__, None)


STEPS = st.lists(
    st.tuples(st.integers(FRONT, POP), st.integers(0, LISTS - 1), st.integers(0, ROWS - 1)), max_size=60
)


@given(STEPS)
def test_lists_are_pythons(steps: list[tuple[int, int, int]]) -> None:
    lists, twin = make_lists(ROWS, LISTS), [list[int]() for _ in range(LISTS)]
    for operation, which, row in steps:
        at = next((number for number, rows in enumerate(twin) if row in rows), None)
        if operation in (FRONT, BACK):
            if at is not None:
                continue
            twin[which].insert(0 if operation == FRONT else len(twin[which]), row)
        elif operation == DROP:
            if at is None:
                continue
            twin[at].remove(row)
        elif not twin[which]:
            continue
        expected = twin[which].pop(0) if operation == POP else row
        assert operate(lists, operation, which, row) == expected
        assert [rows_of(lists, number) for number in range(LISTS)] == twin
        found = np.zeros(3, np.int64)
        is_in = describe(lists, which, row, found)
        ends = [twin[which][0], twin[which][-1]] if twin[which] else [-1, -1]
        assert found.tolist() == [*ends, len(twin[which])]
        assert is_in == any(row in rows for rows in twin)


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_a_list_can_begin_with_all_rows(rows: int) -> None:
    lists = make_lists(rows, 2)
    fill(lists, 1)
    assert rows_of(lists, 1) == list(range(rows))
    assert rows_of(lists, 0) == []
