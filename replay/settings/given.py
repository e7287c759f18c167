"""Finds the settings of a table that differ from their defaults."""

from __future__ import annotations

import msgspec


def given_keys(table: msgspec.Struct, name: str) -> list[str]:
    """Return the keys of a table whose values are not the defaults, as `NAME.KEY`. `name` is that of the table."""
    usual = type(table)()
    return [
        f"{name}.{field.encode_name}"
        for field in msgspec.structs.fields(table)
        if getattr(table, field.name) != getattr(usual, field.name)
    ]
