"""Which files are made from the settings, and what they should contain."""

from __future__ import annotations

from pathlib import Path

from . import typed

PACKAGE = Path(__file__).parents[1]


def current() -> dict[Path, str]:
    """The text that each file should have."""
    return {PACKAGE / "typed.py": typed.text()}
