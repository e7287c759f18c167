"""Waiting for what another thread or process does: bounded, and as short as the machine allows."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path


def wait_until(there: Callable[[], bool], limit_s: float = 30.0, *, every_s: float = 0.02) -> None:
    """Until `there()`; fails after `limit_s`."""
    deadline_s = time.monotonic() + limit_s
    while not there():
        assert time.monotonic() < deadline_s, f"it did not happen within {limit_s:g} s"
        time.sleep(every_s)


def answers(port: int) -> bool:
    """Whether something on loopback accepts connections there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def is_alive(pid: int) -> bool:
    """Whether a process runs. One that has ended may stay in /proc until its parent asks for it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
