"""Derives `replay/settings/lane.py`: the settings that lanes need, as a part of a lane's specification."""

from __future__ import annotations

import typing
from typing import Any

from ..table import SETTINGS, Setting

_HEAD = '''\
"""The settings of a scenario that a lane needs. Made by `python -m replay.settings.derive`; do not edit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from .scenario import Scenario


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneSettings:
    """The settings of a scenario that a lane receives. Times are in ns."""

'''


def lanes() -> list[Setting]:
    """Return the settings whose rows pass them to the lanes (`lane=True`)."""
    return [setting for setting in SETTINGS.values() if setting.row.is_lanes]


def text() -> str:
    """Return the source of `replay/settings/lane.py`."""
    fields = [f"    {_name(setting)}: {_type(setting)} = {_default(setting)}\n" for setting in lanes()]
    pairs = [f'        "{_name(setting)}": {_value(setting)},\n' for setting in lanes()]
    return "".join([
        _HEAD, *fields, "\n\n", "def lane_settings(scenario: Scenario) -> dict[str, Any]:\n",
        '    """Return the settings of a lane by their names in `LaneSettings`."""\n', "    return {\n", *pairs, "    }\n",
    ])  # fmt: skip


def _name(setting: Setting) -> str:
    return setting.attributes[-1]


def _type(setting: Setting) -> str:
    choices = ", ".join(f'"{choice}"' for choice in setting.choices)
    return f"Literal[{choices}]" if choices else "int"


def _default(setting: Setting) -> Any:
    return f'"{setting.default}"' if setting.choices else f"{int(setting.default):_}"


def _value(setting: Setting) -> str:
    path = ".".join(("scenario", *setting.attributes))
    return path if typing.get_origin(setting.kind) is typing.Literal else f"int({path})"
