"""How `make docs` builds the site: Sphinx, with the pages of docs/ as they are."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "native")]

project = "replay"
extensions = [
    "myst_parser",
    "sphinx_external_toc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_click",
]
external_toc_path = "site/toc.yml"
external_toc_exclude_missing = False
html_theme = "furo"
html_title = "replay"
html_copy_source = False
exclude_patterns = ["site"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
suppress_warnings = ["misc.highlighting_failure"]


def setup(app: Any) -> None:
    """Let help texts that name patterns (`*.example`) stand as they are: their stars are no emphasis."""
    for part in ("options", "description", "arguments"):
        app.connect(f"sphinx-click-process-{part}", _escape_stars)


def _escape_stars(app: Any, context: Any, lines: list[str]) -> None:
    lines[:] = [line if line.startswith("..") else line.replace("*", r"\*") for line in lines]
