"""The priority of the control plane's thread, which is lowered so that lanes take precedence on a shared CPU."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Iterator

CONTROL_NICE = 10
"""The niceness of the control plane's thread. On one CPU, beside a spinning lane, the thread gets a tenth of it."""


@functools.cache
def may_rise() -> bool:
    """Return whether a thread of this process can raise its priority again; tested in a temporary thread."""
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
    """Lower this thread's priority in the block.

    If that cannot be undone, the priority is lowered only with `for_good`, because threads that are made later
    inherit it, including the lanes of another run.
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
