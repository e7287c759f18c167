"""The OpenSSL calls that kernels make, in the library that Python's own `ssl` uses.

No other copy of OpenSSL is ever loaded, because two in one process would have two configurations and two sets of
security fixes. The symbols are looked up through the extension module `_ssl`, and so in the library that it was
linked with. If they cannot be found (OpenSSL is built into Python), each call is a stub that fails, and `unsupported`
returns the reason.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno as _errno
import importlib
import signal
from collections.abc import Iterator
from functools import partial

from numba import types
from numba.types import int32, intp, uintp

from replay_native.ground.libc import external

MISSING: list[str] = []
"""Names that this library does not have. Calls to them fail with ENOSYS."""

OLDEST = (1, 1, 1)
"""The first OpenSSL with SSL_SESSION_is_resumable for TLS 1.3."""

ERROR_SSL, WANT_READ, WANT_WRITE, ERROR_SYSCALL, ZERO_RETURN = 1, 2, 3, 5, 6
"""Results of SSL_get_error."""

SENT_AND_RECEIVED_SHUTDOWN = 3
CTRL_SET_TLSEXT_HOSTNAME = 55
_CTRL_MODE, _CTRL_SET_READ_AHEAD, _CTRL_SET_MIN_PROTO_VERSION = 33, 41, 123
_TLS_1_2, _FILETYPE_PEM = 0x0303, 1
_MODES = 0x1 | 0x2 | 0x4
"""Allow partial writes and a buffer that has moved, and let reads skip records without data."""
_MODE_RELEASE_BUFFERS = 0x10
_OPTIONS = 1 << 17 | 1 << 30
"""No compression, no renegotiation."""
_OP_IGNORE_UNEXPECTED_EOF = 1 << 7
"""Take the end of a connection without close_notify for a normal end (OpenSSL 3).

HTTP itself shows whether a message is complete.
"""


def _load() -> tuple[ctypes.CDLL | None, str]:
    """Return the library that `_ssl` was linked with, or None and the reason."""
    try:
        module = importlib.import_module("_ssl")
    except ImportError:
        return None, "this Python has no ssl"
    name: str = module.OPENSSL_VERSION
    if not name.startswith("OpenSSL ") or module.OPENSSL_VERSION_INFO[:3] < OLDEST:
        return None, f"this Python's ssl is {name}; OpenSSL 1.1.1 or newer is needed"
    path = getattr(module, "__file__", None)
    if path is None:
        return None, "OpenSSL is built into this Python"
    library = ctypes.CDLL(path)
    if not hasattr(library, "SSL_new") or not hasattr(library, "ERR_clear_error"):
        return None, "OpenSSL is built into this Python's ssl"
    return library, ""


library, _why_not = _load()


_external = partial(external, library, MISSING)


ssl_new = _external("SSL_new", uintp(uintp))
ssl_free = _external("SSL_free", types.void(uintp))
ssl_set_fd = _external("SSL_set_fd", int32(uintp, int32))
ssl_set_connect_state = _external("SSL_set_connect_state", types.void(uintp))
ssl_set_accept_state = _external("SSL_set_accept_state", types.void(uintp))
ssl_ctrl = _external("SSL_ctrl", intp(uintp, int32, intp, uintp))
ssl_do_handshake = _external("SSL_do_handshake", int32(uintp))
ssl_read = _external("SSL_read", int32(uintp, uintp, int32))
ssl_write = _external("SSL_write", int32(uintp, uintp, int32))
ssl_has_pending = _external("SSL_has_pending", int32(uintp))
ssl_get_error = _external("SSL_get_error", int32(uintp, int32))
ssl_shutdown = _external("SSL_shutdown", int32(uintp))
ssl_set_shutdown = _external("SSL_set_shutdown", types.void(uintp, int32))
ssl_session_reused = _external("SSL_session_reused", int32(uintp))
ssl_set_session = _external("SSL_set_session", int32(uintp, uintp))
ssl_get1_session = _external("SSL_get1_session", uintp(uintp))
ssl_session_is_resumable = _external("SSL_SESSION_is_resumable", int32(uintp))
ssl_session_free = _external("SSL_SESSION_free", types.void(uintp))
err_clear_error = _external("ERR_clear_error", types.void())


def unsupported() -> str:
    """Return why kernels cannot use TLS on this machine, or an empty text if they can."""
    if _why_not:
        return f"native lanes cannot use TLS: {_why_not}"
    return f"native lanes cannot use TLS: OpenSSL lacks {', '.join(MISSING)}" if MISSING else ""


def call(name: str, *arguments: int | bytes | None) -> int:
    """Call the OpenSSL function `name`, which returns an address, a long or nothing."""
    function = getattr(library, name)
    function.restype = ctypes.c_ssize_t
    passed = [ctypes.c_ssize_t(one) if isinstance(one, int) else ctypes.c_char_p(one) for one in arguments]
    return int(function(*passed))


def call_int(name: str, *arguments: int | bytes | None) -> int:
    """Call the OpenSSL function `name`, which returns an int."""
    return ctypes.c_int(call(name, *arguments)).value


def new_context(method: str, *, keeps_buffers: bool = False) -> int:
    """Create an SSL_CTX for kernels with TLS 1.2 and 1.3, and return its address.

    `method` is `TLS_client_method` or `TLS_server_method`. A connection has buffers of 34 KB while it is in use. With
    `keeps_buffers` it also keeps them while it is idle, which is faster if there are not too many connections. Free
    the context with `call("SSL_CTX_free", address)`. Its connections can still be used afterwards. OSError if no
    memory is left.
    """
    context = call("SSL_CTX_new", call(method))
    if not context:
        raise OSError(_errno.ENOMEM, "OpenSSL could not create a context")
    newer = importlib.import_module("_ssl").OPENSSL_VERSION_INFO >= (3, 0)
    call("SSL_CTX_set_options", context, _OPTIONS | (_OP_IGNORE_UNEXPECTED_EOF if newer else 0))
    call("SSL_CTX_ctrl", context, _CTRL_MODE, _MODES | (0 if keeps_buffers else _MODE_RELEASE_BUFFERS), None)
    call("SSL_CTX_ctrl", context, _CTRL_SET_READ_AHEAD, 1, None)
    call("SSL_CTX_ctrl", context, _CTRL_SET_MIN_PROTO_VERSION, _TLS_1_2, None)
    return context


def use_identity(context: int, cert: str, key: str) -> bool:
    """Give a context its certificate chain and key (PEM files). False if they cannot be used."""
    return (
        call_int("SSL_CTX_use_certificate_chain_file", context, cert.encode()) == 1
        and call_int("SSL_CTX_use_PrivateKey_file", context, key.encode(), _FILETYPE_PEM) == 1
        and call_int("SSL_CTX_check_private_key", context) == 1
    )


@contextlib.contextmanager
def sigpipe_held_back() -> Iterator[None]:
    """Block SIGPIPE on this thread while a kernel runs.

    OpenSSL uses write(2), so that a peer that has closed the connection would otherwise end the process.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})
    try:
        yield
    finally:
        if signal.SIGPIPE not in before:
            signal.sigtimedwait({signal.SIGPIPE}, 0)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
