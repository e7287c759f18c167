"""Passes responses to `replay_native.keeping` as the lane parses them, if any part of them is kept."""

from __future__ import annotations

import numpy as np

from replay_native.ground.jit import kernel
from replay_native.http1 import parser as http1
from replay_native.keeping import responses
from replay_native.keeping.ring import Row
from replay_native.ledger.lane_metrics import REFUSED


@kernel(inlined=True)
def begin_response(lane, slot):
    """Begin to keep a response whose first bytes have arrived."""
    if lane.keeping.mode != responses.NONE:
        responses.begin(lane.keeping, slot, lane.connections[slot].seq)


@kernel()
def _keep_part(lane, slot, begin, end, body_bytes):
    """Keep buffer[begin:end], which the parser has just processed.

    Before it, `body_bytes` bytes of the body had been parsed.
    """
    c, buffer, keeping = lane.connections[slot], lane.buffer, lane.keeping
    stretch = c.body_bytes - body_bytes
    if stretch:
        is_all = c.parse_state == http1.DONE and body_bytes == 0
        responses.take_body(keeping, slot, buffer, end - stretch, end, is_all)
    elif keeping.slots[slot].has_head == 0 and c.parse_state != http1.BAD:
        responses.take_head(keeping, slot, buffer, begin, end, c.parse_state >= http1.CHUNK_SIZE)


@kernel(inlined=True)
def parse_response(lane, slot, got):
    """Parse buffer[:got], pass it on if responses are kept, and return where the parser stopped.

    Only this function calls the parser in a lane, so that LLVM inlines the parser here.
    """
    c, is_kept = lane.connections[slot], lane.keeping.mode != responses.NONE
    at = np.int64(0)
    while True:
        begin, body_bytes = at, c.body_bytes
        at = http1.parse(c, lane.buffer, at, got, lane.settings.header_limit, is_kept)
        if not is_kept:
            return at
        _keep_part(lane, slot, begin, at, body_bytes)
        if at >= got or c.parse_state >= http1.DONE:
            return at


@kernel()
def _hand_over(lane, slot):
    """Put the kept parts of a response into the ring, with the facts about its request."""
    c = lane.connections[slot]
    row = Row(c.seq, c.client, c.route, c.due_ns, c.status, c.body_bytes)
    responses.hand_over(lane.keeping, slot, row)


@kernel(inlined=True)
def hand_over_response(lane, slot, outcome):
    """Put the kept parts of a response into the ring when its request has ended with a complete response."""
    if lane.keeping.mode != responses.NONE and outcome < REFUSED:
        _hand_over(lane, slot)
