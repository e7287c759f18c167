"""Keeps the JSON schemas in docs/run-format.md current: `python -m replay.results.schema docs/run-format.md`."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from replay.files import write_whole

from .document import RunDocument
from .samples import Sample
from .timeline import Second

MARK = "<!-- What follows is made by `python -m replay.results.schema docs/run-format.md`. -->\n"
"""The line that separates the text of the page from the generated schemas below it."""

_PARTS = (("run.json", RunDocument), ("A row of timeline.jsonl", Second), ("A row of samples.jsonl", Sample))


def with_schemas(page: str) -> str:
    """Return the page with its schemas regenerated."""
    parts = [page.partition(MARK)[0], MARK]
    for name, struct in _PARTS:
        text = msgspec.json.format(msgspec.json.encode(msgspec.json.schema(struct)), indent=2).decode()
        parts.append(f"\n## Schema: {name}\n\n```json\n{text}\n```\n")
    return "".join(parts)


if __name__ == "__main__":
    path = Path(sys.argv[1])
    write_whole(path, with_schemas(path.read_text(encoding="utf-8")).encode())
