"""The type of functions that return a setting's name for an error."""

from __future__ import annotations

from collections.abc import Callable

NameOf = Callable[[str], str]
"""Returns the name of a setting for an error: its flag, or file, line and key, or the key if there is no file."""
