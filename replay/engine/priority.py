"""Where control plane and lanes share a core the lanes come first: the control plane's thread lowers its own priority."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Iterator

CONTROL_NICE = 10
"""Niceness of the control plane's thread beside lanes that spin: a tenth of a core where there is only one."""


@functools.cache
def may_rise() -> bool:
    """Whether a thread of this process may take back that it lowered its priority; tried on one made for it."""
    found = []

    def tried() -> None:
        thread = threading.get_native_id()
        with contextlib.suppress(OSError):
            before = os.getpriority(os.PRIO_PROCESS, thread)
            os.setpriority(os.PRIO_PROCESS, thread, before + 1)
            os.setpriority(os.PRIO_PROCESS, thread, before)
            found.append(True)

    trial = threading.Thread(target=tried)
    trial.start()
    trial.join()
    return bool(found)


@contextlib.contextmanager
def lowered(*, for_good: bool) -> Iterator[None]:
    """This thread stands back meanwhile. Where that cannot be taken back it does so only if it may be `for_good`:
    threads that are made later inherit it, and so would the lanes of another run.
    """
    thread = threading.get_native_id()
    if not (for_good or may_rise()):
        yield
        return
    before = os.getpriority(os.PRIO_PROCESS, thread)
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, thread, max(before, CONTROL_NICE))
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, thread, before)
