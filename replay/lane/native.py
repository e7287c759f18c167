"""The native engine: each lane is one kernel on one thread, without the interpreter lock."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Iterator

import numpy as np
import trio

from replay.errors import EngineError
from replay_native.feed.addresses import ADDRESSES_MAX
from replay_native.ground.libc import EPOLL_EVENT_BYTES
from replay_native.ground.linked import NONE, fill, make_lists
from replay_native.lane import loop as kernels
from replay_native.lane.clients import CLIENT, WAITING
from replay_native.lane.connections import CONNECTION, SLOT_LISTS, STATE, UNUSED, Lane, LaneSettings
from replay_native.lane.libssl import sigpipe_held_back
from replay_native.lane.retry import RETRY_ON
from replay_native.ledger.lane_metrics import BEGINNING_BYTES, Control, State

from .addresses import AddressTable
from .contract import LaneSpec
from .tls import Tls, native_context


def _settings(spec: LaneSpec) -> LaneSettings:
    """Return the settings for the kernels without TLS, which `secured` adds on the lane's thread."""
    retry = spec.retry
    return LaneSettings(
        wake_fd=spec.wake_fd,
        resolve_fd=spec.resolve_fd,
        connections=spec.connections,
        timeout_ns=spec.timeout_ns,
        max_wait_ns=spec.max_wait_ns,
        spin_ns=spec.spin_ns,
        header_limit=spec.response_headers_bytes,
        entries_limit=spec.feed.entries.size // 2,
        ring_limit=spec.feed.ring.size // 2,
        lanes=spec.lanes,
        client_connections=spec.client_connections,
        idle_timeout_ns=spec.idle_timeout_ns,
        closed_loop=spec.closed_loop,
        ordered=spec.ordered,
        by_client=spec.by_client,
        per_client=spec.connect == "per-client",
        single_use=spec.connect == "per-request",
        retry_attempts=0 if retry is None else retry.attempts,
        retry_backoff_ns=0 if retry is None else retry.backoff_ns,
        retry_backoff_max_ns=0 if retry is None else retry.backoff_max_ns,
        retry_jitter_ppm=0 if retry is None else retry.jitter_ppm,
        retry_budget_ppm=0 if retry is None else retry.budget_ppm,
        retry_burst_ppm=0 if retry is None else retry.burst_ppm,
        retry_all_methods=retry is not None and retry.all_methods,
        seed=0 if retry is None else retry.seed,
        trace_seed=spec.trace_seed,
        tls_context=0,
        tls_name=0,
        tls_resume=False,
    )


def make_lane(spec: LaneSpec) -> Lane:
    """Allocate the tables and buffers of one lane before its first request is due."""
    state = np.zeros(1, STATE)
    state["has_pwait2"] = 1
    state["next_address"] = spec.number
    if spec.retry is not None:
        state["retry_tokens_ppm"] = spec.retry.burst_ppm
    clients = spec.clients if spec.by_client else 1
    rows = spec.feed.entries.size // 2 if spec.by_client or spec.retry is not None else 1
    connections = np.zeros(spec.connections, CONNECTION)
    connections["fd"] = NONE
    slots_by_state, free_rows = make_lists(spec.connections, SLOT_LISTS), make_lists(rows)
    fill(slots_by_state, UNUSED)
    fill(free_rows, 0)
    per_client = spec.connect == "per-client"
    AddressTable(spec.metrics).begin(spec.addresses)
    assert spec.sessions is not None, "a native lane always has tables of sessions, which may be empty"
    return Lane(
        metrics=spec.metrics,
        feed=spec.feed,
        settings=_settings(spec),
        state=state,
        connections=connections,
        slots_by_state=slots_by_state,
        idle_of_client=make_lists(spec.connections, clients) if per_client else make_lists(1),
        clients=np.zeros(clients, CLIENT),
        ready_clients=make_lists(clients),
        dial_clients=make_lists(clients if per_client else 1),
        wait_queue=np.zeros(rows, WAITING),
        free_rows=free_rows,
        client_queues=make_lists(rows, clients),
        wait_order=make_lists(rows),
        backoff=np.zeros(rows, np.int32),
        retry_on=np.zeros(RETRY_ON, np.uint8) if spec.retry is None else spec.retry.on,
        chosen=np.zeros(ADDRESSES_MAX, np.int64),
        resolve=spec.resolve_rings,
        events=np.zeros(kernels.EVENTS_AT_ONCE * EPOLL_EVENT_BYTES, np.uint8),
        buffer=np.zeros(kernels.BUFFER_BYTES, np.uint8),
        scratch=np.zeros(8, np.int64),
        sessions=spec.sessions.table(spec.clients, spec.lanes, spec.connections, spec.metrics.rule_refused),
        beginnings=np.zeros((spec.connections, BEGINNING_BYTES), np.uint8),
        keeping=spec.keeping,
    )


@contextlib.contextmanager
def secured(lane: Lane, tls: Tls | None) -> Iterator[Lane]:
    """Add TLS to a lane, if `tls` is given, for as long as the context is open; call it on the lane's thread."""
    if tls is None:
        yield lane
        return
    name = ctypes.create_string_buffer(tls.sni.encode())
    # With connections per client there are many connections, each rarely used, so their buffers are released.
    keeps_buffers = not lane.settings.per_client
    with native_context(tls, keeps_buffers=keeps_buffers) as context, sigpipe_held_back():
        settings = lane.settings._replace(
            tls_context=context, tls_name=ctypes.addressof(name) if tls.sni else 0, tls_resume=tls.resume
        )
        yield lane._replace(settings=settings)


def _run_secured(lane: Lane, tls: Tls) -> None:
    with secured(lane, tls) as ready:
        kernels.run(ready)


async def run_lane(spec: LaneSpec) -> None:
    """Run one native lane to its end.

    It cannot be cancelled; to stop it, write STOP to its control block. EngineError if the lane could not start.
    """
    lane = make_lane(spec)
    with trio.CancelScope(shield=True):
        if spec.tls is None:
            await trio.to_thread.run_sync(kernels.run, lane)
        else:
            await trio.to_thread.run_sync(_run_secured, lane, spec.tls)
    check_ended(spec)


def check_ended(spec: LaneSpec) -> None:
    """Raise EngineError if a lane could not start."""
    state = int(spec.metrics.control[Control.STATE])
    if state != State.ENDED:
        lacks_files = -state in (errno.EMFILE, errno.ENFILE)
        hint = "raise the limit on open files (ulimit -n)" if lacks_files else ""
        raise EngineError(f"a lane could not start: {os.strerror(-state)}", hint=hint)
