"""Reads a scenario from a TOML file and flags.

Errors report the setting, its line, and what was probably meant.
"""

from __future__ import annotations

import re
import tomllib
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from replay import units
from replay.decoding import examined
from replay.errors import InputError, UsageError, reason_of

from .checks import check
from .kinds import read_setting
from .naming import NameOf
from .scenario import Scenario
from .table import SETTINGS, keys_of, struct_of

_PATH = re.compile(r" - at `\$\.?([^`]*)`$")
_TABLE = re.compile(r"\s*(\[\[?)\s*([\w.\"'-]+)\s*\]")
_KEY = re.compile(r"""\s*([\w.-]+|"[^"]*"|'[^']*')\s*=""")
_OTHER_NAMES = {
    "url": "target", "qps": "rate", "rps": "rate", "header": "headers", "concurrency": "connections",
    "users": "connections", "bodies": "body", "slos": "slo", "warmup": "warm_up", "method": "methods",
    "since": "from", "to": "until", "multiply": "scale", "thin": "sample", "exclude": "without", "include": "only",
}  # fmt: skip
SIZE_BYTES_MAX = 100 * 1024 * 1024
"""The size of the largest TOML file that is accepted."""


_TOML_TYPES = {
    "str": "a text", "int": "a number", "float": "a number", "bool": "true or false", "array": "a list",
    "object": "a table", "null": "nothing",
}  # fmt: skip


def _all_keys(kind: type[msgspec.Struct], prefix: str = "") -> Iterator[str]:
    for name, hint in keys_of(kind).items():
        yield prefix + name
        if (nested := struct_of(hint)) is not None:
            yield from _all_keys(nested, f"{prefix}{name}.")


def _unknown_key(
    kind: type[msgspec.Struct], value: Any, path: str, root: type[msgspec.Struct]
) -> tuple[str, str, list[str]] | None:
    """Return the path of the first unknown key, the setting that was probably meant, and the settings of its table.

    None if every key is known.
    """
    keys = keys_of(kind)
    for name, item in value.items() if isinstance(value, dict) else ():
        here = f"{path}.{name}" if path else name
        if name not in keys:
            return here, _meant(name, keys, root), list(keys)
        if (nested := struct_of(keys[name])) is not None:
            for index, row in enumerate(item if isinstance(item, list) else [item]):
                place = f"{here}[{index}]" if isinstance(item, list) else here
                if (found := _unknown_key(nested, row, place, root)) is not None:
                    return found
    return None


def _meant(name: str, keys: Mapping[str, Any], root: type[msgspec.Struct]) -> str:
    """Return the setting that an unknown name probably means; empty if there is no guess.

    The name may be another tool's, a key of another table, a flag, or a misspelling.
    """
    plain = name.replace("-", "_").lower()
    plain = _OTHER_NAMES.get(plain, plain)
    if plain in keys:
        return plain
    elsewhere = [key for key in _all_keys(root) if key.rpartition(".")[2] == plain]
    if root is Scenario:
        elsewhere += [
            key for key, setting in SETTINGS.items() if f"--{plain.replace('_', '-')}" in setting.row.flags
        ]
    return elsewhere[0] if elsewhere else units.nearest(plain, keys)


def _line_of(text: str, path: str) -> int:
    """Return the number of the line that sets a key; 0 if no line does, as for a missing key.

    For a key inside an inline table or a list, it is the line on which that table or list begins.
    """
    wanted = re.sub(r"\[(\d+)\]", r".\1", path)
    table = ""
    counts: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if header := _TABLE.match(line):
            table = header[2].replace('"', "").replace("'", "")
            if header[1] == "[[":
                counts[table] = counts.get(table, -1) + 1
                table = f"{table}.{counts[table]}"
            key = table
        elif entry := _KEY.match(line):
            name = entry[1].replace('"', "").replace("'", "")
            key = f"{table}.{name}" if table else name
        else:
            continue
        if wanted == key or (wanted.startswith(f"{key}.") and key != table):
            return number
    return 0


class Source:
    """The file and the flags that settings were read from, for error messages."""

    def __init__(
        self, path: Path | None, text: str, flags: Mapping[str, str], kind: type[msgspec.Struct] = Scenario
    ) -> None:
        self._path, self._text, self._flags, self._kind = path, text, flags, kind

    def name(self, key: str) -> str:
        """Return the name of a setting for an error: its flag, or file, line and key, or the key if there is no file.

        An empty key stands for the whole file.
        """
        top = re.split(r"[.\[]", key)[0]
        for candidate in (key, top):
            if candidate in self._flags:
                return self._flags[candidate]
        if self._path is None:
            return key
        line = _line_of(self._text, key)
        where = f"{self._path}" + (f", line {line}" if line else "")
        return f"{where}: {key}" if key else where

    def error(self, error: msgspec.ValidationError) -> UsageError:
        """Return an error of msgspec in plain words."""
        path = match[1] if (match := _PATH.search(str(error))) else ""
        return self.error_at(path, error, lambda: _choices(path, self._kind))

    def error_at(
        self, path: str, error: msgspec.ValidationError, choices: Callable[[], list[str]]
    ) -> UsageError:
        """Return an error of msgspec about the setting at `path` in plain words.

        `choices` returns the words that the setting accepts.
        """
        message, _, hint = _PATH.sub("", str(error)).partition("\0")
        if expected := re.fullmatch(r"Expected `([^`]*)`, got `([^`]*)`", message):
            kinds = [_TOML_TYPES.get(kind.strip(), kind.strip()) for kind in expected[1].split("|")]
            wanted = " or ".join(dict.fromkeys(kind for kind in kinds if kind != "nothing"))
            got = _TOML_TYPES.get(expected[2], expected[2])
            message = "expected a whole number" if wanted == got else f"expected {wanted}, got {got}"
        elif choice := re.fullmatch(r"Invalid enum value '(.*)'", message):
            known = choices()
            guess = units.nearest(choice[1], known)
            message = f"{choice[1]!r} is unknown" + (f" (did you mean {guess}?)" if guess else "")
            hint = f"write {', '.join(known)}"
        elif bound := _BOUND.fullmatch(message):
            message = _bound_text(*bound.groups())
        elif missing := re.fullmatch(r"Object missing required field `(.*)`", message):
            message = f"the key {missing[1]} is missing"
        return UsageError(f"{self.name(path)}: {message}", hint=hint)


_BOUND = re.compile(
    r"Expected `(int|float|str|array)` (?:of length )?(>=|>|<=|<)? ?(-?[\d.e+-]+)(?:, got .*)?"
)
_RELATIONS = {">=": "at least ", ">": "above ", "<=": "at most ", "<": "below ", None: ""}


def _bound_text(kind: str, relation: str | None, bound: str) -> str:
    """Return the message for a value or a length that is too small or too large."""
    what = {
        "int": "a whole number ",
        "float": "a number ",
        "array": "a list of ",
        "str": "a text whose length is ",
    }[kind]
    of = "of " if relation in (">=", "<=") and kind in ("int", "float") else ""
    number = f"{int(bound):,}" if bound.lstrip("-").isdigit() else f"{float(bound):,g}"
    return f"expected {what}{of}{_RELATIONS[relation]}{number}"


def _choices(path: str, kind: type[msgspec.Struct]) -> list[str]:
    hint: Any = kind
    for name in re.sub(r"\[.*?\]", "", path).split("."):
        hint = keys_of(struct_of(hint) or kind)[name]
    while typing.get_origin(hint) is not typing.Literal:
        hint = typing.get_args(hint)[0]
    return list(typing.get_args(hint))


def read_toml(
    path: Path, hint: str = "replay init TRACE --target URL writes a scenario"
) -> tuple[str, dict[str, Any]]:
    """Return the text of a TOML file and its values. InputError if it cannot be read, is too large, or is not TOML."""
    try:
        with path.open("rb") as file:
            data = file.read(SIZE_BYTES_MAX + 1)
        if len(data) > SIZE_BYTES_MAX:
            raise InputError(
                f"{path} is too large",
                hint=f"the limit is {units.format_bytes(SIZE_BYTES_MAX)}",
            )
        text = data.decode("utf-8-sig")
        return text, tomllib.loads(text)
    except OSError as error:
        raise InputError(f"{path}: {reason_of(error)}", hint=hint) from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not TOML: it is not UTF-8") from None
    except RecursionError:
        raise InputError(f"{path} is not TOML: it is nested too deeply") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path} is not TOML: {error}") from None


def _merge(values: dict[str, Any], flags: Mapping[str, Any]) -> dict[str, Any]:
    """Apply flags to the values of a file.

    Tables are merged key by key, regardless of the keys' case. `allow` is extended. Everything else is replaced, lists
    of tables included.
    """
    merged = dict(values)
    for key, value in flags.items():
        table, _, name = key.partition(".")
        if name or isinstance(value, dict):
            below = merged.get(table, {})
            addition = value if not name else {name: value}
            if isinstance(below, dict):
                set_anew = {added.lower() for added in addition}
                merged[table] = {k: v for k, v in below.items() if k.lower() not in set_anew} | addition
        elif key == "allow" and isinstance(merged.get("allow", []), list):
            merged["allow"] = [*merged.get("allow", []), *value]
        else:
            merged[key] = value
    return merged


def load(
    path: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    names: Mapping[str, str] | None = None,
    *,
    and_check: Callable[[Scenario, NameOf], None] = lambda scenario, name_of: None,
) -> Scenario:
    """Return the scenario of a TOML file (None: defaults) with flags applied.

    `flags` maps a setting's key (`speed`, `window.from`) to its value. `names` maps the key to the flag's name, for
    errors. The files of bodies, variables, TLS and the live page are relative to the scenario's file, except those of
    TLS and the live page that `flags` sets. InputError if the file cannot be read or is not TOML, UsageError if a
    setting is unknown or invalid. `and_check` is a further check; it receives the scenario and the function that
    returns a setting's name for an error.
    """
    text, values = ("", {}) if path is None else read_toml(path)
    source = Source(path, text, names or {})
    scenario = _convert(Scenario, values, flags or {}, source, "docs/settings.md lists every setting")
    check(scenario, source.name)
    and_check(scenario, source.name)
    return _beside(scenario, path, flags or {}) if path is not None else scenario


Table = TypeVar("Table", bound=msgspec.Struct)


def load_as(
    kind: type[Table],
    path: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    names: Mapping[str, str] | None = None,
) -> Table:
    """Read another table of settings from a TOML file and flags, with the same errors as `load`."""
    text, values = ("", {}) if path is None else read_toml(path, "")
    return _convert(kind, values, flags or {}, Source(path, text, names or {}, kind), "")


def _convert(
    kind: type[Table], values: dict[str, Any], flags: Mapping[str, Any], source: Source, hint: str
) -> Table:
    """Convert values to a table of settings. UsageError if one is unknown or invalid."""
    merged = _merge(values, flags)
    unknown = _unknown_key(kind, merged, "", kind)
    if unknown is not None:
        key, meant, known = unknown
        guess = f" (did you mean {meant}?)" if meant else ""
        raise UsageError(
            f"{source.name(key)}: there is no such setting{guess}",
            hint=hint or f"settings: {', '.join(known)}",
        )
    try:
        return msgspec.convert(merged, examined(kind), dec_hook=read_setting)
    except msgspec.ValidationError as error:
        raise source.error(_with_key(error, kind, merged)) from None


def _with_key(
    error: msgspec.ValidationError, kind: type[msgspec.Struct], values: Mapping[str, Any]
) -> msgspec.ValidationError:
    """Return the error with the key that it is about, instead of the `[...]` that msgspec writes for it.

    An error without `[...]`, or whose key is not found, is returned unchanged.
    """
    found = _PATH.search(str(error))
    if found is None or not (table := found[1].partition("[...]")[0]) or "[...]" not in found[1]:
        return error
    parts = table.split(".")
    inner: Any = values
    for part in parts:
        inner = inner.get(part) if isinstance(inner, dict) else None
    for key, value in inner.items() if isinstance(inner, dict) else ():
        alone: Any = {key: value}
        for part in reversed(parts):
            alone = {part: alone}
        try:
            msgspec.convert(alone, kind, dec_hook=read_setting)
        except msgspec.ValidationError as own:
            return msgspec.ValidationError(str(own).replace("[...]", f".{key}", 1))
    return error


def _beside(scenario: Scenario, path: Path, flags: Mapping[str, Any]) -> Scenario:
    """Resolve the files of bodies, variables, TLS and the live page relative to the scenario's file.

    Files of TLS and the live page that flags set stay relative to the working directory.
    """
    rules = tuple(
        rule if rule.file is None else msgspec.structs.replace(rule, file=str(path.parent / rule.file))
        for rule in scenario.body
    )
    variables = tuple(
        rule if rule.file is None else msgspec.structs.replace(rule, file=str(path.parent / rule.file))
        for rule in scenario.variable
    )
    files = {
        name: str(path.parent / getattr(scenario.tls, name))
        for name in ("ca", "cert", "key")
        if getattr(scenario.tls, name) and f"tls.{name}" not in flags
    }
    tls = msgspec.structs.replace(scenario.tls, **files)
    own = {
        name: str(path.parent / value)
        for name in ("live_cert", "live_key")
        if (value := getattr(scenario, name)) and name not in flags
    }
    return msgspec.structs.replace(scenario, body=rules, variable=variables, tls=tls, **own)
