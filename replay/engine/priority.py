"""If the control plane and lanes share a CPU, lanes take precedence: the control plane's thread lowers its priority."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Iterator

CONTROL_NICE = 10
"""Niceness of the control plane's thread beside spinning lanes: a tenth of a CPU if there is only one."""


@functools.cache
def may_rise() -> bool:
    """Whether a thread of this process can raise its priority again; tested in a temporary thread."""
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
    """Lower this thread's priority in the block. If that cannot be undone, it happens only when allowed to be
    `for_good`: threads made later inherit it, including the lanes of another run.
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
