"""Derives docs/settings.md, the reference page of the settings."""

from __future__ import annotations

import json

import msgspec

from ..scenario import Scenario
from ..table import GROUPS, SETTINGS, Setting, metavar_of, settings_in
from .schema import written

_HEAD = """\
# Settings

Made by `python -m replay.settings.derive`; do not edit.

A setting is a key of a scenario file (TOML) and a keyword argument of `replay.run`. Many settings also have a flag,
which overrides the file. `replay init TRACE --target URL` writes a scenario with the most common settings. `--all` writes
every setting. `replay init --schema` prints a JSON Schema for editors (`replay/settings/scenario.schema.json`). Editors
check and complete a scenario whose first line is `#:schema scenario.schema.json`.

Values have units: `250ms`, `30s`, `1h30m`; `500/s`, `50/1m`; `25%`; `64KiB`. A time without a unit is in seconds. Paths
in a file are relative to the file, except `kafka.ssl_cafile`. "Used by" lists what uses a setting. Other settings apply
to every protocol. Settings marked *lane* are passed to the lanes.
"""


def text() -> str:
    """Return the source of docs/settings.md."""
    parts = [_HEAD]
    for group in GROUPS:
        own = [setting for setting in SETTINGS.values() if setting.group == group]
        parts.append(f"\n## {group[0].upper()}{group[1:]}\n\n{_summary(group)}\n\n{_rows(own)}")
        parts += [_rules(setting) for setting in own if setting.is_rules]
    return "".join(parts)


def _summary(group: str) -> str:
    """Return the description of a group: the first line of its class's docstring."""
    parent = next(
        parent
        for parent in Scenario.__mro__
        if getattr(parent, "group", "") == group and "group" in vars(parent)
    )
    return (parent.__doc__ or "").strip().partition("\n")[0]


def _rows(settings: list[Setting]) -> str:
    """Return the settings as a Markdown table.

    A TOML table has no row, but its keys do. An array of rules (`[[body]]`) has a row that refers to its section.
    """
    lines = ["| setting | flag | value | default | meaning |", "|---|---|---|---|---|"]
    lines += [_row(setting) for setting in settings if setting.table is None or setting.is_rules]
    return "\n".join(lines) + "\n"


def _row(setting: Setting) -> str:
    flags = " ".join(f"`{flag}`" for flag in setting.row.flags)
    value = "tables, below" if setting.is_rules else f"`{metavar_of(setting)}`".replace("|", "\\|")
    meaning = setting.help.replace("|", "\\|")
    marks = [f"used by {setting.row.used_by}"] if setting.row.used_by else []
    marks += ["lane"] if setting.row.is_lanes else []
    marked = f" *({', '.join(marks)})*" if marks else ""
    return f"| `{setting.key}` | {flags} | {value} | {_default(setting)} | {meaning}{marked} |"


def _default(setting: Setting) -> str:
    if setting.row.default:
        return setting.row.default
    value = written(setting.default)
    if value is None or (value in ("", [], {}) and not isinstance(value, bool)):
        return "none"
    plain = value if isinstance(value, str) else json.dumps(value)
    return f"`{plain}`".replace("|", "\\|")


def _rules(setting: Setting) -> str:
    """Return the section of a table of rules, which lists its keys."""
    assert setting.table is not None
    summary = (setting.table.__doc__ or "").strip().partition("\n")[0]
    required = {field.encode_name for field in msgspec.structs.fields(setting.table) if field.required}
    lines = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for own in settings_in(setting.table, group=setting.group):
        value = f"`{metavar_of(own)}`".replace("|", "\\|")
        default = "required" if own.key in required else _default(own)
        lines.append(f"| `{own.key}` | {value} | {default} | {own.help.replace('|', chr(92) + '|')} |")
    return f"\n### [[{setting.key}]]\n\n{summary}\n\n" + "\n".join(lines) + "\n"
