"""How much of this machine other programs used meanwhile: a twin that does not get its CPU time fails without reason."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

OTHERS_SHARE = 0.35
"""Other programs may use this share of all CPUs before a broken promise proves nothing."""

_IDLE = (3, 4)
"""Columns of /proc/stat that are not work: idle, and waiting for a disk."""


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU time in ticks: of all CPUs together, of what was work, and of our own processes."""

    whole: int
    busy: int
    own: int

    @classmethod
    def now(cls, pids: Sequence[int]) -> Usage | None:
        """The counters now; `pids` are our processes beside this one. None where the system does not show them."""
        try:
            columns = [int(word) for word in _first_line(Path("/proc/stat")).split()[1:9]]
        except (OSError, ValueError):
            return None
        idle = sum(columns[at] for at in _IDLE)
        return cls(sum(columns), sum(columns) - idle, sum(map(_ticks, {os.getpid(), *pids})))

    def others_share(self, later: Usage) -> float:
        """The share of all CPU time between here and `later` that other programs used."""
        others = (later.busy - self.busy) - (later.own - self.own)
        return max(others, 0) / max(later.whole - self.whole, 1)


def _first_line(path: Path) -> str:
    with path.open() as file:
        return file.readline()


def _ticks(pid: int) -> int:
    """CPU time of a process with the children that it has waited for; 0 if it is gone."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        fields = _first_line(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
        return sum(map(int, fields[11:15]))
    return 0
