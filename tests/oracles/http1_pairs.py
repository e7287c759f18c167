"""Answers parsed on a record that another answer has used before, in one compiled loop."""

from __future__ import annotations

import numpy as np
from numba import from_dtype, int64, njit, uint8

from replay_native.http1 import parser as http1

from .http1_oracle import HEADER_LIMIT

_PARSERS = from_dtype(http1.PARSER)[::1]


_WORDS = int64[:, ::1]


@njit(int64[::1](_PARSERS, _WORDS, _PARSERS, _WORDS, uint8[::1], int64[::1], int64))
def first_difference(used, used_words, fresh, fresh_words, data, ends, header_limit):
    """Parse each answer on a fresh record, and behind every cut of every answer on the record that it has left.

    Answer i is data[ends[i]:ends[i + 1]]; `fresh` has a record for each; `..._words` are the same memory. The first
    (answer, cut, answer behind it) whose records differ, or -1.
    """
    count = ends.size - 1
    found = np.full(3, -1, np.int64)
    for i in range(count):
        http1.reset(fresh[i], 0)
        http1.parse(fresh[i], data, ends[i], ends[i + 1], header_limit, False)
    for i in range(count):
        http1.reset(used[0], i & 1)
        for cut in range(ends[i], ends[i + 1] + 1):
            if cut > ends[i]:
                http1.parse(used[0], data, cut - 1, cut, header_limit, False)
            for j in range(count):
                used_words[1, :] = used_words[0, :]
                http1.reset(used[1], 0)
                http1.parse(used[1], data, ends[j], ends[j + 1], header_limit, False)
                if (used_words[1, :] != fresh_words[j, :]).any():
                    found[0], found[1], found[2] = i, cut - ends[i], j
                    return found
    return found


def difference(answers: list[bytes]) -> tuple[int, int, int] | None:
    """The first (answer, bytes of it that were parsed, answer behind it) that is read otherwise than on a fresh record."""
    data = np.frombuffer(b"".join(answers) + b"\0", np.uint8).copy()
    ends = np.cumsum([0, *map(len, answers)]).astype(np.int64)
    used, fresh = np.zeros(2, http1.PARSER), np.zeros(len(answers), http1.PARSER)
    words = [rows.view(np.int64).reshape(rows.size, -1) for rows in (used, fresh)]
    first, cut, second = first_difference(used, words[0], fresh, words[1], data, ends, HEADER_LIMIT).tolist()
    return None if first < 0 else (first, cut, second)
