"""The automaton with which kernels search bodies for names of secrets, or parts of them (Aho and Corasick, 1975)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import numpy as np

from replay.trace.dictionary import Bytes
from replay_native.mirror.cleaning import CLASS_BITS

STATES_MAX = 256


def automaton(parts: Iterable[bytes], ignored: bytes) -> tuple[Bytes, Bytes, int]:
    """The class of each byte, the next state by state and class, and the final state, which is reached after any of
    `parts`.

    Parts are in lower case, and are also found in upper case; `ignored` bytes may stand between their bytes.
    """
    parts = list(parts)
    classes = np.zeros(256, np.uint8)
    classes[list(ignored)] = 1
    letters = sorted(set(b"".join(parts)))
    for number, byte in enumerate(letters, 2):
        classes[byte] = number
        if 97 <= byte <= 122:
            classes[byte - 32] = number
    assert len(letters) + 2 <= 1 << CLASS_BITS
    children, ends = _tree(parts)
    end = len(children)
    assert end < STATES_MAX
    states = np.zeros((end + 1, 1 << CLASS_BITS), np.uint8)
    states[end] = end
    fallback = [0] * end
    waiting = deque([0])
    while waiting:
        state = waiting.popleft()
        states[state] = states[fallback[state]] if state else 0
        states[state, 1] = state
        for byte, child in children[state].items():
            behind = int(states[fallback[state], classes[byte]]) if state else 0
            fallback[child] = 0 if behind == end else behind
            states[state, classes[byte]] = end if ends[child] or behind == end else child
            waiting.append(child)
    return classes, np.ascontiguousarray(states.reshape(-1)), end


def _tree(parts: list[bytes]) -> tuple[list[dict[int, int]], list[bool]]:
    """The tree of all parts: the children of each state by byte, and whether a part ends there."""
    children: list[dict[int, int]] = [{}]
    ends = [False]
    for part in parts:
        state = 0
        for byte in part:
            if byte not in children[state]:
                children[state][byte] = len(children)
                children.append({})
                ends.append(False)
            state = children[state][byte]
        ends[state] = True
    return children, ends
