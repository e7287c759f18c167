"""`make bench [ONLY="capacity punctuality"]`: measure, print, and write docs/benchmarks.md.

`squeezes` is measured only on request (`make long`). It takes about an hour, and exits with 1 if too many verdicts are
wrong, or if a run leaves no result.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import (
    answers,
    capacity,
    clients,
    comparing,
    histograms,
    https,
    importing,
    kafka,
    peaks,
    punctuality,
    recorded,
    results,
    sessions,
    squeezes,
    traces,
    volume,
    workloads,
)

PARTS: dict[str, Callable[[Path, Path], Any]] = {
    "histograms": lambda folder, trace: histograms.measure(),
    "capacity": capacity.measure,
    "punctuality": punctuality.measure,
    "recorded": lambda folder, trace: recorded.measure(folder),
    "https": https.measure,
    "volume": lambda folder, trace: volume.measure(folder),
    "workloads": lambda folder, trace: workloads.measure(folder),
    "importing": lambda folder, trace: importing.measure(folder),
    "peaks": lambda folder, trace: peaks.measure(folder),
    "comparing": lambda folder, trace: comparing.measure(folder),
    "kafka": lambda folder, trace: kafka.measure(folder),
    "sessions": lambda folder, trace: sessions.measure(folder),
    "clients": lambda folder, trace: clients.measure(folder),
    "answers": answers.measure,
}
"""By name, a function from a work folder and a trace of one path to the results that are kept."""


SQUEEZES = "squeezes"


def main() -> None:
    """Run the requested parts (default: all but `squeezes`), and write docs/benchmarks.md after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, SQUEEZES], default=())
    parser.add_argument(
        "--count", type=int, default=squeezes.COUNT, help="squeezes: runs of each kind (15 take ten minutes)"
    )
    parser.add_argument(
        "--seed", type=int, default=squeezes.SEED, help="squeezes: the seed of the random runs"
    )
    parser.add_argument(
        "--kind", action="append", choices=squeezes.KINDS, help="squeezes: only this kind; may be repeated"
    )
    given = parser.parse_args()
    chosen = given.parts
    with tempfile.TemporaryDirectory(prefix="replay-bench-") as name:
        folder = Path(name)
        trace = traces.one_path(folder / "one.trace")
        for part, measure in PARTS.items():
            if not chosen or part in chosen:
                print(f"measuring {part} ...", flush=True)
                measured = results.plain(measure(folder, trace))
                print(json.dumps(measured, indent=1), flush=True)
                results.keep(part, measured)
        if SQUEEZES in chosen and not squeezes.report(
            folder, given.count, given.seed, given.kind or squeezes.KINDS
        ):
            raise SystemExit(1)


if __name__ == "__main__":
    main()
