"""Punctuality by the sink's stamps: how late each request arrives at a constant rate."""

from __future__ import annotations

import functools
import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import peers

RATES = (1_000, 5_000, 20_000, 50_000)
ROUNDS = 3
SECONDS = 4
VEGETA_CONNECTIONS = 64
"""Without a limit vegeta opens thousands when it falls behind, and the sink refuses them. It is most punctual with few."""


@dataclass(frozen=True)
class Late:
    """Quantiles in ms of arrival minus due time, the share of the requested rate that was held, and the cores used."""

    p50_ms: float
    p90_ms: float
    p99_ms: float
    held: float
    cores: float


def _late(arrivals_ns: np.ndarray, dues_ns: np.ndarray, cpu_s: float) -> Late:
    """Compare the k-th arrival with the k-th due time."""
    n = min(arrivals_ns.size, dues_ns.size)
    late_ms = (np.sort(arrivals_ns)[:n] - dues_ns[:n]) / 1e6
    p50, p90, p99 = np.percentile(late_ms, [50, 90, 99])
    planned_s = (dues_ns[-1] - dues_ns[0]) / 1e9
    took_s = (arrivals_ns.max() - arrivals_ns.min()) / 1e9
    return Late(
        float(p50), float(p90), float(p99), n / dues_ns.size * min(1.0, planned_s / took_s), cpu_s / planned_s
    )


def _dues(start_ns: int, rate: int) -> np.ndarray:
    return start_ns + np.arange(int(rate * SECONDS), dtype=np.int64) * 1_000_000_000 // rate


def replay(
    folder: Path,
    trace: Path,
    rate: int,
    *,
    live: bool,
    identity: peers.Identity | None = None,
    trusted: Path | None = None,
) -> Late:
    """Measure replay at a constant rate, over TLS if `identity` is given."""
    with peers.sink(identity=identity) as (port, memory):
        arguments = [
            str(trace),
            "--target",
            f"http{'s' if identity else ''}://127.0.0.1:{port}",
            "--rate",
            f"{rate}/s",
            "-d",
            f"{SECONDS}s",
            *(["--ca", str(trusted)] if trusted else []),
        ]
        document = peers.replay(folder, [*arguments, *([] if live else ["--quiet"])])
        stamps = memory.stamps()
    arrivals = stamps["arrival_ns"][stamps["seq"] >= 0]
    return _late(arrivals, _dues(document["start"]["monotonic_ns"], rate), document["generator"]["cpu_s"])


def control(rate: int) -> Late:
    """Measure the loop of `benchmarks.control` at a constant rate: the least lateness that the machine allows."""
    with peers.sink() as (port, memory):
        done = peers.finish([sys.executable, "-m", "benchmarks.control", str(port), str(rate), str(SECONDS)])
        stamps = memory.stamps()
    arrivals = stamps["arrival_ns"][stamps["seq"] >= 0]
    return _late(arrivals, _dues(int(done.out.split()[0]), rate), float(SECONDS))


def _vegeta(program: str, folder: Path, rate: int) -> Late:
    """Measure vegeta; its due times are aligned to its most punctual request, because it does not report its start."""
    target = folder / "target"
    with peers.sink() as (port, memory):
        target.write_text(f"GET http://127.0.0.1:{port}/\n")
        done = peers.finish(
            [program, "attack", f"-rate={rate}", f"-duration={SECONDS}s", f"-targets={target}", "-http2=false",
             f"-max-connections={VEGETA_CONNECTIONS}", f"-output={folder / 'vegeta.bin'}"],
        )  # fmt: skip
        arrivals = np.sort(memory.stamps()["arrival_ns"])
    dues = _dues(0, rate)
    n = min(arrivals.size, dues.size)
    return _late(arrivals, dues + (arrivals[:n] - dues[:n]).min(), done.cpu_s)


def _median(rounds: list[Late]) -> Late:
    columns = zip(
        *((late.p50_ms, late.p90_ms, late.p99_ms, late.held, late.cores) for late in rounds), strict=True
    )
    return Late(*(statistics.median(column) for column in columns))


def in_turns(programs: Mapping[str, Callable[[], Late]]) -> dict[str, Late]:
    """Run programs in turns, and return the medians by program."""
    rounds: dict[str, list[Late]] = {}
    for _ in range(ROUNDS):
        for name, run in programs.items():
            rounds.setdefault(name, []).append(run())
    return {name: _median(values) for name, values in rounds.items()}


def measure(folder: Path, trace: Path) -> dict[int, dict[str, Late]]:
    """Return medians over interleaved rounds by rate and program; vegeta is left out if it is missing."""
    vegeta = peers.vegeta()
    results = {}
    for rate in RATES:
        programs = {
            "control": functools.partial(control, rate),
            "replay": functools.partial(replay, folder, trace, rate, live=True),
            "replay, quiet": functools.partial(replay, folder, trace, rate, live=False),
        }
        if vegeta:
            programs["vegeta"] = functools.partial(_vegeta, vegeta, folder, rate)
        results[rate] = in_turns(programs)
    return results
