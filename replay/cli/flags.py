"""The command-line flags of settings, derived from the rows in `replay.settings.groups` and shared by all verbs."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from replay.errors import UsageError
from replay.settings.kinds import is_kind, setting_text
from replay.settings.table import SETTINGS, Setting, metavar_of

from .options import OptionalValue

Command = TypeVar("Command", bound=Callable[..., Any])


class SettingFlag(click.Option):
    """A setting's flag. Its help, default, values and completion are derived from the setting's row."""

    def __init__(self, *args: Any, setting: Setting, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.setting = setting
        self.group = setting.group

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete the fixed words that the setting accepts, or file names if its value is a file."""
        if self.metavar == "FILE":
            return [CompletionItem(incomplete, type="file")]
        return [CompletionItem(value) for value in _values(self.setting) if value.startswith(incomplete)]


class OptionalSettingFlag(SettingFlag, OptionalValue):
    """A setting's flag whose value is optional: `--live`, `--live=HOST:PORT`."""


def _values(setting: Setting) -> tuple[str, ...]:
    """Return the fixed words that a setting accepts, such as `auto`; empty if it accepts none."""
    if setting.choices:
        return setting.choices
    written = metavar_of(setting).split("|")
    return tuple(value for value in written if value == value.lower()) if len(written) > 1 else ()


def settings_flags(
    keys: Iterable[str], *, required: Iterable[str] = (), words: Mapping[str, str] | None = None
) -> Callable[[Command], Command]:
    """Return a decorator that adds the flags of these settings to a verb.

    `required` are the keys whose flags must be given. `words` are help texts for settings that mean something special
    in this verb.
    """

    def add(command: Command) -> Command:
        for key in reversed(list(keys)):
            command = _flag(SETTINGS[key], key in required, (words or {}).get(key, ""))(command)
        return command

    return add


def flags_of_all() -> list[str]:
    """Return the keys of all settings that have a flag, in the order of the setting groups."""
    return [key for key, setting in SETTINGS.items() if setting.row.flags]


def _flag(setting: Setting, required: bool, words: str) -> Callable[[Command], Command]:
    names = (*setting.row.flags, parameter_of(setting.key))
    if setting.kind is bool:
        return click.option(
            *names, cls=SettingFlag, setting=setting, is_flag=True, help=_switch_help(setting)
        )
    return click.option(
        *names,
        **_class_of(setting),
        setting=setting,
        metavar=metavar_of(setting),
        multiple=True,
        required=required,
        callback=None if is_repeatable(setting) else _last,
        help=words or _help(setting),
    )


def _class_of(setting: Setting) -> dict[str, Any]:
    """Return the click arguments that select the class of a setting's flag."""
    if setting.row.bare:
        return {"cls": OptionalSettingFlag, "bare": setting.row.bare}
    return {"cls": SettingFlag}


def parameter_of(key: str) -> str:
    """Return the name of a setting's click parameter: `window__from` for `window.from`."""
    return key.replace(".", "__")


def is_repeatable(setting: Setting) -> bool:
    """Return whether each use of the flag adds a value."""
    if is_kind(setting.kind):
        return setting.kind.repeats_flag
    return typing.get_origin(setting.kind) in (tuple, dict)


def _last(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> str | None:
    """Return the last value of a flag that is not repeatable, and print a note if its values differ.

    UsageError for two different targets.
    """
    if len(set(values)) > 1:
        assert isinstance(parameter, SettingFlag)
        flag = _flag_name(parameter.setting)
        if parameter.setting.key == "target":
            raise UsageError(
                f"{flag} is given {len(values)} times: {' and '.join(values)}",
                hint="give one; further targets are [[also]] tables of a scenario",
            )
        click.echo(f"note: {flag} is given {len(values)} times; {values[-1]} is used", err=True)
    return values[-1] if values else None


def _switch_help(setting: Setting) -> str:
    """Return the help of a switch. The help of a `--no-` switch begins with "Do not"."""
    if not setting.row.flags[0].startswith("--no-"):
        return f"{setting.help}."
    return f"Do not {setting.help[0].lower()}{setting.help[1:]}."


def _help(setting: Setting) -> str:
    """Return the help of a flag: what it sets, its values if the metavar does not list them, and its default."""
    values = setting.choices if setting.row.metavar else ()
    listed = f": {', '.join(values[:-1])} or {values[-1]}" if values else ""
    default = default_text(setting)
    return f"{setting.help}{listed}" + (f" [default: {default}]." if default else ".")


def default_text(setting: Setting) -> str:
    """Return the default of a setting as text; empty if there is none."""
    if setting.row.default:
        return setting.row.default
    value = setting.default
    if value is None or (isinstance(value, str | tuple | dict) and not value):
        return ""
    written = setting_text(value) if is_kind(type(value)) else value
    if isinstance(written, float):
        return f"{written:g}"
    return ",".join(map(str, written)) if isinstance(written, list | tuple) else str(written)


def _flag_name(setting: Setting) -> str:
    """Return the name of the flag for error messages: `-H` for headers, otherwise the long one."""
    if setting.key == "headers":
        return "-H"
    return next(flag for flag in setting.row.flags if flag.startswith("--"))


def given_settings(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the settings that a verb's parameters set, by key, and the flag of each for error messages.

    UsageError for a text that is not a whole number, a header or a pair.
    """
    values: dict[str, Any] = {}
    flags: dict[str, str] = {}
    for key in flags_of_all():
        value = given.get(parameter_of(key))
        if value in (None, False, ()):
            continue
        setting = SETTINGS[key]
        values[key], flags[key] = _value(setting, value), _flag_name(setting)
    return values, flags


def _value(setting: Setting, value: Any) -> Any:
    """Return the value of a flag as a scenario file would have it. UsageError if it cannot be converted."""
    if setting.kind is bool:
        return not setting.row.flags[0].startswith("--no-")
    if setting.kind is int:
        return whole_number(value, _flag_name(setting))
    if typing.get_origin(setting.kind) is dict:
        return dict(_pair(setting, text) for text in value)
    return list(value) if isinstance(value, tuple) else value


def whole_number(text: str, flag: str) -> int:
    """Parse a whole number of 0 or more. UsageError if it is invalid."""
    if not text.isascii() or not text.isdigit():
        raise UsageError(f"{flag}: {text!r} is not a whole number", hint="give a whole number, 0 or more")
    return int(text)


def _pair(setting: Setting, text: str) -> tuple[str, str]:
    """Parse `NAME: VALUE` of a header, or the `OLD=NEW` of another setting. UsageError if it is invalid."""
    if setting.key == "headers":
        from replay.settings.headers import parse_header

        return parse_header(text)
    old, separator, new = text.partition("=")
    if not (old and separator and new):
        flag = _flag_name(setting)
        raise UsageError(f"{flag}: {text!r} is not a pair", hint=f"write {flag} {metavar_of(setting)}")
    return old, new
