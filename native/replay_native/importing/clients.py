"""Kernels that find out who sent a request: client addresses, and the user agents of health checks."""

from __future__ import annotations

import numpy as np

from replay_native.ground.jit import kernel
from replay_native.ground.simd import WIDTH, bytes_equal, find_byte

from .text import lowered

_SPACE, _QUOTE, _COLON, _COMMA = 32, 34, 58, 44


@kernel()
def is_health_check(data, begin, end, agents, agent_ends):
    """Return whether the user agent data[begin:end] begins with one of `agents`."""
    for agent in range(agent_ends.shape[0] - 1):
        first, size = agent_ends[agent], agent_ends[agent + 1] - agent_ends[agent]
        if end - begin >= size and data[begin] == agents[first]:
            same = True
            for index in range(1, size):
                same = same and data[begin + index] == agents[first + index]
            if same:
                return True
    return False


@kernel()
def address_end(data, begin, end):
    """Return where the IP address at `begin` ends, without its port, or `begin` if data[begin:end] is no address."""
    colons, dots, last_colon = 0, 0, begin
    for at in range(begin, end):
        byte = data[at]
        if byte == _COLON:
            colons += 1
            last_colon = at
        elif byte == 46:
            dots += 1
        elif not (48 <= byte <= 57 or 97 <= lowered(byte) <= 102):
            return begin
    if colons == 0:
        return end if dots == 3 else begin
    if colons == 1:
        return last_colon if dots == 3 else begin
    return end


@kernel()
def first_address(data, begin, end):
    """Return the span of the first address in a list such as `X-Forwarded-For`, without brackets and port.

    The span is (end, end) when the list has no address. The list may be an array in JSON. HAProxy writes captured
    headers in braces, separated by bars.
    """
    at = begin
    while at < end:
        last = find_byte(data, at, end, np.uint8(_COMMA))
        while at < last and data[at] in (_SPACE, 43, _QUOTE):
            at += 1
        until = last
        while until > at and data[until - 1] in (_SPACE, 43, _QUOTE):
            until -= 1
        if at < until and data[at] == 91:
            at += 1
            until = find_byte(data, at, until, np.uint8(93))
            while at < until and data[at] == _QUOTE:
                at += 1
            while until > at and data[until - 1] == _QUOTE:
                until -= 1
        else:
            until = min(find_byte(data, at, until, np.uint8(124)), find_byte(data, at, until, np.uint8(125)))
        stop = address_end(data, at, until)
        if stop > at:
            return at, stop
        at = until + 1 if until < last and data[until] == 124 else last + 1
    return end, end


@kernel(inlined=True)
def client_end(data, begin, end, ported):
    """Return where a client's address ends: before a second address, and before its port.

    With `ported`, the last colon of an IPv6 address without brackets begins a port, too.
    """
    if end - begin <= WIDTH and begin + WIDTH <= data.shape[0]:
        address = np.int64(data.ctypes.data) + begin
        found = bytes_equal(address, np.uint8(_COLON)) | bytes_equal(address, np.uint8(_COMMA))
        if found & ((np.int64(1) << (end - begin)) - 1) == 0:
            return end
    first_colon = last_colon = np.int64(-1)
    for at in range(begin, end):
        if data[at] == _COMMA:
            end = at
            break
        if data[at] == _COLON:
            if first_colon < 0:
                first_colon = np.int64(at)
            last_colon = np.int64(at)
    if last_colon > begin and (ported or first_colon == last_colon or data[last_colon - 1] == 93):
        return last_colon
    return end
