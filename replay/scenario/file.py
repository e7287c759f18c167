"""A scenario from a TOML file and flags; errors say which key, in which line, and what was meant."""

from __future__ import annotations

import datetime as dt
import re
import tomllib
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from .. import units
from ..errors import InputError, UsageError
from ..names.settings import parse_server
from .knobs import (
    Acks,
    Count,
    Duration,
    Factor,
    HeaderNames,
    HostNames,
    Methods,
    MomentText,
    Rate,
    Scale,
    Share,
    Size,
    SizeRange,
    SloText,
    Statuses,
    ZoneText,
    statuses_of,
)
from .session_rules import Problem, names_problem, size_range
from .settings import AUTO, FAILURES, HEADER_NAME, MANAGED_HEADERS, Scenario, check_header_name
from .target import parse_target, sendable

_TOKEN = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_PATH = re.compile(r" - at `\$\.?([^`]*)`$")
_TABLE = re.compile(r"\s*(\[\[?)\s*([\w.\"'-]+)\s*\]")
_KEY = re.compile(r"""\s*([\w.-]+|"[^"]*"|'[^']*')\s*=""")
_OTHER_NAMES = {
    "url": "target", "qps": "rate", "rps": "rate", "header": "headers", "concurrency": "connections",
    "users": "connections", "bodies": "body", "slos": "slo", "warmup": "warm_up", "method": "methods",
    "since": "from", "to": "until", "multiply": "scale", "thin": "sample", "exclude": "without", "include": "only",
}  # fmt: skip
SIZE_BYTES_MAX = 100 * 1024 * 1024
"""The largest scenario file that is read."""


def _count(value: Any) -> Count:
    if value == "auto":
        return Count(AUTO)
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= 1 << 20:
        raise UsageError(
            f"{value!r} is not a number of them", hint="write auto or a number from 1 to 1,048,576"
        )
    return Count(value)


def _acks(value: Any) -> Acks:
    text = str(value).lower()
    if text == "0":
        raise UsageError(
            "acks = 0 is refused: a broker would answer no record, and nothing would be known of any",
            hint="write 1 or all",
        )
    if text not in ("1", "all", "-1"):
        raise UsageError(f"{value!r} is not a number of acknowledgements", hint="write 1 or all")
    return Acks("1" if text == "1" else "all")


def _methods(value: Any) -> Methods:
    names = value.replace(",", " ").split() if isinstance(value, str) else value
    if (
        not isinstance(names, list)
        or not names
        or not all(isinstance(n, str) and _TOKEN.fullmatch(n) for n in names)
    ):
        raise UsageError(f"{value!r} is not a list of methods", hint='write ["GET", "HEAD"] or "all"')
    methods = Methods(dict.fromkeys(name.upper() for name in names))
    return Methods(("ALL",)) if "ALL" in methods else methods


_STATUS = re.compile(r"[2-5](\d\d|xx)")
_STATUS_FORMS = '"recorded", 200, "2xx" or ["2xx", 404]'


def _statuses(value: Any) -> Statuses:
    names = [str(name) for name in value] if isinstance(value, list) else [str(value)]
    if names != ["recorded"] and (not names or not all(_STATUS.fullmatch(name) for name in names)):
        raise UsageError(f"{value!r} are no statuses", hint=f"write {_STATUS_FORMS}")
    return Statuses(names)


def _size_range(value: Any) -> SizeRange:
    size_range(str(value))
    return SizeRange(value)


def _moment(value: Any) -> MomentText:
    text = value.isoformat() if isinstance(value, dt.datetime | dt.time) else str(value)
    units.parse_moment(text)
    return MomentText(text)


def _zone(value: Any) -> ZoneText:
    units.parse_zone(str(value))
    return ZoneText(value)


def _slo(value: Any) -> SloText:
    from ..results.slo import parse

    parse(str(value))
    return SloText(value)


def parse_scale(value: Any) -> Scale:
    """Factors by route, from `4`, `POST /v1/users=5` or a list of such. UsageError where one is wrong."""
    rules = []
    for text in value if isinstance(value, list | tuple) else [value]:
        route, _, number = str(text).rpartition("=")
        rules.append((" ".join(route.split()), units.parse_factor(number)))
    if len({route for route, _ in rules}) < len(rules):
        raise UsageError(f"{value!r} gives a route two factors", hint=f"write {_SCALE_FORMS}")
    if len(rules) > 1 and any(not route for route, _ in rules):
        raise UsageError(
            f"{value!r} has a factor for all routes beside others", hint="write *=2 last for the rest"
        )
    return Scale(rules)


def _header_names(value: Any) -> HeaderNames:
    names = value.replace(",", " ").split() if isinstance(value, str) else value
    names = [name.lower() if isinstance(name, str) else "" for name in names]
    for name in names:
        if not HEADER_NAME.fullmatch(name):
            raise UsageError(f"{name!r} is not a header's name", hint=f"write {_HEADERS_FORMS}")
        if name in MANAGED_HEADERS:
            raise UsageError(f"{name} is set by replay itself, request by request")
        if name == "content-type":
            raise UsageError("content-type goes with its body already", hint="leave it out")
    return HeaderNames(dict.fromkeys(names))


def _host_names(value: Any) -> HostNames:
    rules = []
    for text in value if isinstance(value, list | tuple) else [value]:
        old, separator, new = (part.strip() for part in str(text).partition("="))
        if not (separator and _HOST.fullmatch(old) and _HOST.fullmatch(new)):
            raise UsageError(f"{text!r} names no two hosts", hint=f"write {_HOSTS_FORMS}")
        if new.startswith("*.") and not old.startswith("*."):
            raise UsageError(f"{text!r}: only a name of *. can become one", hint=f"write {_HOSTS_FORMS}")
        rules.append((old.lower(), new))
    return HostNames(rules)


_HOST = re.compile(r"(\*\.)?([A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?")
_HEADERS_FORMS = "user-agent,accept or all"
_HOSTS_FORMS = "www.example=staging.example or *.example=*.staging.example"
_SCALE_FORMS = '4 or ["POST /v1/users=5", "*=2"]'
_READERS: dict[Any, tuple[Any, str]] = {
    Duration: (lambda v: Duration(units.parse_duration_ns(v)), units.DURATION_FORMS),
    Rate: (lambda v: Rate(units.parse_rate_per_s(v)), units.RATE_FORMS),
    Factor: (lambda v: Factor(units.parse_factor(v)), units.FACTOR_FORMS),
    Share: (lambda v: Share(units.parse_share(v)), units.SHARE_FORMS),
    Size: (lambda v: Size(units.parse_size_bytes(v)), units.SIZE_FORMS),
    Count: (_count, "auto or a number"),
    Scale: (parse_scale, _SCALE_FORMS),
    Acks: (_acks, "1 or all"),
    Methods: (_methods, '["GET", "HEAD"] or "all"'),
    Statuses: (_statuses, _STATUS_FORMS),
    SizeRange: (_size_range, "64KiB, >=1KiB or <2MiB"),
    MomentText: (_moment, units.MOMENT_FORMS),
    ZoneText: (_zone, units.ZONE_FORMS),
    SloText: (_slo, "p99<250ms"),
    HeaderNames: (_header_names, _HEADERS_FORMS),
    HostNames: (_host_names, _HOSTS_FORMS),
}
_TOML_TYPES = {
    "str": "a text", "int": "a number", "float": "a number", "bool": "true or false", "array": "a list",
    "object": "a table", "null": "nothing",
}  # fmt: skip


def _read_knob(kind: Any, value: Any) -> Any:
    reader, forms = _READERS[kind]
    plain = isinstance(value, str | int | float) and not isinstance(value, bool)
    allowed = (
        plain
        or (kind in (Methods, Scale, HeaderNames, HostNames, Statuses) and isinstance(value, list))
        or kind is MomentText
    )
    try:
        if not allowed:
            raise UsageError(f"{value!r} is of the wrong type", hint=f"write {forms}")
        return reader(value)
    except UsageError as error:
        raise ValueError(f"{error}\0{error.hint}") from None


def struct_of(kind: Any) -> type[msgspec.Struct] | None:
    """The knobs behind an annotated type: a table, or the rows of an array of tables."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return kind
    return next((found for part in typing.get_args(kind) if (found := struct_of(part)) is not None), None)


def keys_of(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """Name in the file to type, for a table of knobs."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return {field.encode_name: hints[field.name] for field in msgspec.structs.fields(kind)}


def _all_keys(kind: type[msgspec.Struct], prefix: str = "") -> Iterator[str]:
    for name, hint in keys_of(kind).items():
        yield prefix + name
        if (nested := struct_of(hint)) is not None:
            yield from _all_keys(nested, f"{prefix}{name}.")


def _unknown_key(
    kind: type[msgspec.Struct], value: Any, path: str, root: type[msgspec.Struct]
) -> tuple[str, str, list[str]] | None:
    """The path of the first key that is no knob, the knob that was probably meant, and those that its table has."""
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
    plain = name.replace("-", "_").lower()
    plain = _OTHER_NAMES.get(plain, plain)
    if plain in keys:
        return plain
    elsewhere = [key for key in _all_keys(root) if key.rpartition(".")[2] == plain]
    return elsewhere[0] if elsewhere else units.nearest(plain, keys)


def _line_of(text: str, path: str) -> int:
    """The line that sets a key, 0 where it cannot be told (an inline table)."""
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


class _Source:
    """Where keys came from, to say so in errors."""

    def __init__(
        self, path: Path | None, text: str, flags: Mapping[str, str], kind: type[msgspec.Struct] = Scenario
    ) -> None:
        self._path, self._text, self._flags, self._kind = path, text, flags, kind

    def name(self, key: str) -> str:
        """How to call a key: its flag, or file, line and key."""
        top = re.split(r"[.\[]", key)[0]
        for candidate in (key, top):
            if candidate in self._flags:
                return self._flags[candidate]
        line = _line_of(self._text, key)
        where = f"{self._path}" + (f", line {line}" if line else "")
        return f"{where}: {key}"

    def error(self, error: msgspec.ValidationError) -> UsageError:
        """msgspec's complaint in our words."""
        message = str(error)
        path = match[1] if (match := _PATH.search(message)) else ""
        message, _, hint = _PATH.sub("", message).partition("\0")
        if expected := re.fullmatch(r"Expected `([^`]*)`, got `([^`]*)`", message):
            kinds = [_TOML_TYPES.get(kind.strip(), kind.strip()) for kind in expected[1].split("|")]
            wanted = " or ".join(dict.fromkeys(kind for kind in kinds if kind != "nothing"))
            message = f"expected {wanted}, got {_TOML_TYPES.get(expected[2], expected[2])}"
        elif choice := re.fullmatch(r"Invalid enum value '(.*)'", message):
            known = _choices(path, self._kind)
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
    """What msgspec says of a value, or a length, that is too small or too large."""
    what = {
        "int": "a whole number ",
        "float": "a number ",
        "array": "a list of ",
        "str": "a text as long as ",
    }[kind]
    of = "of " if relation in (">=", "<=") and kind in ("int", "float") else ""
    return f"expected {what}{of}{_RELATIONS[relation]}{float(bound):,g}"


def _choices(path: str, kind: type[msgspec.Struct]) -> list[str]:
    hint: Any = kind
    for name in re.sub(r"\[.*?\]", "", path).split("."):
        hint = keys_of(struct_of(hint) or kind)[name]
    while typing.get_origin(hint) is not typing.Literal:
        hint = typing.get_args(hint)[0]
    return list(typing.get_args(hint))


def _read_toml(
    path: Path, hint: str = "replay init TRACE --target URL writes a scenario"
) -> tuple[str, dict[str, Any]]:
    try:
        with path.open("rb") as file:
            data = file.read(SIZE_BYTES_MAX + 1)
        if len(data) > SIZE_BYTES_MAX:
            raise InputError(f"{path} is too large to be a scenario")
        text = data.decode()
        return text, tomllib.loads(text)
    except OSError as error:
        raise InputError(f"{path}: {(error.strerror or str(error)).lower()}", hint=hint) from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not TOML: it is not text") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path} is not TOML: {error}") from None


def _merge(values: dict[str, Any], flags: Mapping[str, Any]) -> dict[str, Any]:
    """Put flags over a file's values: tables key by key, `allow` in addition, all else in its place."""
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
    path: Path | None = None, flags: Mapping[str, Any] | None = None, names: Mapping[str, str] | None = None
) -> Scenario:
    """The scenario of a TOML file (None: defaults) with flags over it.

    `flags` maps a knob's path (`speed`, `window.from`) to its value as text; `names` maps it to the flag, for
    errors. Paths in the file are beside the file. InputError where the file cannot be read, UsageError where
    a knob is wrong.
    """
    text, values = ("", {}) if path is None else _read_toml(path)
    source = _Source(path, text, names or {})
    scenario = _convert(Scenario, values, flags or {}, source, "replay init lists every key")
    _check(scenario, source)
    return _beside(scenario, path, flags or {}) if path is not None else scenario


Table = TypeVar("Table", bound=msgspec.Struct)


def load_as(
    kind: type[Table],
    path: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    names: Mapping[str, str] | None = None,
) -> Table:
    """Another table of knobs from a TOML file and flags, with the same errors as `load`."""
    text, values = ("", {}) if path is None else _read_toml(path, "")
    return _convert(kind, values, flags or {}, _Source(path, text, names or {}, kind), "")


def _convert(
    kind: type[Table], values: dict[str, Any], flags: Mapping[str, Any], source: _Source, hint: str
) -> Table:
    """Values as knobs. UsageError says which key is unknown or wrong."""
    unknown = _unknown_key(kind, values, "", kind)
    if unknown is not None:
        key, meant, known = unknown
        guess = f" (did you mean {meant}?)" if meant else ""
        raise UsageError(
            f"{source.name(key)}: there is no such key{guess}",
            hint=hint or f"keys: {', '.join(known)}",
        )
    try:
        return msgspec.convert(_merge(values, flags), kind, dec_hook=_read_knob)
    except msgspec.ValidationError as error:
        raise source.error(error) from None


def _check(scenario: Scenario, source: _Source) -> None:
    """What no single knob can say by itself."""
    for name in scenario.headers:
        _check_header(name, f"headers.{name}", source)
    if scenario.host and not sendable(scenario.host):
        raise UsageError(
            f"{source.name('host')}: {scenario.host!r} is not a host", hint="write NAME or NAME:PORT"
        )
    for index, also in enumerate(scenario.also):
        try:
            parse_target(also.target)
        except UsageError as error:
            raise UsageError(f"{source.name(f'also[{index}].target')}: {error}", hint=error.hint) from None
    _check_headers_once(scenario, source)
    if scenario.resolver:
        try:
            parse_server(scenario.resolver)
        except UsageError as error:
            raise UsageError(f"{source.name('resolver')}: {error}", hint=error.hint) from None
    for index, rule in enumerate(scenario.body):
        if not sendable(rule.content_type.replace(" ", "")):
            raise UsageError(
                f"{source.name(f'body[{index}].content_type')}: {rule.content_type!r} cannot be sent",
                hint='write "application/json"',
            )
        if (rule.file is None) == (rule.template is None):
            raise UsageError(
                f"{source.name(f'body[{index}].route')}: give either file or template, and not both"
            )
    _check_sessions(scenario, source)
    for key in ("duration", "compress_to", "timeout", "max_wait", "max_duration", "idle_timeout"):
        if getattr(scenario, f"{key}_ns") == 0:
            raise UsageError(f"{source.name(key)}: it must be above 0")
    if scenario.compress_to_ns is not None and float(scenario.speed) != 1:
        raise UsageError(
            f"{source.name('compress_to')}: it and speed both set the speed", hint="give one of them"
        )
    for key, value in (("peak", scenario.peak_per_s), ("compress_to", scenario.compress_to_ns)):
        if scenario.rate_per_s is not None and value is not None:
            raise UsageError(
                f"{source.name(key)}: a constant rate has no peaks, and no recorded times",
                hint=f"give either rate or {key}",
            )
    if scenario.peak_per_s == units.MAX_RATE:
        raise UsageError(f"{source.name('peak')}: max is no rate of a peak", hint="write 500/s")
    if scenario.rate_per_s is not None and float(scenario.speed) != 1:
        raise UsageError(
            f"{source.name('speed')}: a constant rate has no speed", hint="give either rate or speed"
        )
    _check_clients(scenario, source)
    _check_tls(scenario, source)
    _check_retry(scenario, source)
    if scenario.duration_ns is not None and scenario.warm_up_ns >= scenario.duration_ns:
        raise UsageError(f"{source.name('warm_up')}: nothing is left to measure: the run is shorter")


def _check_tls(scenario: Scenario, source: _Source) -> None:
    """What is asked of a target by TLS."""
    if scenario.tls.key and not scenario.tls.cert:
        raise UsageError(f"{source.name('tls.key')}: a key without its certificate", hint="give --cert FILE")
    if scenario.tls.insecure and scenario.tls.ca:
        raise UsageError(
            f"{source.name('tls.ca')}: nothing is verified with insecure, by whatever certificates",
            hint="give one of the two",
        )
    if not sendable(scenario.tls.server_name):
        raise UsageError(f"{source.name('tls.server_name')}: {scenario.tls.server_name!r} is not a name")


def _check_sessions(scenario: Scenario, source: _Source) -> None:
    """Rules that make sessions: each by itself, and their names."""
    for table in ("variable", "capture", "set", "check"):
        for index, rule in enumerate(getattr(scenario, table)):
            if (found := rule.problem()) is not None:
                raise _rule_error(source, f"{table}[{index}]", found)
            header = getattr(rule, "header", None)
            if table == "set" and header is not None:
                _check_header(header, f"{table}[{index}].header", source)
    named = names_problem({rule.name for rule in scenario.capture}, scenario.variable, scenario.set)
    if named is not None:
        raise _rule_error(source, *named)
    _check_cookies(scenario, source)
    auth = scenario.auth
    _check_header(auth.header, "auth.header", source)
    if auth.command and auth.header.lower() in {name.lower() for name in scenario.headers}:
        raise UsageError(
            f"{source.name('auth.header')}: {auth.header} is among [headers] as well",
            hint="take it out there",
        )


def _check_cookies(scenario: Scenario, source: _Source) -> None:
    """Where a jar is kept nothing else says which cookies are sent."""
    if not scenario.cookies:
        return
    given = [f"headers.{name}" for name in scenario.headers if name.lower() == "cookie"]
    given += ["send_headers"] if "cookie" in scenario.send_headers else []
    given += [
        f"set[{i}].header" for i, rule in enumerate(scenario.set) if (rule.header or "").lower() == "cookie"
    ]
    if given:
        raise UsageError(
            f"{source.name(given[0])}: Cookie is given, and cookies = true sends what the answers set",
            hint="take one of them out",
        )


def _rule_error(source: _Source, table: str, problem: Problem) -> UsageError:
    return UsageError(f"{source.name(f'{table}.{problem.key}')}: {problem.why}", hint=problem.hint)


def _check_header(name: str, key: str, source: _Source) -> None:
    try:
        check_header_name(name)
    except UsageError as error:
        raise UsageError(f"{source.name(key)}: {error}", hint=error.hint) from None


def _check_clients(scenario: Scenario, source: _Source) -> None:
    """What recorded clients can have, and what has none."""
    if scenario.by_client and scenario.closed_loop:
        given = {
            "order": scenario.order == "client",
            "capture": scenario.capture,
            "cookies": scenario.cookies,
        }
        key = next((key for key, is_given in given.items() if is_given), "connect")
        raise UsageError(
            f"{source.name(key)}: a closed loop has no recorded clients: its connections ask, one after another",
            hint=f"give a rate that is not max, or leave out {key}",
        )
    if scenario.target.lower().startswith("kafka:"):
        if scenario.order == "client":
            raise UsageError(
                f"{source.name('order')}: a Kafka target has no answers to wait for; its records keep the order of"
                " their partition",
                hint="leave out order",
            )
        for key in ("capture", "check", "cookies"):
            if getattr(scenario, key):
                raise UsageError(
                    f"{source.name(key)}: a Kafka target answers with nothing to look at",
                    hint=f"leave out {key}",
                )
        if scenario.connect != "pool":
            raise UsageError(
                f"{source.name('connect')}: to Kafka a producer has one connection a broker, whoever asks",
                hint="leave out connect",
            )


def _check_headers_once(scenario: Scenario, source: _Source) -> None:
    """No header is given in two ways: recorded, by a rule, and with the client's address."""
    for index, rule in enumerate(scenario.set):
        if rule.header is not None and rule.header.lower() in scenario.send_headers:
            where = source.name(f"set[{index}].header")
            raise UsageError(f"{where}: {rule.header} is among send_headers as well", hint="give it once")
    name = scenario.client_ip_header
    if not name:
        return
    where = source.name("client_ip_header")
    try:
        check_header_name(name)
    except UsageError as error:
        raise UsageError(f"{where}: {error}", hint="write X-Forwarded-For") from None
    given = {header.lower() for header in scenario.headers} | set(scenario.send_headers)
    given |= {rule.header.lower() for rule in scenario.set if rule.header is not None}
    if name.lower() in given:
        raise UsageError(
            f"{where}: {name} is among headers, set or send_headers as well", hint="give it once"
        )


def _check_retry(scenario: Scenario, source: _Source) -> None:
    """What is tried again has to be something that can happen."""
    for index, name in enumerate(scenario.retry.on):
        if not statuses_of(name) and name not in FAILURES:
            raise UsageError(
                f"{source.name(f'retry.on[{index}]')}: {name!r} is no status and no outcome",
                hint=f"write a status from 200 to 599, 4xx, 5xx, or {', '.join(FAILURES)}",
            )
    if scenario.retry.attempts > 1 and scenario.target.lower().startswith("kafka:"):
        raise UsageError(
            f"{source.name('retry.attempts')}: a Kafka producer tries again by itself", hint="leave out retry"
        )


def _beside(scenario: Scenario, path: Path, flags: Mapping[str, Any]) -> Scenario:
    """Resolve the file's relative paths; those of flags are relative to where the command runs."""
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
    return msgspec.structs.replace(scenario, body=rules, variable=variables, tls=tls)
