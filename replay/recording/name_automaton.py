"""Builds the automaton with which kernels search bodies for parts of secret names (Aho and Corasick, 1975)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from replay.trace.dictionary import Bytes
from replay_native.mirror.cleaning import CLASS_BITS, IGNORED_CLASS

STATES_MAX = 256


class Automaton(NamedTuple):
    """The tables of an automaton.

    `classes` is the class of each byte, `states` the next state by state and class, and `depths` how many bytes of
    a part each state has matched. `end_state` is the state after any part is found; no byte leads out of it.
    """

    classes: Bytes
    states: Bytes
    depths: Bytes
    end_state: int


def automaton(parts: Iterable[bytes], ignored: bytes) -> Automaton:
    """Build the automaton that finds any of `parts`, which are in lower case.

    They are also found in upper case, and with `ignored` bytes between their bytes.
    """
    parts = list(parts)
    classes = np.zeros(256, np.uint8)
    classes[list(ignored)] = IGNORED_CLASS
    letters = sorted(set(b"".join(parts)))
    for number, byte in enumerate(letters, IGNORED_CLASS + 1):
        classes[byte] = number
        if 97 <= byte <= 122:
            classes[byte - 32] = number
    assert len(letters) + IGNORED_CLASS < 1 << CLASS_BITS
    children, ends, depths = _tree(parts)
    end = len(children)
    assert end < STATES_MAX
    states = np.zeros((end + 1, 1 << CLASS_BITS), np.uint8)
    states[end] = end
    fallback = [0] * end
    waiting = deque([0])
    while waiting:
        state = waiting.popleft()
        states[state] = states[fallback[state]] if state else 0
        states[state, IGNORED_CLASS] = state
        for byte, child in children[state].items():
            behind = int(states[fallback[state], classes[byte]]) if state else 0
            fallback[child] = 0 if behind == end else behind
            states[state, classes[byte]] = end if ends[child] or behind == end else child
            waiting.append(child)
    return Automaton(classes, np.ascontiguousarray(states.reshape(-1)), np.array([*depths, 0], np.uint8), end)


def _tree(parts: list[bytes]) -> tuple[list[dict[int, int]], list[bool], list[int]]:
    """Return the tree of all parts: the children of each state by byte, whether a part ends there, and its depth."""
    children: list[dict[int, int]] = [{}]
    ends, depths = [False], [0]
    for part in parts:
        state = 0
        for byte in part:
            if byte not in children[state]:
                children[state][byte] = len(children)
                children.append({})
                ends.append(False)
                depths.append(depths[state] + 1)
            state = children[state][byte]
        ends[state] = True
    return children, ends, depths
