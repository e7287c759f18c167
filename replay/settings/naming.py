"""How errors name a setting."""

from __future__ import annotations

from collections.abc import Callable

NameOf = Callable[[str], str]
"""The name of a setting for an error: its flag, or file, line and key."""
