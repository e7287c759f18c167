"""Doubly linked lists over the rows of a table, by index: every operation is O(1), and nothing is allocated.

`Lists` holds any number of lists over one table. A row is in at most one of them, and the column `LIST` of its links
has the number of that list. So a row can be removed without a search, and a test can detect a row that is put into a
second list.

The links are stored apart from the table's own rows. So one implementation serves every table, and an operation
touches only 12 bytes of each neighbor instead of a whole row.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np

from .bundle import Array, bundle, numba_type
from .jit import kernel

NONE = -1
"""In place of a row: there is none. In place of a list: the row is in no list."""

NEXT, PREVIOUS, LIST = range(3)
"""Columns of `links`."""

FIRST, LAST, LENGTH = range(3)
"""Columns of `ends`."""


@bundle
class Lists(NamedTuple):
    """Lists over the rows of one table."""

    links: Annotated[
        Array, "int32[:, ::1]", "per row: the next and previous row in its list, and the number of that list"
    ]
    ends: Annotated[Array, "int32[:, ::1]", "per list: its first and last row, and how many rows it has"]


LISTS_TYPE = numba_type(Lists)


def make_lists(rows: int, lists: int = 1) -> Lists:
    """Create empty lists over a table of `rows` rows."""
    links, ends = np.full((rows, 3), NONE, np.int32), np.full((lists, 3), NONE, np.int32)
    ends[:, LENGTH] = 0
    return Lists(links, ends)


def fill(lists: Lists, which: int) -> None:
    """Put all rows, which must not be in a list yet, into one list in order."""
    rows = len(lists.links)
    lists.links[:, NEXT] = np.arange(1, rows + 1)
    lists.links[-1:, NEXT] = NONE
    lists.links[:, PREVIOUS] = np.arange(-1, rows - 1)
    lists.links[:, LIST] = which
    lists.ends[which] = (0, rows - 1, rows) if rows else (NONE, NONE, 0)


@kernel(inlined=True)
def first_of(lists, which):
    """Return the first row of a list, or NONE."""
    return np.int64(lists.ends[which, FIRST])


@kernel(inlined=True)
def last_of(lists, which):
    """Return the last row of a list, or NONE."""
    return np.int64(lists.ends[which, LAST])


@kernel(inlined=True)
def length_of(lists, which):
    """Return how many rows a list has."""
    return np.int64(lists.ends[which, LENGTH])


@kernel(inlined=True)
def is_in_list(lists, row):
    """Return whether a row is in one of the lists."""
    return lists.links[row, LIST] != NONE


@kernel(inlined=True)
def push_front(lists, which, row):
    """Put a row that is in no list at the front of a list."""
    links, ends = lists.links, lists.ends
    following = ends[which, FIRST]
    links[row, NEXT], links[row, PREVIOUS], links[row, LIST] = following, np.int32(NONE), np.int32(which)
    if following == NONE:
        ends[which, LAST] = np.int32(row)
    else:
        links[following, PREVIOUS] = np.int32(row)
    ends[which, FIRST] = np.int32(row)
    ends[which, LENGTH] += np.int32(1)


@kernel(inlined=True)
def push_back(lists, which, row):
    """Put a row that is in no list at the back of a list."""
    links, ends = lists.links, lists.ends
    before = ends[which, LAST]
    links[row, NEXT], links[row, PREVIOUS], links[row, LIST] = np.int32(NONE), before, np.int32(which)
    if before == NONE:
        ends[which, FIRST] = np.int32(row)
    else:
        links[before, NEXT] = np.int32(row)
    ends[which, LAST] = np.int32(row)
    ends[which, LENGTH] += np.int32(1)


@kernel(inlined=True)
def drop(lists, row):
    """Remove a row from the list that it is in."""
    links, ends = lists.links, lists.ends
    following, before, which = links[row, NEXT], links[row, PREVIOUS], links[row, LIST]
    if before == NONE:
        ends[which, FIRST] = following
    else:
        links[before, NEXT] = following
    if following == NONE:
        ends[which, LAST] = before
    else:
        links[following, PREVIOUS] = before
    links[row, LIST] = np.int32(NONE)
    ends[which, LENGTH] -= np.int32(1)


@kernel(inlined=True)
def pop_front(lists, which):
    """Remove the first row of a list and return it. The list must not be empty."""
    row = np.int64(lists.ends[which, FIRST])
    drop(lists, row)
    return row
