"""Responses that are kept while a lane receives them: the parser's parts go to `replay_native.keeping`."""

from __future__ import annotations

import numpy as np

from replay_native.ground.jit import kernel
from replay_native.http1 import parser as http1
from replay_native.keeping import responses
from replay_native.keeping.ring import Row


@kernel()
def parse_kept(lane, slot, got):
    """Parse buffer[:got], and keep of the response what is to be kept. Returns where the parser stopped."""
    c, buffer, keeping = lane.connections[slot], lane.buffer, lane.keeping
    at = np.int64(0)
    while at < got and c.parse_state < http1.DONE:
        begin, body_bytes = at, c.body_bytes
        at = http1.parse(c, buffer, at, got, lane.settings.header_limit, True)
        stretch = c.body_bytes - body_bytes
        if stretch:
            is_all = c.parse_state == http1.DONE and c.body_bytes == stretch
            responses.take_body(keeping, slot, buffer, at - stretch, at, is_all)
        elif keeping.slots[slot].has_head == 0 and c.parse_state != http1.BAD:
            responses.take_head(keeping, slot, buffer, begin, at, c.parse_state >= http1.CHUNK_SIZE)
    return at


@kernel()
def hand_over_response(lane, slot):
    """The request on the connection ended with a whole response: hand over what was kept of it."""
    c = lane.connections[slot]
    row = Row(c.seq, c.client, c.route, c.due_ns, c.status, c.body_bytes)
    responses.hand_over(lane.keeping, slot, row)
