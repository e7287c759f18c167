"""The values of knobs, from what a file or a flag says; each error says which forms there are."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

from replay import units
from replay.errors import UsageError

from .headers import HEADER_NAME, MANAGED_HEADERS
from .kinds import (
    AUTO,
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
)
from .session_rules import size_range

_TOKEN = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


def _duration(value: Any) -> Duration:
    duration = Duration(units.parse_duration_ns(value))
    if units.is_bare(str(value)):
        duration.bare = str(value).strip()
    return duration


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
    from replay.results.slo import parse

    parse(str(value))
    return SloText(value)


def parse_scale(value: Any) -> Scale:
    """Factors by route, from `4`, `POST /v1/users=5` or a list of such. UsageError where one is wrong."""
    rules = []
    for text in value if isinstance(value, list | tuple) else [value]:
        route, equals, number = str(text).rpartition("=")
        if equals and not route.strip():
            raise UsageError(f"{text!r} names no route", hint=f"write {_SCALE_FORMS}")
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
    Duration: (_duration, units.DURATION_FORMS),
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


def read_knob(kind: Any, value: Any) -> Any:
    """What `value` means for a knob of this kind; ValueError with words and, behind a NUL, a hint."""
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
