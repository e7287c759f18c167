"""Run folders of builds with known latencies, written by the real recorder: for tests of comparing them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from replay.comparison.verdict import Comparison
from replay.report.outputs.annotations import workflow_commands
from replay.report.outputs.junit import junit
from replay.report.outputs.of_comparison import ComparisonResult
from replay.results.document import ClockPair, TraceIdentity

from .metrics_data import (
    ROUTES,
    START,
    S,
    at_s,
    trial,
)

TRACE = TraceIdentity(path="t.trace", digest="d1", rows=100, first_at_ns=0, last_at_ns=1)


def make_run(
    path: Path,
    *,
    seed: int,
    requests: int = 1_200,
    run_sd: float = 0.02,
    slower: Mapping[int, float] | None = None,
    failing: float = 0.0,
    number: int = 0,
    late_ms: float = 0.02,
    **more: Any,
) -> Path:
    """One run: `slower` multiplies the service of routes by number; runs differ by `run_sd` of themselves."""
    rng = np.random.default_rng(seed)
    start = ClockPair(START.monotonic_ns, START.wall_ns + number * 60 * S)
    made = trial(path, **({"start": start, "trace": TRACE} | more))
    level = rng.normal(0, run_sd)
    services = np.exp(rng.normal(0.7, 0.5, requests) + level)
    failures = rng.random(requests) < failing
    for at in range(requests):
        route = 0 if at % 20 < 18 else 1
        factor = (slower or {}).get(route, 1.0)
        outcome = "5xx" if failures[at] else "2xx"
        made.lanes[0].request(
            route, outcome, due_ms=float(at), service_ms=float(services[at]) * factor, late_ms=late_ms
        )
    made.recorder.finish(at_s(requests / 1_000))
    return made.folder.path


def make_side(folder: Path, label: str, runs: int, seed: int, **more: Any) -> str:
    """`label=PATH,PATH...` of new runs."""
    paths = [make_run(folder / f"{label}-{n}", seed=seed + n, number=n, **more) for n in range(runs)]
    return f"{label}=" + ",".join(map(str, paths))


def rewrite(run: Path, **changed: Any) -> None:
    """Change what run.json says."""
    path = run / "run.json"
    document = msgspec.json.decode(path.read_bytes())
    path.write_bytes(msgspec.json.encode(document | changed))


__all__ = ["ROUTES", "TRACE", "make_run", "make_side", "replace", "rewrite"]


def junit_of(found: Comparison) -> bytes:
    """JUnit XML of a comparison."""
    return junit(ComparisonResult(found).suite())


def annotations_of(found: Comparison) -> list[str]:
    """GitHub's lines of a comparison."""
    return workflow_commands(ComparisonResult(found).annotations())


def markdown_of(found: Comparison) -> str:
    """The summary of a comparison."""
    return ComparisonResult(found).markdown()
