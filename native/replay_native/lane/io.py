"""Opens, sends on, receives from and closes connections, plain or with TLS.

Functions that send or receive return a number of bytes, or minus errno. Their connection `c` is any record with the
fields `fd` and `ssl`. If `ssl` is 0, the connection is plain; otherwise `tls` does the work.
"""

from __future__ import annotations

import numpy as np

from replay_native.feed.addresses import ADDRESS_BYTES, AF_INET6
from replay_native.ground import libc
from replay_native.ground.jit import kernel
from replay_native.ground.libc import (
    EINPROGRESS,
    EPOLL_CTL_ADD,
    EPOLL_DATA_OFFSET,
    EPOLLET,
    EPOLLIN,
    EPOLLOUT,
    EPOLLRDHUP,
    IPPROTO_TCP,
    MSG_NOSIGNAL,
    SO_ERROR,
    SO_LINGER,
    SOCK_CLOEXEC,
    SOCK_NONBLOCK,
    SOCK_STREAM,
    SOL_SOCKET,
    TCP_NODELAY,
    errno,
)
from replay_native.ground.shared import (
    peek_i32,
    peek_u32,
    poke_i64,
    poke_u32,
)

from . import tls

_socket, _connect, _close, _send, _recv = libc.socket, libc.connect, libc.close, libc.send, libc.recv
_getsockopt, _setsockopt, _epoll_ctl = libc.getsockopt, libc.setsockopt, libc.epoll_ctl

_INTERESTS = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET


@kernel(inlined=True)
def watch(epoll, fd, token, scratch):
    """Register a socket with epoll for input and output, edge-triggered; return 0 or minus errno."""
    base = scratch.ctypes.data
    poke_u32(base, np.uint32(_INTERESTS))
    poke_i64(base + np.uint64(EPOLL_DATA_OFFSET), token)
    return np.int64(0) if _epoll_ctl(epoll, EPOLL_CTL_ADD, fd, base) == 0 else -np.int64(errno())


@kernel()
def open_connection(epoll, address, token, scratch):
    """Begin a non-blocking connect to a row of the address table; return the socket or minus errno."""
    length, ipv6 = np.uint32(address[ADDRESS_BYTES - 1]), address[ADDRESS_BYTES - 2] == AF_INET6
    fd = _socket(10 if ipv6 else 2, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
    if fd < 0:
        return -np.int64(errno())
    base = scratch.ctypes.data
    poke_u32(base, np.uint32(1))
    _setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, base, 4)
    failed = np.int64(0)
    if _connect(fd, address.ctypes.data, length) != 0 and errno() != EINPROGRESS:
        failed = -np.int64(errno())
    if failed == 0:
        failed = watch(epoll, fd, token, scratch)
    if failed < 0:
        _close(fd)
        return failed
    return np.int64(fd)


@kernel()
def connect_error(fd, scratch):
    """Return how a connect ended: 0 or errno."""
    base = scratch.ctypes.data
    poke_u32(base, np.uint32(0))
    poke_u32(base + np.uint64(8), np.uint32(4))
    if _getsockopt(fd, SOL_SOCKET, SO_ERROR, base, base + np.uint64(8)) != 0:
        return np.int64(errno())
    return np.int64(peek_i32(base))


@kernel(inlined=True)
def send_bytes(c, address, length):
    """Send some or all of the bytes; return how many, or minus errno."""
    if c.ssl:
        return tls.send(c.ssl, address, length)
    sent = _send(c.fd, address, length, MSG_NOSIGNAL)
    return np.int64(sent) if sent >= 0 else -np.int64(errno())


@kernel(inlined=True)
def receive_bytes(c, buffer):
    """Receive into `buffer`; return the number of bytes, 0 if the peer has closed, or minus errno."""
    if c.ssl:
        return tls.receive(c.ssl, buffer)
    got = _recv(c.fd, buffer.ctypes.data, np.uint64(buffer.size), 0)
    return np.int64(got) if got >= 0 else -np.int64(errno())


@kernel(inlined=True)
def is_drained(c, got, capacity):
    """Return whether a read of `got` bytes has emptied the socket. With TLS only -EAGAIN shows that."""
    return got < capacity and c.ssl == 0


@kernel(inlined=True)
def is_quiet(c, buffer):
    """Return whether no data is known to have arrived after a complete response.

    A plain connection is always taken to be quiet, because only another system call could tell.
    """
    return c.ssl == 0 or tls.is_quiet(c.ssl, buffer)


@kernel(inlined=True)
def close_connection(c, abort, scratch):
    """Close a connection, or reset it with RST if `abort` is set.

    A reset frees the port at once, and a peer that is still sending notices it.
    """
    if c.ssl:
        tls.close(c.ssl, abort)
        c.ssl = 0
    if abort:
        base = scratch.ctypes.data
        poke_u32(base, np.uint32(1))
        poke_u32(base + np.uint64(4), np.uint32(0))
        _setsockopt(c.fd, SOL_SOCKET, SO_LINGER, base, 8)
    if c.fd >= 0:
        _close(c.fd)


@kernel(inlined=True)
def event_mask(events, i, stride):
    """Return the epoll mask of event i."""
    return np.int64(peek_u32(events.ctypes.data + np.uint64(i * stride)))
