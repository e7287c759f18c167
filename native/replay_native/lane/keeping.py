"""Responses that are kept while a lane receives them: the parser's parts go to `replay_native.keeping`."""

from __future__ import annotations

from replay_native.ground.jit import kernel
from replay_native.http1 import parser as http1
from replay_native.keeping import responses
from replay_native.keeping.ring import Row


@kernel()
def keep_part(lane, slot, begin, end, body_bytes):
    """The parser has taken in buffer[begin:end], before which `body_bytes` of the body had come: keep it."""
    c, buffer, keeping = lane.connections[slot], lane.buffer, lane.keeping
    stretch = c.body_bytes - body_bytes
    if stretch:
        is_all = c.parse_state == http1.DONE and body_bytes == 0
        responses.take_body(keeping, slot, buffer, end - stretch, end, is_all)
    elif keeping.slots[slot].has_head == 0 and c.parse_state != http1.BAD:
        responses.take_head(keeping, slot, buffer, begin, end, c.parse_state >= http1.CHUNK_SIZE)


@kernel()
def hand_over_response(lane, slot):
    """The request on the connection ended with a whole response: hand over what was kept of it."""
    c = lane.connections[slot]
    row = Row(c.seq, c.client, c.route, c.due_ns, c.status, c.body_bytes)
    responses.hand_over(lane.keeping, slot, row)
