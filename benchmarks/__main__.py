"""`make bench [ONLY="capacity punctuality"]`: measure, print, and write what docs/benchmarks.md quotes."""

from __future__ import annotations

import argparse
import dataclasses
import datetime as dt
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import (
    capacity,
    clients,
    comparing,
    histograms,
    https,
    importing,
    kafka,
    page,
    peaks,
    peers,
    punctuality,
    recorded,
    sessions,
    traces,
    volume,
    workloads,
)

DOCS = Path(__file__).resolve().parents[1] / "docs"
RESULTS = DOCS / "benchmarks.json"


def _plain(value: Any) -> Any:
    """Results as JSON holds them."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


def keep(part: str, measured: Any) -> None:
    """Write what one part measured, and the page anew."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results[part] = {"on": dt.date.today().isoformat(), "machine": peers.machine(), "results": measured}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    (DOCS / "benchmarks.md").write_text(page.render(results))
    print(f"written: {DOCS / 'benchmarks.md'}")


def main() -> None:
    """Run the parts asked for (default: all), and write the page anew after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "parts",
        nargs="*",
        choices=(
            "capacity",
            "punctuality",
            "recorded",
            "https",
            "volume",
            "histograms",
            "workloads",
            "peaks",
            "comparing",
            "importing",
            "kafka",
            "sessions",
            "clients",
        ),
        default=(),
    )
    chosen = parser.parse_args().parts
    with tempfile.TemporaryDirectory(prefix="replay-bench-") as name:
        folder = Path(name)
        trace = traces.one_path(folder / "one.trace")
        parts: dict[str, Callable[[], Any]] = {
            "histograms": histograms.measure,
            "capacity": lambda: capacity.measure(folder, trace),
            "punctuality": lambda: punctuality.measure(folder, trace),
            "recorded": lambda: recorded.measure(folder),
            "https": lambda: https.measure(folder, trace),
            "volume": lambda: volume.measure(folder),
            "workloads": lambda: workloads.measure(folder),
            "importing": lambda: importing.measure(folder),
            "peaks": lambda: peaks.measure(folder),
            "comparing": lambda: comparing.measure(folder),
            "kafka": lambda: kafka.measure(folder),
            "sessions": lambda: sessions.measure(folder),
            "clients": lambda: clients.measure(folder),
        }
        for part, measure in parts.items():
            if not chosen or part in chosen:
                print(f"measuring {part} ...", flush=True)
                measured = _plain(measure())
                print(json.dumps(measured, indent=1), flush=True)
                keep(part, measured)


if __name__ == "__main__":
    main()
