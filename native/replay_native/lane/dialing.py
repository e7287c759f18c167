"""The socket of a connection: how it is opened, counted and closed."""

from __future__ import annotations

from errno import ECONNRESET, EPIPE, EPROTO, ETIMEDOUT

import numpy as np

from replay_native.feed.addresses import A
from replay_native.feed.resolve import can_request, request_address
from replay_native.ground.clock import now_ns
from replay_native.ground.jit import kernel
from replay_native.ground.libc import EADDRNOTAVAIL, EMFILE, ENFILE, ENOBUFS, ENOMEM
from replay_native.ledger.lane_metrics import GENERATOR, REFUSED, RESET, TIMEOUT, TLS, C

from .clients import push_ready
from .connections import give_closed_slot, push_timed
from .io import close_connection, open_connection
from .states import CONNECTING


@kernel(inlined=True)
def outcome_of(error):
    """Return the outcome of a request whose connect failed with this errno."""
    if error in (EMFILE, ENFILE, EADDRNOTAVAIL, ENOBUFS, ENOMEM):
        return GENERATOR
    if error in (ECONNRESET, EPIPE):
        return RESET
    if error == EPROTO:
        return TLS
    return TIMEOUT if error == ETIMEDOUT else REFUSED


@kernel()
def dial(lane, slot):
    """Begin to connect a slot, and return 0 or errno.

    If names are looked up per connection, the address is requested first, and `take_replies` opens the socket. If the
    ring of requests is full, an address of the table is used.
    """
    st, c = lane.state[0], lane.connections[slot]
    st.next_address %= st.addresses_chosen
    c.address = lane.chosen[st.next_address]
    st.next_address += 1
    if can_request(lane.resolve):
        request_address(lane.resolve, token_of(lane, slot), lane.settings.resolve_fd, lane.scratch)
    else:
        error = open_socket(lane, slot)
        if error:
            return error
    c.fresh = 1
    c.state = CONNECTING
    st.connecting += 1
    count_open(lane, 1)
    push_timed(lane, slot, now_ns(lane.scratch) + lane.settings.timeout_ns)
    return np.int64(0)


@kernel(inlined=True)
def token_of(lane, slot):
    """Return the token of a slot: its number and its generation.

    A token of an older generation belongs to a connection that was closed.
    """
    return (lane.connections[slot].generation & 0x7FFFFFFF) << 32 | slot


@kernel()
def open_socket(lane, slot):
    """Open a socket and begin to connect it to the slot's address; return 0 or errno."""
    c, counts = lane.connections[slot], lane.metrics.address_counts
    fd = open_connection(
        lane.state[0].epoll, lane.metrics.addresses[c.address], token_of(lane, slot), lane.scratch
    )
    if fd < 0:
        counts[c.address, A.connects_failed] += 1
        return -fd
    counts[c.address, A.connects] += 1
    lane.metrics.counters[C.connects] += 1
    c.fd = fd
    return np.int64(0)


@kernel(inlined=True)
def count_open(lane, change):
    """Count connections that were opened (`change` = 1) or closed (-1)."""
    st, counters = lane.state[0], lane.metrics.counters
    st.open += change
    counters[C.open] = st.open
    counters[C.open_max] = max(counters[C.open_max], st.open)


@kernel()
def hang_up(lane, slot, abort):
    """Close a connection that is in no list (by RST with `abort`), and free its slot."""
    c = lane.connections[slot]
    close_connection(c, abort, lane.scratch)
    count_open(lane, -1)
    forget_connection(lane, slot)


@kernel(inlined=True)
def forget_connection(lane, slot):
    """Free the slot of a connection that has no socket.

    If clients have connections of their own, a client that has ready rows becomes a ready client again.
    """
    c = lane.connections[slot]
    if lane.settings.per_client:
        lane.clients[c.key].open -= 1
        if lane.clients[c.key].startable:
            push_ready(lane, c.key)
    give_closed_slot(lane, slot)
