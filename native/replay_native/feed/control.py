"""The control block of a lane: words that the control plane and the lane's thread share."""

from __future__ import annotations

from typing import NamedTuple


class ControlWords(NamedTuple):
    """Places of the words in `control`, a cache line apart.

    The control plane writes STOP, FEED_TAIL, FEED_END and ADDRESSES. The lane writes the others. WORDS is the length of
    `control`.
    """

    STOP: int = 0
    FEED_TAIL: int = 8
    FEED_END: int = 16
    STATE: int = 24
    FEED_HEAD: int = 32
    RING_HEAD: int = 40
    HEARTBEAT_NS: int = 48
    ADDRESSES: int = 56
    WORDS: int = 64


class StopValues(NamedTuple):
    """Values of Control.STOP."""

    RUN: int = 0
    DRAIN: int = 1
    ABANDON: int = 2


class StateValues(NamedTuple):
    """Values of Control.STATE. A negative value is minus errno: the lane could not start or continue."""

    NEW: int = 0
    RUNNING: int = 1
    ENDED: int = 2


Control, Stop, State = ControlWords(), StopValues(), StateValues()
