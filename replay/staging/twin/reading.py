"""Reads a twin from a TOML file. Errors have the file, the line, the key, and a suggestion."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from replay.errors import UsageError
from replay.settings.file import Source, read_toml
from replay.settings.kinds import read_setting
from replay.settings.table import keys_of
from replay.units import nearest

from .graph import check_start, check_twin
from .sizes import check_sizes
from .spec import Twin

HINT = "docs/twin.md lists every setting"


def read_twin(path: Path | str) -> Twin:
    """Read the twin of a TOML file. Raises InputError if it cannot be read, UsageError if a setting is invalid."""
    path = Path(path)
    content, values = read_toml(path, "")
    return twin_of(values, Source(path, content, {}, Twin))


def parse_twin(values: Mapping[str, Any]) -> Twin:
    """Return the twin of a document's values. Raises UsageError if a setting is invalid."""
    return twin_of(values, Source(None, "", {}, Twin))


def twin_of(values: Mapping[str, Any], source: Source) -> Twin:
    """Return the checked twin of values that come from `source`. Raises UsageError if a setting is invalid."""
    twin: Twin = table_of(Twin, values, "", source)
    check_twin(twin, source.name)
    check_start(twin, source.name)
    check_sizes(twin, source.name)
    return twin


def entries_of(hint: Any) -> Any:
    """Return the type of the values of a table whose keys are names; None for other types."""
    plain = plain_of(hint)
    return typing.get_args(plain)[1] if typing.get_origin(plain) is dict else None


def plain_of(hint: Any) -> Any:
    """Return a type without annotations."""
    return typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint


def table_type(hint: Any) -> type[msgspec.Struct] | None:
    """Return the struct behind `Struct` or `Struct | None`; None for other types."""
    plain = plain_of(hint)
    kinds = [plain] if isinstance(plain, type) else [k for k in typing.get_args(plain) if k is not type(None)]
    kind = kinds[0] if len(kinds) == 1 else None
    return kind if isinstance(kind, type) and issubclass(kind, msgspec.Struct) else None


def value_of(hint: Any, value: Any, path: str, source: Source) -> Any:
    """Convert a value of a setting to its type. Raises UsageError if that is not possible."""
    try:
        return msgspec.convert(value, hint, dec_hook=read_setting)
    except msgspec.ValidationError as error:
        words = [str(word) for word in typing.get_args(plain_of(hint))]
        raise source.error_at(path, error, lambda: words) from None


def table_of(kind: type[Any], values: Any, path: str, source: Source) -> Any:
    """Convert a table of settings to its struct. Raises UsageError for unknown or missing keys, and invalid values."""
    if not isinstance(values, Mapping):
        raise UsageError(f"{source.name(path)}: expected a table", hint=HINT)
    keys = keys_of(kind)
    made: dict[str, Any] = {}
    attributes = {field.encode_name: field.name for field in msgspec.structs.fields(kind)}
    for key, value in values.items():
        here = f"{path}.{key}" if path else key
        if key not in keys:
            guess = nearest(key, keys)
            meant = f" (did you mean {guess}?)" if guess else ""
            raise UsageError(
                f"{source.name(here)}: there is no such setting{meant}", hint=f"settings: {', '.join(keys)}"
            )
        made[attributes[key]] = _field(keys[key], value, here, source)
    try:
        return kind(**made)
    except TypeError:
        missing = [f.encode_name for f in msgspec.structs.fields(kind) if f.required and f.name not in made]
        raise UsageError(f"{source.name(path)}: the key {missing[0]} is missing", hint=HINT) from None


def _field(hint: Any, value: Any, path: str, source: Source) -> Any:
    entries = entries_of(hint)
    if entries is not None:
        if not isinstance(value, Mapping):
            raise UsageError(f"{source.name(path)}: expected a table", hint=HINT)
        return {str(name): _field(entries, row, f"{path}.{name}", source) for name, row in value.items()}
    table = table_type(hint)
    if table is not None:
        return table_of(table, value, path, source)
    return value_of(hint, value, path, source)
