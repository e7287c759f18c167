"""Regular expressions as programs of a virtual machine, which runs in time linear in the text.

This is Pike's virtual machine, as R. Cox describes it in "Regular Expression Matching: the Virtual Machine Approach".
`replay/settings/patterns.py` compiles the programs.

A program captures one group. The match is the one that Python's `re.search` finds: the leftmost, with the
alternatives in their order of preference.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import int32, int64, uint8

from .bundle import Int
from .jit import kernel

MATCH, BYTES, SPLIT, JUMP, SAVE = range(5)
"""Operations of an instruction (operation, a, b).

BYTES consumes one byte that is in set a. SPLIT tries a first, then b. JUMP continues at a. SAVE stores the current
position as the group's begin (a = 0) or end (a = 1).
"""

PROGRAM_MAX = 255
"""The largest number of instructions in a program."""

WORK_ROWS = 9
"""Rows of the scratch memory, int32[WORK_ROWS, PROGRAM_MAX + 1].

They hold two lists of threads (instruction, begin, end), the marks, and the stack of instructions to follow (two
rows).
"""

_MARKS, _STACK = 6, 7


class Thread(NamedTuple):
    """One path through the program: its next instruction, and where the group began and ended (-1: not yet)."""

    pc: Int
    start: Int
    stop: Int


@kernel()
def _follow(program, first, thread, at, work, threads, count):
    """Append the threads that a thread reaches without consuming a byte, and return the new count of the list.

    Preferred threads come first. An instruction whose mark is `at` was already followed at this position of the text.
    The stack holds the instructions to follow. Beside each it holds whether the group began (1) or ended (2) at this
    position on the way to the instruction.
    """
    row, depth, mark, start, stop = 3 * threads, np.int64(1), at, thread.start, thread.stop
    work[_STACK, 0], work[_STACK + 1, 0] = thread.pc, 0
    while depth:
        depth -= 1
        here, saved = np.int64(work[_STACK, depth]), np.int64(work[_STACK + 1, depth])
        while work[_MARKS, here] != mark:
            work[_MARKS, here] = mark
            operation = program[first + here, 0]
            if operation == JUMP:
                here = np.int64(program[first + here, 1])
            elif operation == SPLIT:
                work[_STACK, depth] = program[first + here, 2]
                work[_STACK + 1, depth] = saved
                depth += 1
                here = np.int64(program[first + here, 1])
            elif operation == SAVE:
                saved |= np.int64(program[first + here, 1]) + 1
                here += 1
            else:
                work[row, count] = here
                work[row + 1, count] = at if saved & 1 else start
                work[row + 2, count] = at if saved & 2 else stop
                count += 1
                break
    return count


@kernel()
def search(data, begin, end, program, first, sets, work):
    """Return (begin, end) of the group of the first match in data[begin:end].

    The result is (-1, -1) if there is no match, or if its group took no part in it.

    `program` is int32[n, 3], and the program to run begins at row `first`. `sets` is uint8[n, 256]. The first
    instruction is a JUMP whose b, program[first, 2], is the set of the bytes that a match can begin with.
    """
    one, none = np.int64(1), np.int64(-1)
    found_start, found_stop = none, none
    current, count, matched = np.int64(0), np.int64(0), False
    work[_MARKS, :] = -1
    beginnings = np.int64(program[first, 2])
    at = begin
    while at <= end:
        if count == 0:
            if matched:
                break
            while at < end and sets[beginnings, data[at]] == 0:
                at += 1
        if not matched:
            # A match that begins here has the lowest preference. So instructions that the threads on the list have
            # reached already at this position stay marked, and are not followed again.
            count = _follow(program, first, Thread(one, none, none), at, work, current, count)
        following, kept = 1 - current, np.int64(0)
        row = 3 * current
        for i in range(count):
            pc = np.int64(work[row, i])
            start, stop = np.int64(work[row + 1, i]), np.int64(work[row + 2, i])
            if program[first + pc, 0] == MATCH:
                found_start, found_stop, matched = start, stop, True
                break
            if at < end and sets[program[first + pc, 1], data[at]]:
                kept = _follow(program, first, Thread(pc + 1, start, stop), at + 1, work, following, kept)
        current, count = following, kept
        at += 1
    if found_start < 0 or found_stop < found_start:
        return np.int64(-1), np.int64(-1)
    return found_start, found_stop


@kernel(int64(uint8[::1], int32[:, ::1], uint8[:, ::1], int32[:, ::1], int64[::1]))
def searched(data, program, sets, work, group):
    """Write the group of the first match to `group` int64[2], and return its length or -1 (for tests)."""
    group[0], group[1] = search(data, 0, data.size, program, 0, sets, work)
    return group[1] - group[0] if group[0] >= 0 else np.int64(-1)
