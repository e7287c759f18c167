"""A lane's memory that others read: control words, counters, histograms, samples, in one MAP_SHARED file.

It survives kill -9 and SIGSEGV: whoever opens the file afterwards finds all that was counted. `docs/lane-contract.md`
says what each word means. Counts only grow, so a reader takes intervals by difference and never stops the lane.
"""

from __future__ import annotations

import mmap
import os
import stat
import zlib
from collections import namedtuple
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numba import from_dtype, types

from replay_native.feed.addresses import ADDRESS_BYTES, ADDRESSES_MAX, AddressCounts
from replay_native.ground.bundle import bundle_type

from .catalog import (
    COUNTERS,
    FIRST_OUTCOME,
    GENERATOR,
    MALFORMED,
    N_OUTCOMES,
    OUTCOMES,
    PER_ROUTE,
    REFUSED,
    REJECTED,
    RESET,
    TIMEOUT,
    TLS,
    TOTALS,
    TRUNCATED,
    UNSENT,
    C,
    T,
)
from .hdr import COUNTERS_2, COUNTERS_3
from .statuses import StatusIndex

__all__ = [
    "COUNTERS", "FIRST_OUTCOME", "GENERATOR", "MALFORMED", "N_OUTCOMES", "OUTCOMES", "PER_ROUTE", "REFUSED", "REJECTED",
    "RESET", "TIMEOUT", "TLS", "TOTALS", "TRUNCATED", "UNSENT", "C", "T",
]  # fmt: skip
# Whoever reads a lane's memory needs the catalog's indices as well, and may import both from here.

MAGIC = 0x5245504C41593031


class ControlWords(NamedTuple):
    """Words of `control`, a cache line apart. STOP, FEED_TAIL, FEED_END and ADDRESSES are written by the control plane,
    the others by the lane.
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
    """Values of Control.STATE; below zero the lane could not start or go on (minus errno)."""

    NEW: int = 0
    RUNNING: int = 1
    ENDED: int = 2


Control, Stop, State = ControlWords(), StopValues(), StateValues()

SAMPLES_KEPT = 20

BEGINNING_BYTES = 32
"""So many bytes of a malformed answer are kept, at most."""

ARENA_BYTES = 256 << 20

SAMPLE = np.dtype([
    ("seq", "i8"), ("due_ns", "i8"), ("taken_ns", "i8"), ("sent_ns", "i8"), ("first_byte_ns", "i8"), ("done_ns", "i8"),
    ("bytes", "i8"), ("route", "u4"), ("client", "u4"), ("status", "i4"), ("outcome", "i4"), ("rule", "i8"),
])  # fmt: skip
"""One request in full. A stamp that never happened is -1; so is `rule`, but of a mismatch: the check that failed first.
The status of a request that was never sent is its reason, C.unsent_...
"""

Bank = namedtuple(
    "Bank",
    "control counters totals slots arena route_counts slowest slowest_counts failed failed_counts"
    " addresses address_states address_counts rule_counts checked mismatched mismatched_counts rule_refused malformed"
    " status_counts",
)
"""The arrays of one lane's memory.

control int64[Control.WORDS], counters int64[len(COUNTERS)], totals uint64[len(TOTALS), COUNTERS_3],
slots int32[routes + 1, N_OUTCOMES] (-1: none yet), arena uint32[slots, 2, COUNTERS_2], route_counts int64[routes + 1,
N_OUTCOMES], slowest and failed SAMPLE[routes + 1, SAMPLES_KEPT], their counts int64[routes + 1]. The last route is
`other`: what no longer fits the arena is recorded there. addresses uint8[ADDRESSES_MAX, ADDRESS_BYTES],
address_states int64[ADDRESSES_MAX], address_counts int64[ADDRESSES_MAX, len(AddressCounts)]: see `addresses`.
rule_counts int64[rules, 2] of captures and checks: found or held, and not; checked int64[routes + 1, 2]: answers checked,
and mismatches among them; mismatched SAMPLE[routes + 1, SAMPLES_KEPT] and mismatched_counts int64[routes + 1]; rule_refused
int64[rules]: links that a capture refused, which rule_counts has among what was not found. Without rules these five have
one row. malformed uint8[routes + 1, SAMPLES_KEPT, 2 + BEGINNING_BYTES], of each row of `failed` whose answer was malformed:
the parser's reason (`http1.REASONS`), how many bytes follow, and the first bytes of the answer.
status_counts int64[routes + 1, len(StatusIndex)]: responses against the recording (`statuses`).
"""

sample_type = from_dtype(SAMPLE)
BANK_TYPE = bundle_type(
    Bank,
    [
        types.int64[::1], types.int64[::1], types.uint64[:, ::1], types.int32[:, ::1], types.uint32[:, :, ::1],
        types.int64[:, ::1], sample_type[:, ::1], types.int64[::1], sample_type[:, ::1], types.int64[::1],
        types.uint8[:, ::1], types.int64[::1], types.int64[:, ::1], types.int64[:, ::1], types.int64[:, ::1],
        sample_type[:, ::1], types.int64[::1], types.int64[::1], types.uint8[:, :, ::1], types.int64[:, ::1],
    ],
)  # fmt: skip

_HEADER_WORDS = 8


def arena_slots(routes: int, arena_bytes: int = ARENA_BYTES) -> int:
    """Slots that the arena holds: one a (route, outcome) in use, at most `arena_bytes`, never fewer than `other` needs."""
    slot_bytes = len(PER_ROUTE) * COUNTERS_2 * 4
    return max(N_OUTCOMES, min((routes + 1) * N_OUTCOMES, arena_bytes // slot_bytes))


def _fields(routes: int, slots: int, rules: int) -> list[tuple[str, np.dtype, tuple[int, ...]]]:
    rows = routes + 1
    checked = rows if rules else 1
    return [
        ("control", np.dtype("i8"), (Control.WORDS,)),
        ("counters", np.dtype("i8"), (len(COUNTERS),)),
        ("totals", np.dtype("u8"), (len(TOTALS), COUNTERS_3)),
        ("slots", np.dtype("i4"), (rows, N_OUTCOMES)),
        ("arena", np.dtype("u4"), (slots, len(PER_ROUTE), COUNTERS_2)),
        ("route_counts", np.dtype("i8"), (rows, N_OUTCOMES)),
        ("slowest", SAMPLE, (rows, SAMPLES_KEPT)),
        ("slowest_counts", np.dtype("i8"), (rows,)),
        ("failed", SAMPLE, (rows, SAMPLES_KEPT)),
        ("failed_counts", np.dtype("i8"), (rows,)),
        ("addresses", np.dtype("u1"), (ADDRESSES_MAX, ADDRESS_BYTES)),
        ("address_states", np.dtype("i8"), (ADDRESSES_MAX,)),
        ("address_counts", np.dtype("i8"), (ADDRESSES_MAX, len(AddressCounts._fields))),
        ("rule_counts", np.dtype("i8"), (max(rules, 1), 2)),
        ("checked", np.dtype("i8"), (checked, 2)),
        ("mismatched", SAMPLE, (checked, SAMPLES_KEPT)),
        ("mismatched_counts", np.dtype("i8"), (checked,)),
        ("rule_refused", np.dtype("i8"), (max(rules, 1),)),
        ("malformed", np.dtype("u1"), (rows, SAMPLES_KEPT, 2 + BEGINNING_BYTES)),
        ("status_counts", np.dtype("i8"), (rows, len(StatusIndex._fields))),
    ]


def _layout_version() -> int:
    """A checksum of the layout. Memory of another layout is refused, and no number has to be kept in step with it."""
    names = (
        Control._fields,
        COUNTERS,
        TOTALS,
        PER_ROUTE,
        OUTCOMES,
        AddressCounts._fields,
        StatusIndex._fields,
    )
    return zlib.crc32(repr((names, _fields(1, 1, 1))).encode())


VERSION = _layout_version()


def _map(memory: mmap.mmap, routes: int, slots: int, rules: int) -> Bank:
    arrays, offset = {}, _HEADER_WORDS * 8
    for name, dtype, shape in _fields(routes, slots, rules):
        offset = -(-offset // 64) * 64
        count = int(np.prod(shape))
        arrays[name] = np.frombuffer(memory, dtype, count, offset).reshape(shape)
        offset += count * dtype.itemsize
    return Bank(**arrays)


def _size(routes: int, slots: int, rules: int) -> int:
    return _HEADER_WORDS * 8 + sum(
        64 + int(np.prod(shape)) * dtype.itemsize for _, dtype, shape in _fields(routes, slots, rules)
    )


def create(path: str | os.PathLike[str], routes: int, arena_bytes: int = ARENA_BYTES, rules: int = 0) -> Bank:
    """Make a lane's memory at `path` (which must not exist) for so many routes, and captures and checks. OSError where there
    is no room.
    """
    slots = arena_slots(routes, arena_bytes)
    with Path(path).open("xb+") as file:
        # Not a sparse file: a disk that fills up later must not end the lane by SIGBUS.
        os.posix_fallocate(file.fileno(), 0, _size(routes, slots, rules))
        memory = mmap.mmap(file.fileno(), 0)
    header = np.frombuffer(memory, np.int64, _HEADER_WORDS)
    header[:] = [MAGIC, VERSION, routes, slots, rules, 0, 0, 0]
    bank = _map(memory, routes, slots, rules)
    bank.slots[:] = -1
    bank.slots[routes] = np.arange(N_OUTCOMES)
    bank.counters[C.slots_used] = N_OUTCOMES
    return bank


def open_bank(path: str | os.PathLike[str]) -> Bank:
    """Open a lane's memory, alive or left by a killed run. ValueError where it is not one, or is cut short; OSError where
    it is a link or cannot be opened.
    """
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags), "rb+") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_size < _HEADER_WORDS * 8:
            raise ValueError(f"{path} is not a lane's memory: it is cut short")
        memory = mmap.mmap(file.fileno(), 0)
    magic, version, *sizes = np.frombuffer(memory, np.int64, 5).tolist()
    if magic != MAGIC or version != VERSION:
        raise ValueError(f"{path} is not a lane's memory of this version")
    # Every row takes more than a byte: sizes beyond the file's are damage, and too large to be multiplied.
    if not all(0 <= size <= len(memory) for size in sizes) or len(memory) < _size(*sizes):
        raise ValueError(f"{path} is not a whole lane's memory: it is cut short")
    return _map(memory, *sizes)


LaneMetrics = Bank
open_metrics = open_bank
