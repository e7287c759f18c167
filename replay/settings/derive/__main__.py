"""Write every file that is derived from the settings."""

from __future__ import annotations

from . import files

for path, text in files.current().items():
    path.write_text(text, encoding="utf-8")
