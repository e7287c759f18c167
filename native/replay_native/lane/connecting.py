"""The life of a connection until it carries requests: dialled, connected, secured, ready; or it fails."""

from __future__ import annotations

from replay_native.feed.addresses import A, heed_addresses, is_removed
from replay_native.feed.resolve import has_grant, take_grant
from replay_native.ground.clock import now_ns
from replay_native.ground.jit import kernel
from replay_native.ground.libc import EAGAIN, EINTR
from replay_native.ledger.lane_metrics import GENERATOR, TLS, C
from replay_native.ledger.record import record_handshake

from . import tls
from .clients import (
    NONE,
    pop_dial,
    push_dial,
    wants_connection,
)
from .connections import (
    CONNECTING,
    IDLE,
    drop_idle,
    drop_timed,
    give_closed_slot,
    push_idle,
    take_closed_slot,
)
from .dialing import (
    dial,
    forget_connection,
    hang_up,
    open_socket,
    outcome_of,
    token_of,
)
from .exchange import finish, transmit
from .io import connect_error
from .waiting import fail_next


@kernel()
def take_grants(lane):
    """Connections whose address came are opened to it."""
    while has_grant(lane.asks):
        token, row = take_grant(lane.asks)
        slot = token & 0xFFFFFFFF
        c = lane.connections[slot]
        if token_of(lane, slot) != token or c.state != CONNECTING or c.fd != NONE:
            continue
        c.address = row
        error = open_socket(lane, slot)
        if error:
            connect_failed(lane, slot, outcome_of(error))


@kernel()
def dial_for_queue(lane):
    """One more connection for those that wait; where none can be had, the request at the head fails."""
    slot = take_closed_slot(lane)
    lane.connections[slot].bound = 0
    error = dial(lane, slot)
    if error:
        give_closed_slot(lane, slot)
        lane.bank.counters[C.connects_failed] += 1
        fail_next(lane, NONE, outcome_of(error))


@kernel()
def dial_for_client(lane):
    """One more connection for the first of the clients that need one. At the cap the one idle for longest makes room."""
    st = lane.state[0]
    key = pop_dial(lane)
    if not wants_connection(lane, key):
        return
    if st.open >= st.connections:
        oldest = st.free_last
        lane.bank.counters[C.cap_bound] += 1
        drop_idle(lane, oldest)
        hang_up(lane, oldest, False)
    slot = take_closed_slot(lane)
    c, client = lane.connections[slot], lane.clients[key]
    c.bound = 0
    c.key = key
    client.open += 1
    client.connecting += 1
    error = dial(lane, slot)
    if error:
        client.connecting -= 1
        forget_connection(lane, slot)
        lane.bank.counters[C.connects_failed] += 1
        fail_next(lane, key, outcome_of(error))
    elif wants_connection(lane, key):
        push_dial(lane, key)


@kernel()
def connected(lane, slot):
    """A connect ended, one way or the other."""
    st, c = lane.state[0], lane.connections[slot]
    error = connect_error(c.fd, lane.scratch)
    if error:
        connect_failed(lane, slot, outcome_of(error))
    elif st.tls_context:
        c.connected_ns = now_ns(lane.scratch)
        session = lane.clients[c.key].tls_session if st.per_client else st.tls_session
        c.ssl = tls.begin_client(st.tls_context, c.fd, st.tls_name, session)
        if c.ssl:
            secure(lane, slot)
        else:
            connect_failed(lane, slot, GENERATOR)
    else:
        _connection_ready(lane, slot)


@kernel()
def secure(lane, slot):
    """Go on with the handshake of a connection that is there."""
    c = lane.connections[slot]
    done = tls.handshake(c.ssl)
    if done == 1:
        record_handshake(lane.bank, tls.is_resumed(c.ssl), now_ns(lane.scratch) - c.connected_ns)
        _connection_ready(lane, slot)
    elif done not in (-EAGAIN, -EINTR):
        connect_failed(lane, slot, TLS)


@kernel()
def _connection_ready(lane, slot):
    """A connection can be used: by the request that it was made for, or by whoever comes."""
    st, c = lane.state[0], lane.connections[slot]
    st.connecting -= 1
    drop_timed(lane, slot)
    if c.bound:
        c.bound = 0
        transmit(lane, slot)
    else:
        if st.per_client:
            lane.clients[c.key].connecting -= 1
        push_idle(lane, slot, now_ns(lane.scratch))


@kernel()
def connect_failed(lane, slot, outcome):
    """The request that the connection was for fails: its own, or the one at the head of the queue."""
    st, c = lane.state[0], lane.connections[slot]
    lane.bank.counters[C.connects_failed] += 1
    lane.bank.address_counts[c.address, A.connects_failed] += c.fd != NONE
    if c.ssl:
        lane.bank.counters[C.handshakes_failed] += 1
    st.connecting -= 1
    if c.bound:
        c.bound = 0
        finish(lane, slot, outcome, now_ns(lane.scratch))
        return
    if st.per_client:
        lane.clients[c.key].connecting -= 1
    drop_timed(lane, slot)
    hang_up(lane, slot, False)
    fail_next(lane, c.key, outcome)


@kernel()
def leave_removed(lane, version):
    """The address table changed: what is idle on, or connecting to, an address that was removed ends here.

    A connection that is busy, or carries a request already, ends after its answer.
    """
    st = lane.state[0]
    st.addresses_seen = version
    st.addresses_chosen = heed_addresses(lane.bank, lane.chosen, st.addresses_chosen)
    for slot in range(st.used_slots):
        c = lane.connections[slot]
        idle = c.state == IDLE
        if not (idle or (c.state == CONNECTING and not c.bound and c.fd != NONE)) or not is_removed(
            lane.bank, c.address
        ):
            continue
        if idle:
            drop_idle(lane, slot)
        else:
            st.connecting -= 1
            if st.per_client:
                lane.clients[c.key].connecting -= 1
            drop_timed(lane, slot)
        lane.bank.address_counts[c.address, A.drained] += 1
        hang_up(lane, slot, False)
