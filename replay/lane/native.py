"""The native engine: one kernel without the interpreter lock, on one thread, a lane."""

from __future__ import annotations

import ctypes
import os

import numpy as np
import trio

from replay.errors import EngineError
from replay_native.feed.addresses import ADDRESSES_MAX
from replay_native.ground.libc import EPOLL_EVENT_BYTES
from replay_native.lane import loop as kernels
from replay_native.lane.clients import NONE, make_clients, make_room
from replay_native.lane.connections import CONNECTION, STATE, Lane
from replay_native.lane.libssl import sigpipe_held_back
from replay_native.lane.retry import RETRY_ON
from replay_native.ledger.lane_metrics import BEGINNING_BYTES, Control, State

from .addresses import AddressTable
from .contract import LaneSpec
from .tls import Tls, native_context

KERNEL_MODULES = (
    "ground.shared",
    "ledger.hdr",
    "ledger.hdr_decode",
    "http1.parser",
    "ledger.record",
    "ledger.gaps",
    "lane.loop",
)

_LISTS = (
    "free_first", "timed_first", "timed_last", "closed_first", "age_first", "age_last", "ready_first", "ready_last",
    "free_last", "dial_first", "dial_last",
)  # fmt: skip
"""Ends of the lane's lists, which are empty at first."""


def make_lane(spec: LaneSpec) -> Lane:
    """All memory of one lane, allocated and touched before its first request is due."""
    state = np.zeros(1, STATE)
    for name in (
        "wake_fd",
        "connections",
        "timeout_ns",
        "max_wait_ns",
        "spin_ns",
        "ordered",
        "lanes",
        "by_client",
        "client_connections",
        "idle_timeout_ns",
    ):
        state[name] = getattr(spec, name)
    state["header_limit"] = spec.header_limit_bytes
    state["closed_loop"] = spec.closed_loop
    state["per_client"] = spec.connect == "per-client"
    state["single_use"] = spec.connect == "per-request"
    state["entries_limit"] = spec.feed.entries.size // 2
    state["ring_limit"] = spec.feed.ring.size // 2
    state["has_pwait2"] = 1
    for name in _LISTS:
        state[name] = NONE
    if spec.retry is not None:
        for name in (
            "attempts",
            "backoff_ns",
            "backoff_max_ns",
            "jitter_ppm",
            "budget_ppm",
            "burst_ppm",
            "all_methods",
        ):
            state[f"retry_{name}"] = getattr(spec.retry, name)
        state["retry_tokens_ppm"], state["seed"] = spec.retry.burst_ppm, spec.retry.seed
    rows = spec.feed.entries.size // 2 if spec.by_client or spec.retry is not None else 1
    connections = np.zeros(spec.connections, CONNECTION)
    connections["fd"] = NONE
    AddressTable(spec.bank).begin(spec.addresses)
    state["next_address"] = spec.number
    state["ask_fd"] = spec.ask_fd
    return Lane(
        bank=spec.bank,
        feed=spec.feed,
        connections=connections,
        clients=make_clients(spec.clients if spec.by_client else 1),
        room=make_room(rows),
        backoff=np.zeros(rows, np.int32),
        retry_on=np.zeros(RETRY_ON, np.uint8) if spec.retry is None else spec.retry.on,
        state=state,
        chosen=np.zeros(ADDRESSES_MAX, np.int64),
        asks=spec.asks,
        events=np.zeros(kernels.EVENTS_AT_ONCE * EPOLL_EVENT_BYTES, np.uint8),
        buffer=np.zeros(kernels.BUFFER_BYTES, np.uint8),
        scratch=np.zeros(8, np.int64),
        sessions=spec.sessions.table(spec.clients, spec.lanes, spec.connections, spec.bank.rule_refused),
        beginnings=np.zeros((spec.connections, BEGINNING_BYTES), np.uint8),
    )


def _run_secured(lane: Lane, tls: Tls) -> None:
    """Run a lane whose connections are secured, on this thread."""
    name = ctypes.create_string_buffer(tls.sni.encode())
    # The connections of clients are many, and seldom in use.
    keeps_buffers = not lane.state["per_client"][0]
    with native_context(tls, keeps_buffers=keeps_buffers) as context, sigpipe_held_back():
        lane.state["tls_context"] = context
        lane.state["tls_name"] = ctypes.addressof(name) if tls.sni else 0
        lane.state["tls_resume"] = tls.resume
        kernels.run(lane)


async def run_lane(spec: LaneSpec) -> None:
    """Run one native lane to its end. It cannot be cancelled: write STOP to its control block.

    Raises EngineError where the lane could not start.
    """
    lane = make_lane(spec)
    with trio.CancelScope(shield=True):
        if spec.tls is None:
            await trio.to_thread.run_sync(kernels.run, lane)
        else:
            await trio.to_thread.run_sync(_run_secured, lane, spec.tls)
    state = int(spec.bank.control[Control.STATE])
    if state != State.ENDED:
        raise EngineError(
            f"a lane could not start: {os.strerror(-state)}", hint="raise the limit on open files (ulimit -n)"
        )
