"""The list of files that are derived from the settings, and their content."""

from __future__ import annotations

from pathlib import Path

from . import lane, reference, schema, typed

PACKAGE = Path(__file__).parents[1]
ROOT = PACKAGE.parents[1]
SCHEMA = PACKAGE / "scenario.schema.json"


def current() -> dict[Path, str]:
    """Return the text that each file should have, by path."""
    return {
        PACKAGE / "typed.py": typed.text(),
        PACKAGE / "lane.py": lane.text(),
        SCHEMA: schema.text(),
        ROOT / "docs" / "settings.md": reference.text(),
    }
