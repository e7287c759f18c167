"""The memory of a lane that others read: control words, counters, histograms and samples, in one MAP_SHARED file.

The memory survives kill -9 and SIGSEGV: the file then holds everything that was counted. `docs/lane-contract.md`
describes each word. Except for gauges (such as `open`), counts only grow, so that a reader computes intervals by
subtraction and never stops the lane.
"""

from __future__ import annotations

import mmap
import os
import stat
import zlib
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
from numba import from_dtype

from replay_native.feed import control as _control
from replay_native.feed.addresses import ADDRESS_BYTES, ADDRESSES_MAX, AddressCounts
from replay_native.ground.bundle import Array, bundle, numba_type

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
    SAMPLES_KEPT,
    TIMEOUT,
    TLS,
    TOTALS,
    TRUNCATED,
    UNSENT,
    C,
    T,
)
from .hdr_layout import COUNTERS_2, COUNTERS_3
from .statuses import StatusIndex

Control, Stop, State = _control.Control, _control.Stop, _control.State

__all__ = [
    "COUNTERS", "FIRST_OUTCOME", "GENERATOR", "MALFORMED", "N_OUTCOMES", "OUTCOMES", "PER_ROUTE", "REFUSED", "REJECTED",
    "RESET", "SAMPLES_KEPT", "TIMEOUT", "TLS", "TOTALS", "TRUNCATED", "UNSENT", "C", "Control", "State", "Stop", "T",
]  # fmt: skip
# These names are re-exported for readers of a lane's memory, which also need the catalog's indices.

MAGIC = 0x5245504C41593031


BEGINNING_BYTES = 32
"""Maximum number of bytes of a malformed response that are kept."""

ARENA_BYTES = 256 << 20

SAMPLE = np.dtype([
    ("seq", "i8"), ("due_ns", "i8"), ("taken_ns", "i8"), ("sent_ns", "i8"), ("first_byte_ns", "i8"), ("done_ns", "i8"),
    ("bytes", "i8"), ("route", "u4"), ("client", "u4"), ("status", "i4"), ("outcome", "i4"), ("rule", "i8"),
])  # fmt: skip
"""One request in full.

A stamp that was never set is -1. `rule` is the check that failed first, -1 if none did. The status of a request
that was never sent is its reason, C.unsent_...
"""

sample_type = from_dtype(SAMPLE)


@bundle
class LaneMetrics(NamedTuple):
    """The arrays of one lane's memory.

    The last route is `other`, which counts the routes that no longer fit the arena. Without captures and checks,
    the arrays about them have one row.
    """

    control: Annotated[Array, "int64[::1]", "control words; see `Control`"]
    counters: Annotated[Array, "int64[::1]", "counters; see `C`"]
    totals: Annotated[Array, "uint64[:, ::1]", "histograms over all routes, at 3 digits; see `T`"]
    slots: Annotated[Array, "int32[:, ::1]", "per route and outcome: its slot in the arena, -1 for none yet"]
    arena: Annotated[Array, "uint32[:, :, ::1]", "per slot: histograms of `PER_ROUTE`, at 2 digits"]
    route_counts: Annotated[Array, "int64[:, ::1]", "requests per route and outcome"]
    route_own: Annotated[
        Array, "int64[::1]", "per route: of its unsent requests, those for which the target is not to blame"
    ]
    slowest: Annotated[Array, sample_type[:, ::1], "per route: the slowest requests"]
    slowest_counts: Annotated[Array, "int64[::1]", "per route: how many of these there are"]
    failed: Annotated[Array, sample_type[:, ::1], "per route: the first requests that failed"]
    failed_counts: Annotated[Array, "int64[::1]", "per route: how many of these there are"]
    addresses: Annotated[Array, "uint8[:, ::1]", "the address table; see `feed/addresses`"]
    address_states: Annotated[Array, "int64[::1]", "per address: UNUSED, IN_USE or REMOVED"]
    address_counts: Annotated[
        Array, "int64[:, ::1]", "per address: what the lane did with it; see `AddressCounts`"
    ]
    rule_counts: Annotated[Array, "int64[:, ::1]", "per capture and check: found or held, and not"]
    checked: Annotated[Array, "int64[:, ::1]", "per route: responses checked, and mismatches among them"]
    mismatched: Annotated[Array, sample_type[:, ::1], "per route: the first mismatches"]
    mismatched_counts: Annotated[Array, "int64[::1]", "per route: how many of these there are"]
    rule_refused: Annotated[
        Array, "int64[::1]", "per capture: links that it refused (not found, in `rule_counts`)"
    ]
    malformed: Annotated[
        Array, "uint8[:, :, ::1]", "per failed row: the parser's reason, a length, the first bytes"
    ]
    status_counts: Annotated[
        Array, "int64[:, ::1]", "per route: responses against the recording; see `statuses`"
    ]


METRICS_TYPE = numba_type(LaneMetrics)

_HEADER_WORDS = 8


def arena_slots(routes: int, arena_bytes: int = ARENA_BYTES) -> int:
    """Return the number of slots of the arena: one per route and outcome, as far as `arena_bytes` allow.

    There are never fewer slots than `other` needs.
    """
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
        ("route_own", np.dtype("i8"), (rows,)),
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
    """Return a checksum of the layout. Memory with another layout is refused.

    Because the checksum is computed, nobody has to remember to change a version number.
    """
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


def _map(memory: mmap.mmap, routes: int, slots: int, rules: int) -> LaneMetrics:
    arrays, offset = {}, _HEADER_WORDS * 8
    for name, dtype, shape in _fields(routes, slots, rules):
        offset = -(-offset // 64) * 64
        count = int(np.prod(shape))
        arrays[name] = np.frombuffer(memory, dtype, count, offset).reshape(shape)
        offset += count * dtype.itemsize
    return LaneMetrics(**arrays)


def _size(routes: int, slots: int, rules: int) -> int:
    return _HEADER_WORDS * 8 + sum(
        64 + int(np.prod(shape)) * dtype.itemsize for _, dtype, shape in _fields(routes, slots, rules)
    )


def create(
    path: str | os.PathLike[str], routes: int, arena_bytes: int = ARENA_BYTES, rules: int = 0
) -> LaneMetrics:
    """Create a lane's memory at `path`, which must not exist, for `routes` routes and `rules` captures and checks.

    Raises OSError if the path exists or there is no space.
    """
    slots = arena_slots(routes, arena_bytes)
    with Path(path).open("xb+") as file:
        # A sparse file would end the process with SIGBUS at a write that a full disk cannot back.
        os.posix_fallocate(file.fileno(), 0, _size(routes, slots, rules))
        memory = mmap.mmap(file.fileno(), 0)
    header = np.frombuffer(memory, np.int64, _HEADER_WORDS)
    header[:] = [MAGIC, VERSION, routes, slots, rules, 0, 0, 0]
    metrics = _map(memory, routes, slots, rules)
    metrics.slots[:] = -1
    metrics.slots[routes] = np.arange(N_OUTCOMES)
    metrics.counters[C.slots_used] = N_OUTCOMES
    return metrics


def open_metrics(path: str | os.PathLike[str]) -> LaneMetrics:
    """Open the memory of a lane that is running, or that a killed run left.

    Raises ValueError if the file is not a lane's memory of this version, or is truncated, and OSError if it is a link or
    cannot be opened.
    """
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags), "rb+") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_size < _HEADER_WORDS * 8:
            raise ValueError(f"{path} is not a lane's memory: it is not a regular file, or it is too short")
        memory = mmap.mmap(file.fileno(), 0)
    magic, version, *sizes = np.frombuffer(memory, np.int64, 5).tolist()
    if magic != MAGIC or version != VERSION:
        raise ValueError(f"{path} is not a lane's memory of this version")
    # A row has more than a byte, so a size larger than the file means damage. Multiplying such sizes might overflow.
    if not all(0 <= size <= len(memory) for size in sizes) or len(memory) < _size(*sizes):
        raise ValueError(f"{path} is damaged or truncated: its size does not fit its header")
    return _map(memory, *sizes)
