"""The least lateness that the machine allows: a loop that spins on the clock and sends each request when it is due.

It has no sleep, no parser and no histogram. If a program is later than this loop, the program itself is the cause.
"""

from __future__ import annotations

import argparse
import socket
import time

import numpy as np
from numba import int64, uint8

from replay_native.ground import jit, libc
from replay_native.ground.clock import now_ns
from replay_native.ground.jit import kernel

_send, _recv = libc.send, libc.recv


@kernel((int64[::1], int64[::1], uint8[:, ::1], uint8[::1], int64, int64[::1]))
def spin(dues_ns, sockets, requests, buffer, length, scratch):
    """Send request i on socket i % n at dues_ns[i]; read responses and discard them."""
    for i in range(dues_ns.size):
        while now_ns(scratch) < dues_ns[i]:
            pass
        fd = np.int32(sockets[i % sockets.size])
        _send(fd, requests[i].ctypes.data, np.uint64(length), libc.MSG_NOSIGNAL)
        behind = np.int32(sockets[(i + sockets.size // 2) % sockets.size])
        _recv(behind, buffer.ctypes.data, np.uint64(buffer.size), libc.MSG_DONTWAIT)


def main() -> None:
    """Send numbered requests to a sink at a constant rate, and print the first due time in ns."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("rate", type=int)
    parser.add_argument("seconds", type=float)
    options = parser.parse_args()
    jit.warm(["ground.shared", "ledger.hdr"])
    count = int(options.rate * options.seconds)
    lines = [b"GET / HTTP/1.1\r\nHost: sink\r\nX-Replay: c-%08d\r\n\r\n" % i for i in range(count)]
    requests = np.frombuffer(b"".join(lines), np.uint8).reshape(count, -1).copy()
    connections = [socket.create_connection(("127.0.0.1", options.port)) for _ in range(16)]
    for connection in connections:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sockets = np.array([connection.fileno() for connection in connections], np.int64)
    arguments = (sockets, requests, np.zeros(65_536, np.uint8), requests.shape[1], np.zeros(4, np.int64))
    spin(np.zeros(0, np.int64), *arguments)
    start_ns = time.monotonic_ns() + 200_000_000
    dues_ns = start_ns + np.arange(count, dtype=np.int64) * 1_000_000_000 // options.rate
    print(start_ns, flush=True)
    spin(dues_ns, *arguments)


if __name__ == "__main__":
    main()
