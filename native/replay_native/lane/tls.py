"""TLS on a connection that `io` opened: handshake, send, receive, close, and sessions to resume.

Theory of operation
-------------------

OpenSSL works on the socket itself, which is non-blocking. Each call returns what its plain counterpart in `io` would
return: a number of bytes, 0 if the peer has closed, or minus errno. With -EAGAIN, OpenSSL waits for the socket to
become readable or writable. With -EPROTO, TLS itself failed. `ssl` is the address of OpenSSL's object, 0 on a plain
connection.

The socket is registered edge-triggered for both directions, so the lane need not know which one OpenSSL waits for: it
calls again at any event. A socket is known to be empty only when a read returns -EAGAIN, because OpenSSL may have
read a record that it has not returned yet.

OpenSSL keeps a queue of errors per thread. An error that is left in it would be taken for that of the next call on
another connection. So every path that may fail clears the queue.

TLS 1.3 servers send their session tickets after the handshake, so a session is stored when the first response is
complete (`newer_session`). Sessions are reference counted; the owner of a reference frees it.
"""

from __future__ import annotations

import errno as _errno

import numpy as np

from replay_native.ground.jit import kernel
from replay_native.ground.libc import EAGAIN, EPIPE, errno

from . import libssl
from .libssl import (
    CTRL_SET_TLSEXT_HOSTNAME,
    ERROR_SYSCALL,
    SENT_AND_RECEIVED_SHUTDOWN,
    WANT_READ,
    WANT_WRITE,
    ZERO_RETURN,
)

_new, _free, _set_fd, _ctrl = libssl.ssl_new, libssl.ssl_free, libssl.ssl_set_fd, libssl.ssl_ctrl
_set_connect_state, _set_accept_state = libssl.ssl_set_connect_state, libssl.ssl_set_accept_state
_do_handshake, _read, _write = libssl.ssl_do_handshake, libssl.ssl_read, libssl.ssl_write
_has_pending, _get_error = libssl.ssl_has_pending, libssl.ssl_get_error
_shutdown, _set_shutdown = libssl.ssl_shutdown, libssl.ssl_set_shutdown
_session_reused, _set_session, _get1_session = (
    libssl.ssl_session_reused,
    libssl.ssl_set_session,
    libssl.ssl_get1_session,
)
_is_resumable, _session_free = libssl.ssl_session_is_resumable, libssl.ssl_session_free
_clear_error = libssl.err_clear_error

EPROTO = _errno.EPROTO
BYTES_AT_ONCE = 1 << 30


@kernel()
def begin_client(context, fd, name, session):
    """Begin TLS on a connection; return the address of its SSL object, or 0 if no memory is left.

    `name` is the address of the server's name (SNI), 0 for none. `session` is the session to resume, 0 for none.
    """
    ssl = _new(context)
    if ssl == 0:
        _clear_error()
        return ssl
    _set_fd(ssl, np.int32(fd))
    _set_connect_state(ssl)
    if name:
        _ctrl(ssl, CTRL_SET_TLSEXT_HOSTNAME, 0, name)
    if session:
        _set_session(ssl, session)
    _clear_error()
    return ssl


@kernel()
def begin_server(context, fd):
    """Begin TLS on a connection as the server; return the address of its SSL object, or 0 if no memory is left."""
    ssl = _new(context)
    if ssl:
        _set_fd(ssl, np.int32(fd))
        _set_accept_state(ssl)
    _clear_error()
    return ssl


@kernel()
def _failed(ssl, returned):
    """Return why a call on `ssl` did not succeed: 0 if the peer has closed, or minus errno (-EAGAIN: not yet)."""
    number = np.int64(errno())
    why = _get_error(ssl, returned)
    if why in (WANT_READ, WANT_WRITE):
        return -np.int64(EAGAIN)
    # An error that stays in this thread's queue would be taken for that of the next call.
    _clear_error()
    if why == ZERO_RETURN:
        return np.int64(0)
    if why == ERROR_SYSCALL:
        return np.int64(0) if returned == 0 else -number
    return -np.int64(EPROTO)


@kernel()
def handshake(ssl):
    """Continue the handshake; return 1 when it is complete, 0 if the peer has closed, or minus errno."""
    done = _do_handshake(ssl)
    return np.int64(1) if done == 1 else _failed(ssl, done)


@kernel(inlined=True)
def is_resumed(ssl):
    """Return whether the handshake resumed a session. Then no certificate was sent or verified."""
    return np.int64(_session_reused(ssl))


@kernel()
def send(ssl, address, length):
    """Send bytes, at most one record of them; return how many, or minus errno.

    After -EAGAIN the same bytes must be sent again.
    """
    sent = _write(ssl, address, np.int32(min(length, np.uint64(BYTES_AT_ONCE))))
    if sent > 0:
        return np.int64(sent)
    failed = _failed(ssl, sent)
    return failed if failed else -np.int64(EPIPE)


@kernel()
def receive(ssl, buffer):
    """Receive at most one record into `buffer`; return how many bytes, 0 if the peer has closed, or minus errno."""
    got = _read(ssl, buffer.ctypes.data, np.int32(buffer.size))
    return np.int64(got) if got > 0 else _failed(ssl, got)


@kernel()
def is_quiet(ssl, buffer):
    """Return whether nothing arrived with the bytes that were received last: no data, and no end of the connection."""
    return _has_pending(ssl) == 0 or receive(ssl, buffer) == -EAGAIN


@kernel()
def close(ssl, abort):
    """Send close_notify unless `abort` is set, and free the SSL object.

    The session can still be resumed, also after an abort.
    """
    if not abort:
        _shutdown(ssl)
    _set_shutdown(ssl, SENT_AND_RECEIVED_SHUTDOWN)
    _free(ssl)
    _clear_error()


@kernel()
def newer_session(ssl, kept):
    """Return the session to resume from now on: that of `ssl`, or `kept` if `ssl` has none that can be resumed.

    The session that is not returned is freed.
    """
    session = _get1_session(ssl)
    if session == 0:
        return kept
    if _is_resumable(session) != 1:
        _session_free(session)
        return kept
    if kept:
        _session_free(kept)
    return session


@kernel()
def free_session(session):
    """Free a session. An address of 0 is ignored."""
    if session:
        _session_free(session)
