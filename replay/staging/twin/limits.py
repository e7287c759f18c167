"""Settings by name: `auth.workers`, `auth.calls.payment.retries`, `dns.quota`. Some can change while a twin runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from replay.errors import UsageError
from replay.settings.file import Source
from replay.settings.kinds import read_setting, setting_text
from replay.settings.table import keys_of
from replay.units import nearest

from .graph import check_twin
from .reading import entries_of, table_type, value_of
from .spec import Twin

_SERVICES = "services"
_NOTHING = ("none", "None")


class Change(NamedTuple):
    """A setting that was changed, with its values as text."""

    name: str
    old: str
    new: str


def document_of(twin: Twin) -> dict[str, Any]:
    """Return a twin as a document; `twin_from` reads it back."""
    document: dict[str, Any] = msgspec.to_builtins(twin, enc_hook=setting_text)
    return document


def twin_from(document: Mapping[str, Any]) -> Twin:
    """Return the twin of a document, without checking it again."""
    return msgspec.convert(document, Twin, dec_hook=read_setting)


def with_settings(twin: Twin, settings: Mapping[str, object]) -> Twin:
    """Return a copy of a twin with some settings changed. Raise the errors of `change`."""
    made = twin_from(document_of(twin))
    change(made, settings)
    return made


def change(twin: Twin, settings: Mapping[str, object]) -> list[Change]:
    """Change settings of a twin, either all of them or none, and return the changes.

    Raise UsageError if a setting is unknown, fixed or invalid.
    """
    trial = twin_from(document_of(twin))
    for name, value in settings.items():
        _assign(trial, name, value)
    check_twin(trial, lambda key: key.removeprefix(f"{_SERVICES}."))
    return [_assign(twin, name, value) for name, value in settings.items()]


def names_of(twin: Twin) -> Iterator[str]:
    """Yield the names of the settings that can change while a twin runs."""
    yield from _names(twin, "")


def value_text(twin: Twin, name: str) -> str:
    """Return the value of a setting as in the file.

    It is the default for settings of a missing breaker or autoscaler, and `none` if the setting is unknown or another
    table is missing.
    """
    try:
        table, key = _table_at(twin_from(document_of(twin)), name)
    except UsageError:
        return "none"
    attribute = next(f.name for f in msgspec.structs.fields(type(table)) if f.encode_name == key)
    return _shown(getattr(table, attribute))


def _names(table: msgspec.Struct, prefix: str) -> Iterator[str]:
    hints = keys_of(type(table))
    for field in msgspec.structs.fields(type(table)):
        value, key = getattr(table, field.name), field.encode_name
        nested = table_type(hints[key])
        if isinstance(value, msgspec.Struct):
            yield from _names(value, f"{prefix}{key}.")
        elif entries_of(hints[key]) is not None:
            for entry, row in value.items():
                if isinstance(row, msgspec.Struct):
                    above = "" if key == _SERVICES else f"{prefix}{key}."
                    yield from _names(row, f"{above}{entry}.")
        elif key not in _fixed(table):
            if nested is None:
                yield prefix + key
            else:
                yield from (f"{prefix}{key}.{name}" for name in keys_of(nested) if name not in _fixed(nested))


def _fixed(table: msgspec.Struct | type[msgspec.Struct]) -> tuple[str, ...]:
    fixed: tuple[str, ...] = getattr(table, "FIXED", ())
    return fixed


def _assign(twin: Twin, name: str, value: object) -> Change:
    """Change one setting, without checking the twin."""
    table, key = _table_at(twin, name)
    hints = keys_of(type(table))
    if key in _fixed(table):
        raise UsageError(
            f"{name}: it can be set only in the file, not by a flag or while the twin runs",
            hint="change it in the file, and start the twin again",
        )
    source = Source(None, "", {}, Twin)
    attribute = next(f.name for f in msgspec.structs.fields(type(table)) if f.encode_name == key)
    old = getattr(table, attribute)
    setattr(table, attribute, _value(hints[key], value, name, source))
    return Change(name, _shown(old), _shown(getattr(table, attribute)))


def _value(hint: Any, value: object, name: str, source: Source) -> Any:
    optional = type(None) in getattr(
        hint.__args__[0] if hasattr(hint, "__metadata__") else hint, "__args__", ()
    )
    if optional and (value is None or value in _NOTHING):
        return None
    nested = table_type(hint)
    if nested is not None:
        return nested()
    if isinstance(value, str):
        try:
            return msgspec.convert(value, hint, strict=False, dec_hook=read_setting)
        except msgspec.ValidationError:
            pass
    return value_of(hint, value, name, source)


def _shown(value: object) -> str:
    """Return a value as in the file, or `set` for a table."""
    if value is None:
        return "none"
    if isinstance(value, msgspec.Struct):
        return "set"
    written = msgspec.to_builtins(value, enc_hook=setting_text)
    return str(written).lower() if isinstance(written, bool) else str(written)


def _table_at(twin: Twin, name: str) -> tuple[msgspec.Struct, str]:
    """Return the table of a setting, and its key in the table. A missing breaker or autoscaler is created."""
    first = name.partition(".")[0]
    at: Any = twin.services if first in twin.services else twin
    parts = name.split(".")
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        if isinstance(at, dict):
            if part not in at:
                raise _unknown(twin, name)
            at = at[part]
            continue
        hints = keys_of(type(at))
        nested = table_type(hints[part]) if part in hints else None
        if part not in hints or (last and entries_of(hints[part]) is not None):
            raise _unknown(twin, name)
        if last:
            return at, part
        attribute = next(f.name for f in msgspec.structs.fields(type(at)) if f.encode_name == part)
        below = getattr(at, attribute)
        if below is None and nested is not None and part in ("breaker", "autoscaler"):
            below = nested()
            setattr(at, attribute, below)
        if not isinstance(below, msgspec.Struct | dict):
            raise _unknown(twin, name)
        at = below
    raise _unknown(twin, name)


def _unknown(twin: Twin, name: str) -> UsageError:
    known = list(names_of(twin))
    first = name.partition(".")[0]
    guess = nearest(name, [k for k in known if k.startswith(f"{first}.")]) or nearest(name, known)
    meant = f" (did you mean {guess}?)" if guess else ""
    return UsageError(
        f"there is no setting {name!r}{meant}",
        hint="docs/twin.md lists all settings, and `replay twin set` those of a running twin",
    )
