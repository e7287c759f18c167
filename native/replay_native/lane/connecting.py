"""Opens connections (dial, connect, TLS handshake) until they can be used, and handles the failure of each step.

A connection is opened either for whichever request is next, or for a particular one that is sent again (`bound`). In
the first case a failed connect fails the next waiting request (`fail_next`), so that requests do not wait until
`max_wait` when the target refuses every connection.
"""

from __future__ import annotations

from replay_native.feed.addresses import A, is_removed, read_addresses
from replay_native.feed.resolve import has_reply, take_reply
from replay_native.ground.clock import now_ns
from replay_native.ground.jit import kernel
from replay_native.ground.libc import EAGAIN, EINTR
from replay_native.ground.linked import NONE
from replay_native.ledger.lane_metrics import GENERATOR, TLS, C
from replay_native.ledger.record import record_handshake

from . import tls
from .clients import pop_dial, push_dial, wants_connection
from .connections import drop_idle, drop_timed, give_closed_slot, last_free, push_idle, take_closed_slot
from .dialing import dial, forget_connection, hang_up, open_socket, outcome_of, token_of
from .exchange import finish, transmit
from .io import connect_error
from .states import CONNECTING, IDLE
from .waiting import fail_next


@kernel()
def take_replies(lane):
    """Open the connections whose addresses have arrived."""
    while has_reply(lane.resolve):
        token, row = take_reply(lane.resolve)
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
    """Open one more connection for the waiting requests. If that fails at once, the next of them fails or is retried."""
    slot = take_closed_slot(lane)
    lane.connections[slot].bound = 0
    error = dial(lane, slot)
    if error:
        give_closed_slot(lane, slot)
        lane.metrics.counters[C.connects_failed] += 1
        fail_next(lane, NONE, outcome_of(error))


@kernel()
def dial_for_client(lane):
    """Open one more connection for the first client that needs one.

    If the lane has reached its limit of connections, the connection that has been idle for longest is closed first.
    Nothing is opened if that client no longer needs a connection. If opening fails at once, the client's next request
    fails or is retried.
    """
    st = lane.state[0]
    key = pop_dial(lane)
    if not wants_connection(lane, key):
        return
    if st.open >= lane.settings.connections:
        oldest = last_free(lane)
        lane.metrics.counters[C.cap_bound] += 1
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
        lane.metrics.counters[C.connects_failed] += 1
        fail_next(lane, key, outcome_of(error))
    elif wants_connection(lane, key):
        push_dial(lane, key)


@kernel()
def connected(lane, slot):
    """Handle the end of a connect: use the connection, begin its TLS handshake, or handle the failure."""
    st, c = lane.state[0], lane.connections[slot]
    error = connect_error(c.fd, lane.scratch)
    if error:
        connect_failed(lane, slot, outcome_of(error))
    elif lane.settings.tls_context:
        c.connected_ns = now_ns(lane.scratch)
        session = lane.clients[c.key].tls_session if lane.settings.per_client else st.tls_session
        c.ssl = tls.begin_client(lane.settings.tls_context, c.fd, lane.settings.tls_name, session)
        if c.ssl:
            secure(lane, slot)
        else:
            connect_failed(lane, slot, GENERATOR)
    else:
        _connection_ready(lane, slot)


@kernel()
def secure(lane, slot):
    """Continue the TLS handshake of a connection, and use the connection when the handshake is complete."""
    c = lane.connections[slot]
    done = tls.handshake(c.ssl)
    if done == 1:
        record_handshake(lane.metrics, tls.is_resumed(c.ssl), now_ns(lane.scratch) - c.connected_ns)
        _connection_ready(lane, slot)
    elif done not in (-EAGAIN, -EINTR):
        connect_failed(lane, slot, TLS)


@kernel()
def _connection_ready(lane, slot):
    """Use an open connection: send the request that it is bound to, or mark the connection as free if it is not bound."""
    st, c = lane.state[0], lane.connections[slot]
    st.connecting -= 1
    drop_timed(lane, slot)
    if c.bound:
        c.bound = 0
        transmit(lane, slot)
    else:
        if lane.settings.per_client:
            lane.clients[c.key].connecting -= 1
        push_idle(lane, slot, now_ns(lane.scratch))


@kernel()
def connect_failed(lane, slot, outcome):
    """Close a connection that could not be opened, and fail or retry a request.

    This is the request that it was bound to, or otherwise the next waiting one.
    """
    st, c = lane.state[0], lane.connections[slot]
    lane.metrics.counters[C.connects_failed] += 1
    lane.metrics.address_counts[c.address, A.connects_failed] += c.fd != NONE
    if c.ssl:
        lane.metrics.counters[C.handshakes_failed] += 1
    st.connecting -= 1
    if c.bound:
        c.bound = 0
        finish(lane, slot, outcome, now_ns(lane.scratch))
        return
    if lane.settings.per_client:
        lane.clients[c.key].connecting -= 1
    drop_timed(lane, slot)
    hang_up(lane, slot, False)
    fail_next(lane, c.key, outcome)


@kernel()
def leave_removed(lane, version):
    """Read the changed address table, and close the connections to removed addresses.

    Only connections that are idle, or that are being opened for no particular request, are closed here. A connection
    that is used by a request is closed after its response.
    """
    st = lane.state[0]
    st.addresses_seen = version
    st.addresses_chosen = read_addresses(lane.metrics, lane.chosen, st.addresses_chosen)
    for slot in range(st.used_slots):
        c = lane.connections[slot]
        idle = c.state == IDLE
        if not (idle or (c.state == CONNECTING and not c.bound and c.fd != NONE)) or not is_removed(
            lane.metrics, c.address
        ):
            continue
        if idle:
            drop_idle(lane, slot)
        else:
            st.connecting -= 1
            if lane.settings.per_client:
                lane.clients[c.key].connecting -= 1
            drop_timed(lane, slot)
        lane.metrics.address_counts[c.address, A.drained] += 1
        hang_up(lane, slot, False)
