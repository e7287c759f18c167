"""docs/twin.md lists every setting of a twin, with its default."""

from __future__ import annotations

from pathlib import Path

from replay.staging.twin.spec_tables import TABLES, headings_of, with_tables

PAGE = Path(__file__).parents[3] / "docs" / "twin.md"


def test_the_tables_of_settings_are_those_of_the_code() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert with_tables(page) == page, "run: python -m replay.staging.twin.spec_tables docs/twin.md"
    assert headings_of(page) == list(TABLES)


def test_a_changed_default_is_mended() -> None:
    page = PAGE.read_text(encoding="utf-8")
    changed = page.replace("| `workers` | `8` |", "| `workers` | `9` |")
    assert changed != page
    assert with_tables(changed) == page
