"""The results of all parts: docs/benchmarks.json, and the page that is made from it."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from pathlib import Path
from typing import Any

from . import page, peers

DOCS = Path(__file__).resolve().parents[1] / "docs"
FIGURES = DOCS / "benchmarks.json"
PAGE = DOCS / "benchmarks.md"


def plain(value: Any) -> Any:
    """Convert results into types of JSON: dataclasses become objects, and keys become strings."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list) else value


def load() -> dict[str, Any]:
    """Return the last results of each part that was ever measured, with their day and machine."""
    found: dict[str, Any] = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    return found


def keep(part: str, measured: Any) -> None:
    """Store the results of one part, and write docs/benchmarks.md again."""
    results = load()
    results[part] = {"on": dt.date.today().isoformat(), "machine": peers.machine(), "results": measured}
    FIGURES.write_text(json.dumps(results, indent=1) + "\n")
    PAGE.write_text(page.render(results))
    print(f"wrote {PAGE}")
