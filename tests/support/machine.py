"""Whether the machine kept us waiting: others use it too, and a test whose moments they took has shown nothing."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from pathlib import Path

KEPT_WAITING_MS = 10.0
"""Woken up so much too late a process was kept waiting: an idle machine takes a tenth of a millisecond."""

CROWDED = 0.25
"""A share of the time in which somebody waited for a core: processes were kept waiting."""

_PRESSURE = Path("/proc/pressure/cpu")
_BEAT_MS = 5.0
_HEART = f"""
import select, sys, time
longest_ms, then = 0.0, time.monotonic()
while True:
    asked = select.select([sys.stdin], [], [], {_BEAT_MS} / 1e3)[0]
    now = time.monotonic()
    longest_ms, then = max(longest_ms, 1e3 * (now - then) - {_BEAT_MS}), now
    if asked:
        if not sys.stdin.readline():
            break
        print(longest_ms, flush=True)
        longest_ms = 0.0
"""


class Machine:
    """A process that wakes up every few milliseconds, and the kernel's account of who waited for a core."""

    def __init__(self) -> None:
        self._heart = subprocess.Popen(
            [sys.executable, "-S", "-c", _HEART], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._since = self._waited_s(), time.monotonic()

    def watch(self) -> None:
        """Watch from now on."""
        self._longest_ms()
        self._since = self._waited_s(), time.monotonic()

    def kept_us_waiting(self) -> bool:
        """Whether it did since `watch`."""
        waited_s, passed_s = (
            now - then for now, then in zip((self._waited_s(), time.monotonic()), self._since, strict=True)
        )
        return waited_s > CROWDED * passed_s or self._longest_ms() > KEPT_WAITING_MS

    def close(self) -> None:
        """End the process."""
        self._heart.communicate()

    def _longest_ms(self) -> float:
        """The longest that the process was late by since this was last asked."""
        assert self._heart.stdin is not None and self._heart.stdout is not None
        self._heart.stdin.write("\n")
        self._heart.stdin.flush()
        return float(self._heart.stdout.readline())

    @staticmethod
    def _waited_s() -> float:
        """Time in which some process waited for a core, since the start of the machine; 0 where the kernel keeps none."""
        with contextlib.suppress(OSError):
            return int(_PRESSURE.read_text().split("total=")[1].split()[0]) / 1e6
        return 0.0
