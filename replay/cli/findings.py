"""The checks of `replay doctor`: what this machine can do, what it lacks, and how to improve it."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from replay import units
from replay._version import __version__
from replay.errors import OutputError, TargetError, UsageError
from replay.report.console import Console
from replay.report.page import Page
from replay_native.ground import cache_folder, jit, libc, shipped, sources
from replay_native.lane import libssl

GOOD, FAIR = "ok", "note"
_STYLES = {GOOD: "green", FAIR: "yellow"}

FILES_ENOUGH = 4_096
CLOCK_READ_NS_MAX = 1_000
CALIBRATION_NS = units.SECOND_NS
CAPACITY_ENOUGH_PER_S = 20_000.0
SLACK_READ = 30
"""PR_GET_TIMERSLACK of prctl(2)."""


class Finding(NamedTuple):
    """The result of one check, with advice if something can be improved."""

    name: str
    state: str
    text: str
    advice: str = ""


def _system() -> Finding:
    missing = libc.lanes_supported()
    text = (
        f"{platform.system()} {platform.release()}, {platform.machine()}, Python {platform.python_version()}"
    )
    if missing:
        return Finding(
            "system",
            FAIR,
            f"{text}: {missing}",
            "the portable engine is used instead; it sends up to about 2,000/s",
        )
    return Finding("system", GOOD, f"{text}; native lanes can run")


def _cores() -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_cores()
    text = f"{cores} for this process" + (f", limited to {quota:g} by the control group" if quota else "")
    if min(cores, quota or cores) < 2:
        return Finding("cores", FAIR, text, "a lane needs a core of its own: provide two or more")
    return Finding("cores", GOOD, text)


def _cgroup_cores() -> float | None:
    """Return how many cores the control group allows (cgroup v2's cpu.max); None without a limit, or if it is unknown."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _clock() -> Finding:
    reads = 1_000
    begin = time.perf_counter_ns()
    for _ in range(reads):
        time.monotonic_ns()
    read_ns = (time.perf_counter_ns() - begin) / reads
    source = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
    name = source.read_text(encoding="ascii").strip() if source.exists() else "unknown source"
    text = f"CLOCK_MONOTONIC ({name}), {units.format_latency(read_ns)} per reading"
    if read_ns > CLOCK_READ_NS_MAX:
        return Finding(
            "clock", FAIR, text, "a slow clock source lowers the maximum rate; tsc and kvm-clock are fast"
        )
    return Finding("clock", GOOD, text)


def _slack() -> Finding:
    """Read the timer slack, and measure how late sleeps of 1 ms end."""
    slack_ns = ctypes.CDLL(None).prctl(SLACK_READ, 0, 0, 0, 0) if sys.platform.startswith("linux") else -1
    late = []
    for _ in range(20):
        due = time.monotonic_ns() + units.MS_NS
        time.sleep(0.001)
        late.append(time.monotonic_ns() - due)
    text = f"a sleep of 1 ms ends {units.format_latency(sorted(late)[10])} late (median)"
    if slack_ns < 0:
        return Finding(
            "timer", FAIR, f"{text}; timer slack cannot be read", "lanes spin longer before a due time"
        )
    return Finding("timer", GOOD, f"{text}, with a slack of {units.format_latency(slack_ns)}; lanes set 1 ns")


def _files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    text = f"{units.format_count(soft)} open files, {units.format_count(hard)} at most"
    if hard < FILES_ENOUGH:
        return Finding(
            "files",
            FAIR,
            text,
            "each connection needs one: raise the hard limit, as root with ulimit -n 65536",
        )
    return Finding("files", GOOD, text)


def _calls() -> Finding:
    if libc.MISSING:
        lacking = ", ".join(libc.MISSING)
        return Finding(
            "libc",
            FAIR,
            f"lacks {lacking}",
            "lanes use slower replacements; glibc 2.35 and newer have these calls",
        )
    return Finding("libc", GOOD, f"every call that lanes use is available ({' '.join(platform.libc_ver())})")


def _tls() -> Finding:
    """Check the OpenSSL that lanes share with Python, and whether the system has certificates for verification."""
    import ssl

    if why := libssl.unsupported():
        return Finding(
            "tls", FAIR, why, "https targets use the portable engine; it sends up to about 2,000/s"
        )
    paths = ssl.get_default_verify_paths()
    store = paths.cafile or paths.capath
    if store is None:
        return Finding(
            "tls", FAIR, f"{ssl.OPENSSL_VERSION}; no certificates are trusted", "install some, or give --ca"
        )
    return Finding("tls", GOOD, f"{ssl.OPENSSL_VERSION}, called by lanes; trusted: {store}")


def _kernels() -> Finding:
    from replay.protocols.http1 import PROTOCOL

    from .progress import KERNELS

    kernels = (*KERNELS, *PROTOCOL.kernels)
    if not jit.is_compiled(kernels):
        advice = (
            "the first command that needs them compiles them once; replay doctor --warm compiles them now"
        )
        return Finding("kernels", FAIR, "not compiled for this version yet", advice)
    return Finding("kernels", GOOD, _kernels_text(kernels))


def _kernels_text(modules: Iterable[str]) -> str:
    """Return where the compiled kernels are stored, in words."""
    packed = shipped.found()
    if packed is not None and jit.are_shipped(modules):
        return f"compiled kernels come with the package, for {packed.cpu[1]}"
    return f"compiled for this machine; loaded from {' or '.join(map(str, cache_folder.places()))}"


def warm(console: Console) -> None:
    """Compile all missing kernels, and print where they are stored. OutputError if they cannot be stored."""
    from .progress import compile_kernels

    names = sources.with_entries()
    compile_kernels(console, names)
    jit.warm(names)
    if not all(map(jit.is_kept, names)):
        raise OutputError(
            f"compiled kernels could not be stored in {cache_folder.root()}",
            hint="set REPLAY_CACHE to a folder of your own, with 50 MB of space",
        )
    console.print(f"kernels: {_kernels_text(names)}", soft_wrap=True)


def _disk() -> Finding:
    free = shutil.disk_usage(".").free
    text = f"{units.format_bytes(free)} free in the working directory"
    return Finding(
        "disk", GOOD if free > 1 << 30 else FAIR, text, "" if free > 1 << 30 else "keep 1 GiB free for runs"
    )


def _capacity() -> Finding:
    """Measure how many requests per second a lane sends on this machine in a closed loop against the built-in sink."""
    from replay.engine.calibrate import closed_loop_per_s

    unsupported = libc.lanes_supported()
    if unsupported:
        return Finding("capacity", FAIR, f"not calibrated: {unsupported}")
    per_s = closed_loop_per_s(CALIBRATION_NS)
    text = f"{units.format_rate(per_s)} from one lane in a closed loop against the built-in sink"
    if per_s < CAPACITY_ENOUGH_PER_S:
        return Finding("capacity", FAIR, text, "another program may be running: stop it, and try again")
    return Finding("capacity", GOOD, text)


CHECKS: tuple[Callable[[], Finding], ...] = (
    _system,
    _cores,
    _clock,
    _slack,
    _files,
    _calls,
    _tls,
    _kernels,
    _disk,
    _capacity,
)


def findings() -> list[Finding]:
    """Run all checks and return their findings."""
    return [check() for check in CHECKS]


def print_findings(found: list[Finding], console: Console) -> None:
    """Print one line per finding, with its advice below."""
    page = Page(console)
    page.say(f"replay {__version__}", "bold")
    for finding in found:
        page.parts(
            [
                (f"{finding.state:>8}  ", _STYLES[finding.state]),
                (f"{finding.name:<10}", "cyan"),
                (finding.text, ""),
            ],
            hang=20,
        )
        if finding.advice:
            page.say(finding.advice, "dim", indent=20)


def look_at_name(name: str, resolver: str, console: Console) -> None:
    """Print what it costs to look up a name.

    TargetError if the name has no address. The queries are printed first. UsageError if `resolver` is invalid.
    """
    import trio

    from replay.names import (
        NameFailure,
        Query,
        lookup,
        read_settings,
    )
    from replay.names.cost import cost_of
    from replay.report.name_cost import print_name_cost, print_queries, print_settings

    settings = read_settings(resolver)
    queries: list[Query] = []
    try:
        trio.run(lookup, name, settings, queries.append)
        written, full = trio.run(cost_of, name, settings)
    except NameFailure as error:
        if queries:
            page = Page(console)
            print_settings(name, settings, page)
            print_queries(tuple(queries), page)
        raise TargetError(f"{name} has no address: {error}", hint=error.hint) from None
    print_name_cost(written, full, settings, console)


def host_of(text: str) -> str:
    """Return the host in a name, a name with a port, or a URL. UsageError if there is none."""
    try:
        host = urlsplit(text if "://" in text else f"//{text}").hostname
    except ValueError:
        host = None
    if not host:
        raise UsageError(f"{text!r} is not a name", hint="write replay doctor staging.example")
    return host


def kernels_key() -> str:
    """Return the cache key of compiled kernels, such as `znver3-py3.12.4-7f3a...`.

    Machines with the same key can load each other's compiled kernels.
    """
    import llvmlite.binding as llvm

    cpu, features = llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()
    digest = hashlib.blake2b(features.encode(), digest_size=8)
    for name in sources.with_entries():
        digest.update(sources.digest(name).encode())
    return f"{cpu}-py{platform.python_version()}-{digest.hexdigest()}"
