"""Chooses the cores on which two builds run when both run at the same time."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator
from pathlib import Path

_TOPOLOGY = Path("/sys/devices/system/cpu")
CORES_MIN = 3
"""Minimum number of physical cores for two builds and the generator. With fewer, they take time from each other."""


def usable_cores() -> list[int]:
    """Return the cores on which this thread may run; empty if the system does not report them."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def siblings_of(core: int) -> frozenset[int]:
    """Return the hardware threads of a core's physical core, including the core itself.

    If the system does not report them, return only the core itself.
    """
    with contextlib.suppress(OSError, ValueError):
        text = (_TOPOLOGY / f"cpu{core}" / "topology" / "thread_siblings_list").read_text().strip()
        found: set[int] = set()
        for part in text.split(","):
            first, _, last = part.partition("-")
            found |= set(range(int(first), int(last or first) + 1))
        return frozenset(found | {core})
    return frozenset({core})


def physical_cores(cores: Collection[int]) -> list[set[int]]:
    """Return the cores grouped by physical core, because hardware threads of one physical core share its time."""
    physical: dict[frozenset[int], set[int]] = {}
    for core in sorted(cores):
        physical.setdefault(siblings_of(core), set()).add(core)
    return list(physical.values())


def two_shares(cores: Collection[int]) -> tuple[frozenset[int], frozenset[int]] | None:
    """Return two sets with equal numbers of physical cores, one for each build.

    Return None if there are fewer than two physical cores. With three or more physical cores, at least one is in neither set
    and is left for the generator.
    """
    groups = physical_cores(cores)
    if len(groups) < 2:
        return None
    each = max(1, (len(groups) - 1) // 2)
    one, two = groups[:each], groups[each : 2 * each]
    return frozenset().union(*one), frozenset().union(*two)


@contextlib.contextmanager
def pinned(cores: Collection[int]) -> Iterator[None]:
    """Run this thread, and the processes that it starts, on these cores only; on any core if the set is empty."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
