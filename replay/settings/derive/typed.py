"""Derives TypedDicts of the settings, which let editors complete them and type checkers check them."""

from __future__ import annotations

import keyword
import types
import typing
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from ..kinds import is_kind
from ..scenario import Scenario
from ..table import keys_of, struct_of
from ..verbs import OF_TRANSFORM, SET_BY_PEAK, tables_of

OWN_PARAMETERS = ("target", "trace")
"""Settings that the library's functions have a separate parameter for."""

_HEAD = '''\
"""The settings of a scenario by name, for functions that take `**settings: Unpack[Settings]`.

Made by `python -m replay.settings.derive`; do not edit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, time, timedelta
from typing import Literal, Required, TypedDict
'''


def text() -> str:
    """Return the source of `replay/settings/typed.py`."""
    names = [key for key in keys_of(Scenario) if key not in OWN_PARAMETERS]
    blocks = [_block(name, table) for name, table in _tables(Scenario)]
    blocks.append(_block("Settings", Scenario, names))
    blocks.append(_block("TransformSettings", Scenario, tables_of(OF_TRANSFORM), _OF_TRANSFORM))
    blocks.append(
        _block("PeakSettings", Scenario, [name for name in names if name not in SET_BY_PEAK], _OF_PEAK)
    )
    space = (
        "\n\n" if blocks[0].startswith("class") else "\n"
    )  # The formatter wants two blank lines before a class.
    return _HEAD + space + "\n\n\n".join(blocks) + "\n"


def _tables(kind: type[msgspec.Struct]) -> Iterator[tuple[str, type[msgspec.Struct]]]:
    """Yield the name and the struct of each table within a table, the inner ones first."""
    for hint in keys_of(kind).values():
        if (table := struct_of(hint)) is not None:
            yield from _tables(table)
            yield _name(table), table


def _name(table: type[msgspec.Struct]) -> str:
    return table.__name__ if table.__name__.endswith("Settings") else f"{table.__name__}Settings"


def _block(name: str, table: type[msgspec.Struct], keys: Sequence[str] = (), summary: str = "") -> str:
    """Return the source of a TypedDict of a table's settings, or only of those in `keys`.

    A table with a key such as `from` needs the call syntax, because the key is a keyword of Python.
    """
    required = {field.encode_name for field in msgspec.structs.fields(table) if field.required}
    types_of = {key: _type(hint) for key, hint in keys_of(table).items() if not keys or key in keys}
    types_of = {key: f"Required[{of}]" if key in required else of for key, of in types_of.items()}
    if any(keyword.iskeyword(key) for key in types_of):
        lines = [f'        "{key}": {of},' for key, of in types_of.items()]
        return "\n".join(
            [f"{name} = TypedDict(", f'    "{name}",', "    {", *lines, "    },", "    total=False,", ")"]
        )
    words = summary or (_SUMMARY if table is Scenario else (table.__doc__ or "").strip().partition("\n")[0])
    lines = [f"    {key}: {of}" for key, of in types_of.items()]
    return "\n".join([f"class {name}(TypedDict, total=False):", f'    """{words}"""', "", *lines])


_SUMMARY = "All settings of a scenario except `target` and `trace`."
_OF_TRANSFORM = "The settings that change a trace."
_OF_PEAK = "The settings of a search for the peak: all except those that the search sets itself."


def _type(hint: Any) -> str:
    """Return a setting's type as source text."""
    origin = typing.get_origin(hint)
    if origin is typing.Annotated:
        return _type(typing.get_args(hint)[0])
    if is_kind(hint):
        return hint.program_type
    if origin in (typing.Union, types.UnionType):
        return " | ".join("None" if part is type(None) else _type(part) for part in typing.get_args(hint))
    if origin is typing.Literal:
        choices = ", ".join(f'"{choice}"' for choice in typing.get_args(hint))
        return f"Literal[{choices}]"
    if origin is tuple:
        return f"Sequence[{_type(typing.get_args(hint)[0])}]"
    if origin is dict:
        return f"Mapping[str, {_type(typing.get_args(hint)[1])}]"
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return _name(hint)
    return str(hint.__name__)
