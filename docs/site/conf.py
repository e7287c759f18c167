"""How `make docs` builds the site: Sphinx, with the pages of docs/ as they are."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "native")]

project = "replay"
extensions = ["myst_parser", "sphinx_external_toc", "sphinx.ext.autodoc", "sphinx_click"]
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
