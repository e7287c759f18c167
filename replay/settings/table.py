"""The table of all settings, derived from their declarations in `groups/`."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
from msgspec import Meta

from .kinds import is_kind
from .row import Row, row_of
from .scenario import Scenario

GROUPS = (
    "target",
    "load",
    "time",
    "clients",
    "sessions",
    "safety",
    "TLS",
    "Kafka",
    "answers",
    "live",
    "output",
)
"""The groups in the order of the help, `replay init` and docs/settings.md."""


class Setting(NamedTuple):
    """A setting: `key` is its name in a file (`kafka.acks`), `attributes` the path to its value in a Scenario."""

    key: str
    attributes: tuple[str, ...]
    kind: Any
    default: Any
    help: str
    example: Any
    meta: Meta
    row: Row
    group: str
    table: type[msgspec.Struct] | None
    is_rules: bool

    @property
    def name(self) -> str:
        """The last part of its key."""
        return self.key.rpartition(".")[2]

    @property
    def choices(self) -> tuple[str, ...]:
        """The words that the setting accepts if its kind is a Literal; otherwise empty."""
        return typing.get_args(self.kind) if typing.get_origin(self.kind) is typing.Literal else ()


def struct_of(kind: Any) -> type[msgspec.Struct] | None:
    """Return the struct in an annotated type: a table, or the rows of an array of tables; None if there is none."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return kind
    return next((found for part in typing.get_args(kind) if (found := struct_of(part)) is not None), None)


def keys_of(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the types of a table's settings by their names in the file."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return {field.encode_name: hints[field.name] for field in msgspec.structs.fields(kind)}


def value_of(scenario: Scenario, setting: Setting) -> Any:
    """Return the value that a setting has in a scenario."""
    value: Any = scenario
    for attribute in setting.attributes:
        value = getattr(value, attribute)
    return value


def settings_in(
    struct: type[msgspec.Struct], group: str = "", prefix: str = "", above: tuple[str, ...] = ()
) -> Iterator[Setting]:
    """Yield the settings of a struct. Each table is followed by its own settings.

    An array of tables (rules) is a single setting, because its keys repeat.
    """
    hints = typing.get_type_hints(struct, include_extras=True)
    for field in msgspec.structs.fields(struct):
        setting = _setting(field, hints[field.name], group or _group_of(struct, field.name), prefix, above)
        yield setting
        if setting.table is not None and not setting.is_rules:
            yield from settings_in(setting.table, setting.group, f"{setting.key}.", setting.attributes)


def _setting(field: Any, hint: Any, group: str, prefix: str, above: tuple[str, ...]) -> Setting:
    meta = next((part for part in typing.get_args(hint) if isinstance(part, Meta)), Meta())
    table = struct_of(hint)
    return Setting(
        key=prefix + field.encode_name,
        attributes=(*above, field.name),
        kind=_plain(hint),
        default=_default_of(field),
        help=meta.description or "",
        example=meta.examples[0] if meta.examples else None,
        meta=meta,
        row=row_of(meta),
        group=group,
        table=table,
        is_rules=table is not None and typing.get_origin(_plain(hint)) is tuple,
    )


def _default_of(field: Any) -> Any:
    if field.default is not msgspec.NODEFAULT:
        return field.default
    return None if field.default_factory is msgspec.NODEFAULT else field.default_factory()


def _group_of(struct: type[msgspec.Struct], attribute: str) -> str:
    """Return the group whose class declares an attribute."""
    for parent in struct.__mro__:
        if attribute in inspect.get_annotations(parent):
            return str(getattr(parent, "group", ""))
    return ""


def _plain(hint: Any) -> Any:
    """Return a type without its annotations and without None."""
    if typing.get_origin(hint) is typing.Annotated:
        return _plain(typing.get_args(hint)[0])
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return _plain(next(part for part in typing.get_args(hint) if part is not type(None)))
    return hint


def metavar_of(setting: Setting) -> str:
    """Return the placeholder for a value of the setting in help texts."""
    if setting.row.metavar:
        return setting.row.metavar
    if setting.choices:
        return "|".join(setting.choices)
    kind = setting.kind
    if kind is bool:
        return "true|false"
    if typing.get_origin(kind) is tuple:
        kind = typing.get_args(kind)[0]
    if is_kind(kind):
        return kind.metavar
    return "N" if kind in (int, float) else "TEXT"


def _all() -> dict[str, Setting]:
    found = {setting.key: setting for setting in settings_in(Scenario)}
    return {key: found[key] for group in GROUPS for key in found if found[key].group == group}


SETTINGS: dict[str, Setting] = _all()
"""All settings by key, in the order of the groups."""
