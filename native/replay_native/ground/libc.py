"""The libc functions that kernels call, each resolved before any kernel is compiled.

An external symbol that does not resolve would crash the process when a kernel calls it. So ctypes looks up every
function, whose address is registered with LLVM as `rp_NAME`. A missing one is replaced by a stub that fails with ENOSYS.
"""

from __future__ import annotations

import ctypes
import errno as _errno
import platform
import sys
from functools import partial
from typing import Any

import llvmlite.binding as llvm
from numba import types
from numba.types import ExternalFunction, int32, intp, uint32, uintp

from .jit import kernel
from .shared import peek_i32

EINTR, EAGAIN, EINPROGRESS, ENOSYS = _errno.EINTR, _errno.EAGAIN, _errno.EINPROGRESS, _errno.ENOSYS
ECONNREFUSED, ECONNRESET, EPIPE = _errno.ECONNREFUSED, _errno.ECONNRESET, _errno.EPIPE
EMFILE, ENFILE, ENOBUFS, ENOMEM = _errno.EMFILE, _errno.ENFILE, _errno.ENOBUFS, _errno.ENOMEM
EADDRNOTAVAIL = _errno.EADDRNOTAVAIL

EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP, EPOLLRDHUP = 0x1, 0x4, 0x8, 0x10, 0x2000
EPOLLET = 1 << 31
EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD = 1, 2, 3
EPOLL_EVENT_BYTES = 12 if platform.machine() in ("x86_64", "AMD64") else 16
EPOLL_DATA_OFFSET = EPOLL_EVENT_BYTES - 8

SOCK_STREAM, SOCK_NONBLOCK, SOCK_CLOEXEC = 1, 0o4000, 0o2000000
SOL_SOCKET, SO_ERROR, SO_LINGER, IPPROTO_TCP, TCP_NODELAY = 1, 4, 13, 6, 1
MSG_DONTWAIT, MSG_NOSIGNAL = 0x40, 0x4000
CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_THREAD_CPUTIME_ID = 1, 0, 3
PR_SET_TIMERSLACK, PR_GET_TIMERSLACK = 29, 30

MISSING: list[str] = []
"""Names that this libc does not have. Calls to them fail with ENOSYS."""

_libc = ctypes.CDLL(None, use_errno=True)


@ctypes.CFUNCTYPE(ctypes.c_ssize_t)
def _not_there() -> int:
    ctypes.set_errno(_errno.ENOSYS)
    return -1


def external(library: ctypes.CDLL | None, missing: list[str], name: str, signature: Any) -> Any:
    """Return a library function that kernels can call.

    If the library does not have it, or `library` is None, kernels get a stub that returns -1 with ENOSYS, and the name
    is added to `missing`.
    """
    try:
        address = ctypes.cast(getattr(library, name), ctypes.c_void_p).value
    except AttributeError:
        missing.append(name)
        address = ctypes.cast(_not_there, ctypes.c_void_p).value
    llvm.add_symbol(f"rp_{name}", address)
    return ExternalFunction(f"rp_{name}", signature)


_external = partial(external, _libc, MISSING)


socket = _external("socket", int32(int32, int32, int32))
connect = _external("connect", int32(int32, uintp, uint32))
bind = _external("bind", int32(int32, uintp, uint32))
listen = _external("listen", int32(int32, int32))
accept4 = _external("accept4", int32(int32, uintp, uintp, int32))
close = _external("close", int32(int32))
send = _external("send", intp(int32, uintp, uintp, int32))
recv = _external("recv", intp(int32, uintp, uintp, int32))
read = _external("read", intp(int32, uintp, uintp))
write = _external("write", intp(int32, uintp, uintp))
getsockopt = _external("getsockopt", int32(int32, int32, int32, uintp, uintp))
setsockopt = _external("setsockopt", int32(int32, int32, int32, uintp, uint32))
epoll_create1 = _external("epoll_create1", int32(int32))
epoll_ctl = _external("epoll_ctl", int32(int32, int32, int32, uintp))
epoll_wait = _external("epoll_wait", int32(int32, uintp, int32, int32))
epoll_pwait2 = _external("epoll_pwait2", int32(int32, uintp, int32, uintp, uintp))
ppoll = _external("ppoll", int32(uintp, uintp, uintp, uintp))
clock_gettime = _external("clock_gettime", int32(int32, uintp))
prctl = _external("prctl", int32(int32, uintp, uintp, uintp, uintp))
malloc = _external("malloc", uintp(uintp))
free = _external("free", types.void(uintp))
memcpy = _external("memcpy", uintp(uintp, uintp, uintp))
memchr = _external("memchr", uintp(uintp, int32, uintp))
_errno_location = _external("__errno_location", uintp())


@kernel(inlined=True)
def errno():
    """Return the calling thread's errno."""
    return peek_i32(_errno_location())


def lanes_supported() -> str:
    """Return why native lanes cannot run on this machine, or an empty text if they can."""
    if not sys.platform.startswith("linux"):
        return f"native lanes need Linux (this is {sys.platform})"
    if platform.machine() not in ("x86_64", "AMD64"):
        return f"native lanes need x86-64 (this is {platform.machine()})"
    if "__errno_location" in MISSING:
        return "native lanes need glibc"
    return ""
