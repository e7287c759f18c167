"""Linked lists as Python reads them, every link checked."""

from __future__ import annotations

from replay_native.ground.linked import FIRST, LAST, LENGTH, LIST, NEXT, NONE, PREVIOUS, Lists


def rows_of(lists: Lists, which: int = 0) -> list[int]:
    """The rows of a list from first to last."""
    found, before, row = list[int](), NONE, int(lists.ends[which, FIRST])
    while row != NONE:
        assert (lists.links[row, PREVIOUS], lists.links[row, LIST]) == (before, which)
        assert len(found) < len(lists.links), "the list goes in a circle"
        found.append(row)
        before, row = row, int(lists.links[row, NEXT])
    assert (lists.ends[which, LAST], lists.ends[which, LENGTH]) == (before, len(found))
    return found


def all_rows(lists: Lists) -> list[list[int]]:
    """The rows of every list. A row that is in none says so."""
    found = [rows_of(lists, which) for which in range(len(lists.ends))]
    listed = {row for rows in found for row in rows}
    assert {row for row in range(len(lists.links)) if lists.links[row, LIST] != NONE} == listed
    return found
