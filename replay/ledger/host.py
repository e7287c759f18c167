"""The machine of a run, and the CPU time that it took away from the run: throttling and steal."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from pathlib import Path

import msgspec

_CGROUP_FILES = ("/sys/fs/cgroup/cpu.stat", "/sys/fs/cgroup/cpu/cpu.stat")
STEAL_SPAN_MIN_NS = 5_000_000_000
_PACKAGES = ("replay-engine", "numba", "numpy", "trio", "msgspec", "h11")


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """Facts about a machine.

    A comparison does not accept runs on different machines. `control_ns` is how long a fixed piece of work takes on
    it (docs/runs.md); null means that it was not measured.
    """

    name: str = ""
    cpu_model: str = ""
    cores: int = 0
    cores_usable: int = 0
    memory_bytes: int = 0
    kernel: str = ""
    python: str = ""
    versions: dict[str, str] = {}
    control_ns: int | None = None


class HostLoad(msgspec.Struct, frozen=True, kw_only=True):
    """Counters of the machine at one instant, each None if the kernel does not report it."""

    at_ns: int
    throttled_ns: int | None = None
    steal_ns: int | None = None
    cores: int = 1


class ThreadLoad(msgspec.Struct, frozen=True):
    """The scheduler's counters for a thread.

    `ran_ns` is the time for which it ran, `delayed_ns` the time for which it was ready but did not run. `times`
    counts how often it was given a CPU.
    """

    ran_ns: int
    delayed_ns: int
    times: int


class RunDelay(msgspec.Struct, frozen=True):
    """How long a thread waited for a CPU: the share of the time for which it wanted one, and the mean wait."""

    share: float
    mean_ns: float


def threads() -> dict[int, ThreadLoad]:
    """Return the scheduler's counters of each thread of this process by thread id; empty if the kernel has none."""
    found = {}
    with contextlib.suppress(OSError):
        for task in Path("/proc/self/task").iterdir():
            with contextlib.suppress(OSError, ValueError):
                ran, delayed, times = (task / "schedstat").read_text(encoding="ascii").split()
                found[int(task.name)] = ThreadLoad(int(ran), int(delayed), int(times))
    return found


def run_delay(before: dict[int, ThreadLoad], after: dict[int, ThreadLoad], lanes: int) -> RunDelay | None:
    """Return the worst delay of the lanes' threads between two readings; None if none is known.

    The `lanes` threads that ran the most are taken to be the lanes' threads.
    """
    none = ThreadLoad(0, 0, 0)
    came = []
    for thread, now in after.items():
        then = before.get(thread, none)
        came.append(
            ThreadLoad(now.ran_ns - then.ran_ns, now.delayed_ns - then.delayed_ns, now.times - then.times)
        )
    busiest = sorted(came, key=lambda load: -load.ran_ns)[:lanes]
    delays = [
        RunDelay(load.delayed_ns / (load.ran_ns + load.delayed_ns), load.delayed_ns / load.times)
        for load in busiest
        if load.times > 0 and load.ran_ns + load.delayed_ns > 0
    ]
    return max(delays, key=lambda delay: delay.share, default=None)


def facts(control_ns: int | None = None) -> Host:
    """Return the facts about this machine."""
    # Imported here because the import is slow, and help and completion need no versions.
    from importlib import metadata

    versions = {}
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return Host(
        name=platform.node(),
        cpu_model=_cpu_model(),
        cores=os.cpu_count() or 1,
        cores_usable=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        kernel=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        versions=versions,
        control_ns=control_ns,
    )


def peak_rss_bytes() -> int | None:
    """Return the largest memory use of this process so far; None if the kernel does not report it.

    getrusage's `ru_maxrss` is unsuitable: it survives fork and exec, so that it is at least that of the parent
    process.
    """
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None


def load() -> HostLoad:
    """Read the machine's counters at this instant."""
    return HostLoad(
        at_ns=time.monotonic_ns(),
        throttled_ns=_throttled_ns(),
        steal_ns=_steal_ns(),
        cores=os.cpu_count() or 1,
    )


def throttled_share(before: HostLoad, after: HostLoad) -> float | None:
    """Return the share of the time for which the CPU quota of the process's cgroup stopped it.

    It is an upper bound of at most 1; None if unknown.
    """
    if before.throttled_ns is None or after.throttled_ns is None or after.at_ns <= before.at_ns:
        return None
    # The counter adds up the time of all cores, so the quotient may exceed 1. `_share` limits it.
    return _share(after.throttled_ns - before.throttled_ns, after.at_ns - before.at_ns)


def steal_share(before: HostLoad, after: HostLoad) -> float | None:
    """Return the share of the machine's CPU time that its hypervisor gave to others; None if unknown.

    It is also unknown over less than STEAL_SPAN_MIN_NS, because the counter has steps of 10 ms.
    """
    if before.steal_ns is None or after.steal_ns is None or after.at_ns - before.at_ns < STEAL_SPAN_MIN_NS:
        return None
    return _share(after.steal_ns - before.steal_ns, (after.at_ns - before.at_ns) * after.cores)


def _share(part_ns: int, whole_ns: int) -> float:
    return min(max(part_ns / whole_ns, 0.0), 1.0)


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for text in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if text.startswith("model name"):
                return text.partition(":")[2].strip()
    return platform.machine()


def _throttled_ns() -> int | None:
    """Return how long the quota of this process's cgroup stopped it, in ns; None if unknown.

    cgroup v2 counts `throttled_usec`, v1 `throttled_time` in ns. Inside a container, the files at the root belong to
    the container's own group.
    """
    for path in (*_own_groups(), *_CGROUP_FILES):
        with contextlib.suppress(OSError, ValueError):
            for text in Path(path).read_text(encoding="ascii").splitlines():
                name, _, value = text.partition(" ")
                if name == "throttled_usec":
                    return int(value) * 1000
                if name == "throttled_time":
                    return int(value)
    return None


def _own_groups() -> list[str]:
    files = []
    with contextlib.suppress(OSError):
        for text in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, path = text.split(":", 2)
            if not controllers:
                files.append(f"/sys/fs/cgroup{path}/cpu.stat")
            elif "cpu" in controllers.split(","):
                files.append(f"/sys/fs/cgroup/{controllers}{path}/cpu.stat")
    return files


def _steal_ns() -> int | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        first = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()
        return int(first[8]) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    return None
