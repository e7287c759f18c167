"""Derives the JSON Schema of scenarios, for editors that check and complete a scenario file."""

from __future__ import annotations

import json
import typing
from typing import Any

import msgspec

from replay import units

from ..kinds import is_kind, setting_text
from ..scenario import Scenario
from ..table import Setting, settings_in

DRAFT = "http://json-schema.org/draft-07/schema#"
"""The draft that TOML editors support."""

_PLAIN: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
}
_LIMITS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}


def text() -> str:
    """Return the schema of a scenario file, as JSON."""
    schema = {
        "$schema": DRAFT,
        "title": "A replay scenario",
        "description": "The settings of a replay. Values have units: 250ms, 30s, 1h30m; 500/s, 50/1m; 25%; 64KiB.",
        **_table(Scenario),
    }
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _table(struct: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the schema of a table. It lists the keys, and rejects others."""
    own = [setting for setting in settings_in(struct, group="-") if len(setting.attributes) == 1]
    schema: dict[str, Any] = {
        "type": "object",
        "additionalProperties": False,
        "properties": {setting.key: _property(setting) for setting in own},
    }
    required = [field.encode_name for field in msgspec.structs.fields(struct) if field.required]
    return schema | ({"required": required} if required else {})


def _property(setting: Setting) -> dict[str, Any]:
    """Return the schema of a setting: its description, type, limits, default and example."""
    described = {"description": setting.help} if setting.help else {}
    schema = {**described, **_type(setting.kind)}
    for limit, keyword in _LIMITS.items():
        if (bound := getattr(setting.meta, limit)) is not None:
            schema[keyword] = bound
    default = written(setting.default)
    if default is not None and setting.table is None:
        schema["default"] = default
    if setting.example is not None:
        schema["examples"] = [setting.example]
    return schema


def _type(kind: Any) -> dict[str, Any]:
    """Return the schema of a value's type in a file."""
    if is_kind(kind):
        return {**kind.schema, "examples": list(kind.examples)}
    origin = typing.get_origin(kind)
    if origin is typing.Literal:
        return {"enum": list(typing.get_args(kind))}
    if origin is tuple:
        return {"type": "array", "items": _type(typing.get_args(kind)[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": _type(typing.get_args(kind)[1])}
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _table(kind)
    return dict(_PLAIN[kind])


def written(value: Any) -> Any:
    """Return a value as a scenario file writes it; None stays None."""
    if isinstance(value, float) and value == units.MAX_RATE:
        return "max"
    return msgspec.to_builtins(setting_text(value) if is_kind(type(value)) else value, enc_hook=setting_text)
