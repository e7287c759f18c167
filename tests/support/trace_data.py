"""Small traces for tests, written by the real writer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from replay.trace import Trace, TraceWriter

START_NS = 1_700_000_000_000_000_000


class Row(NamedTuple):
    """One recorded request; `at_ns` counts from START_NS."""

    at_ns: int
    method: str = "GET"
    target: bytes = b"/"
    client: int = 0
    status: int = 200
    took_ns: int = -1
    host: str | None = None


def write_trace(path: Path, rows: Sequence[Row], *, time_zone: str = "") -> Trace:
    """A trace of these rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with TraceWriter(path) as writer:
        writer.manifest.time_zone = time_zone
        requests = [writer.add_request(row.method, row.target, row.host) for row in rows]
        writer.add_events(
            np.array([START_NS + row.at_ns for row in rows], np.int64),
            np.array(requests, np.uint32),
            np.array([row.client for row in rows], np.uint32),
            np.array([row.status for row in rows], np.int16),
            np.array([row.took_ns for row in rows], np.int64),
        )
    assert writer.trace is not None
    return writer.trace


def without_checksums(path: Path) -> None:
    """Make a trace what an older replay wrote: format 1, which has no checksums."""
    manifest = json.loads((path / "manifest.json").read_text())
    del manifest["files"]
    (path / "manifest.json").write_text(json.dumps({**manifest, "format_version": 1}))
