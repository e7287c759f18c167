"""A lane's memory that others read: control words, counters, histograms, samples, in one MAP_SHARED file.

It survives kill -9 and SIGSEGV: whoever opens the file afterwards finds all that was counted. `docs/lane-contract.md`
says what each word means. Counts only grow, so a reader takes intervals by difference and never stops the lane.
"""

from __future__ import annotations

import mmap
import os
from collections import namedtuple
from pathlib import Path

import numpy as np
from numba import from_dtype, types

from .hdr import COUNTERS_2, COUNTERS_3

MAGIC = 0x5245504C41593031
CACHE_LINE_WORDS = 8


Control = namedtuple(
    "ControlWords", "STOP FEED_TAIL FEED_END STATE FEED_HEAD RING_HEAD HEARTBEAT_NS WORDS"
)(0, 8, 16, 24, 32, 40, 48, 56)  # fmt: skip
"""Words of `control`, a cache line apart: STOP, FEED_TAIL and FEED_END are the control plane's, the others the lane's."""

Stop = namedtuple("StopValues", "RUN DRAIN ABANDON")(0, 1, 2)
"""Values of Control.STOP."""

State = namedtuple("StateValues", "NEW RUNNING ENDED")(0, 1, 2)
"""Values of Control.STATE; below zero the lane could not start or go on (minus errno)."""

OUTCOMES = (
    "2xx", "3xx", "4xx", "5xx", "refused", "reset", "truncated", "malformed", "timeout", "generator", "unsent",
)  # fmt: skip
"""How a request ended. The first four are whole answers; `generator` is our own failure, never the target's."""

N_OUTCOMES = len(OUTCOMES)
REFUSED, RESET, TRUNCATED, MALFORMED, TIMEOUT, GENERATOR, UNSENT = range(4, 11)

COUNTERS = (
    "planned", "sent", "ok", "error", "timeout", "in_flight",
    "unsent_max_wait", "unsent_interrupted", "unsent_limit",
    "warm_up", "resent", *(f"outcome_{name}" for name in OUTCOMES),
    "bytes_sent", "bytes_received", "connects", "connects_failed", "closed_by_target", "open", "open_max",
    "waiting", "waiting_max", "cap_bound", "underruns", "routes_merged", "slots_used",
    "informational",
    "first_due_ns", "last_done_ns", "cpu_first_ns", "cpu_last_ns", "idle_ns", "loops",
)  # fmt: skip
"""Names of the words of `counters`, in order."""

C = namedtuple("CounterIndex", COUNTERS)(*range(len(COUNTERS)))
FIRST_OUTCOME = COUNTERS.index("outcome_2xx")

TOTALS = (
    "response.all", "response.ok", "lateness.all", "wait.all", "wait.queue", "wait.connect",
    "service.all", "first_byte.all",
)  # fmt: skip
"""Histograms at 3 digits over all routes."""

T = namedtuple("TotalIndex", [name.replace(".", "_") for name in TOTALS])(*range(len(TOTALS)))

PER_ROUTE = ("response", "service")
"""Histograms at 2 digits by route and outcome."""

SAMPLES_KEPT = 20
ARENA_BYTES = 256 << 20

SAMPLE = np.dtype([
    ("seq", "i8"), ("due_ns", "i8"), ("taken_ns", "i8"), ("sent_ns", "i8"), ("first_byte_ns", "i8"), ("done_ns", "i8"),
    ("bytes", "i8"), ("route", "u4"), ("client", "u4"), ("status", "i4"), ("outcome", "i4"),
])  # fmt: skip
"""One request in full. A stamp that never happened is -1."""

Bank = namedtuple(
    "Bank", "control counters totals slots arena route_counts slowest slowest_counts failed failed_counts"
)
"""The arrays of one lane's memory.

control int64[Control.WORDS], counters int64[len(COUNTERS)], totals uint64[len(TOTALS), COUNTERS_3],
slots int32[routes + 1, N_OUTCOMES] (-1: none yet), arena uint32[slots, 2, COUNTERS_2], route_counts int64[routes + 1,
N_OUTCOMES], slowest and failed SAMPLE[routes + 1, SAMPLES_KEPT], their counts int64[routes + 1]. The last route is
`other`: what no longer fits the arena is recorded there.
"""

sample_type = from_dtype(SAMPLE)
BANK_TYPE = types.NamedTuple(
    [
        types.int64[::1], types.int64[::1], types.uint64[:, ::1], types.int32[:, ::1], types.uint32[:, :, ::1],
        types.int64[:, ::1], sample_type[:, ::1], types.int64[::1], sample_type[:, ::1], types.int64[::1],
    ],
    Bank,
)  # fmt: skip

_HEADER_WORDS = 8


def arena_slots(routes: int, arena_bytes: int = ARENA_BYTES) -> int:
    """Slots that the arena holds: one a (route, outcome) in use, at most `arena_bytes`, never fewer than `other` needs."""
    slot_bytes = len(PER_ROUTE) * COUNTERS_2 * 4
    return max(N_OUTCOMES, min((routes + 1) * N_OUTCOMES, arena_bytes // slot_bytes))


def _fields(routes: int, slots: int) -> list[tuple[str, np.dtype, tuple[int, ...]]]:
    rows = routes + 1
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
    ]


def _map(memory: mmap.mmap, routes: int, slots: int) -> Bank:
    arrays, offset = {}, _HEADER_WORDS * 8
    for name, dtype, shape in _fields(routes, slots):
        offset = -(-offset // 64) * 64
        count = int(np.prod(shape))
        arrays[name] = np.frombuffer(memory, dtype, count, offset).reshape(shape)
        offset += count * dtype.itemsize
    return Bank(**arrays)


def _size(routes: int, slots: int) -> int:
    return _HEADER_WORDS * 8 + sum(
        64 + int(np.prod(shape)) * dtype.itemsize for _, dtype, shape in _fields(routes, slots)
    )


def create(path: str | os.PathLike[str], routes: int, arena_bytes: int = ARENA_BYTES) -> Bank:
    """Make a lane's memory at `path` (which must not exist) for this many routes. OSError where there is no room."""
    slots = arena_slots(routes, arena_bytes)
    with Path(path).open("xb+") as file:
        file.truncate(_size(routes, slots))
        memory = mmap.mmap(file.fileno(), 0)
    header = np.frombuffer(memory, np.int64, _HEADER_WORDS)
    header[:] = [MAGIC, 1, routes, slots, 0, 0, 0, 0]
    bank = _map(memory, routes, slots)
    bank.slots[:] = -1
    bank.slots[routes] = np.arange(N_OUTCOMES)
    bank.counters[C.slots_used] = N_OUTCOMES
    return bank


def open_bank(path: str | os.PathLike[str]) -> Bank:
    """Open a lane's memory, alive or left by a killed run. ValueError where it is not one, or is cut short."""
    with Path(path).open("rb+") as file:
        if os.fstat(file.fileno()).st_size < _HEADER_WORDS * 8:
            raise ValueError(f"{path} is not a lane's memory: it is cut short")
        memory = mmap.mmap(file.fileno(), 0)
    magic, version, routes, slots = np.frombuffer(memory, np.int64, 4)
    if magic != MAGIC or version != 1:
        raise ValueError(f"{path} is not a lane's memory of this version")
    if len(memory) < _size(int(routes), int(slots)):
        raise ValueError(f"{path} is not a whole lane's memory: it is cut short")
    return _map(memory, int(routes), int(slots))
