"""Finds the keys of a table of settings that were set."""

from __future__ import annotations

import msgspec


def given_keys(table: msgspec.Struct, name: str) -> list[str]:
    """Return the keys of a table whose values are not the defaults, as `TABLE.KEY`."""
    usual = type(table)()
    keys = table.__struct_fields__
    return [f"{name}.{key}" for key in keys if getattr(table, key) != getattr(usual, key)]
