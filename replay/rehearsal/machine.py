"""Measures how much of this machine's CPU time other programs use.

A twin that does not get its CPU time fails for a reason that is not its own.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

OTHERS_SHARE = 0.35
"""If other programs use more than this share of all CPUs, a broken promise proves nothing."""

_IDLE = (3, 4)
"""Columns of /proc/stat in which CPUs do not work: idle, and waiting for a disk."""


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU time in ticks: of all CPUs together, the part of it that was not idle, and that of our own processes."""

    whole: int
    busy: int
    own: int

    @classmethod
    def now(cls, pids: Sequence[int]) -> Usage | None:
        """Return the counters as they are now; None if the system does not provide them.

        `pids` are our processes besides this one.
        """
        try:
            columns = [int(word) for word in _first_line(Path("/proc/stat")).split()[1:9]]
        except (OSError, ValueError):
            return None
        idle = sum(columns[at] for at in _IDLE)
        return cls(sum(columns), sum(columns) - idle, sum(map(_ticks, {os.getpid(), *pids})))

    def others_share(self, later: Usage) -> float:
        """Return the share of all CPU time from this reading to `later` that other programs used."""
        others = (later.busy - self.busy) - (later.own - self.own)
        return max(others, 0) / max(later.whole - self.whole, 1)


def _first_line(path: Path) -> str:
    with path.open() as file:
        return file.readline()


def _ticks(pid: int) -> int:
    """Return the CPU time of a process with the children that it has waited for; 0 if it is not known."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        fields = _first_line(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
        return sum(map(int, fields[11:15]))
    return 0
