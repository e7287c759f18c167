"""Kinds that are lists: methods, scale factors, statuses, header names and host names."""

from __future__ import annotations

import re
from typing import Any, ClassVar, Self

from replay import units
from replay.errors import UsageError

from ..headers import HEADER_NAME, MANAGED_HEADERS
from .kind import Kind

_TOKEN = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_STATUS = re.compile(r"[2-5](\d\d|xx)")
_HOST = re.compile(r"(\*\.)?([A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?")
_TEXTS: dict[str, Any] = {"type": ["string", "array"], "items": {"type": "string"}}


class Methods(tuple[str, ...], Kind):
    """Method names in capitals. ("ALL",) means every method."""

    __slots__ = ()

    forms = '["GET", "HEAD"] or "all"'
    examples = (["GET", "HEAD"], "all", "GET,POST")
    metavar = "LIST"
    program_type = "str | Sequence[str]"
    schema: ClassVar[dict[str, Any]] = {**_TEXTS, "minItems": 1, "minLength": 1}
    takes_lists = True

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Parse `GET,HEAD`, a list, or `all`."""
        names = value.replace(",", " ").split() if isinstance(value, str) else value
        if (
            not isinstance(names, list | tuple)
            or not names
            or not all(isinstance(name, str) and _TOKEN.fullmatch(name) for name in names)
        ):
            raise UsageError(f"{value!r} is not a list of methods", hint=f"write {cls.forms}")
        methods = cls(dict.fromkeys(name.upper() for name in names))
        return cls(("ALL",)) if "ALL" in methods else methods

    def written(self) -> object:
        """Return `all`, or the methods as a list."""
        return "all" if self == ("ALL",) else list(self)

    def allow(self, method: str) -> bool:
        """Return whether requests of this method may be sent."""
        return self == ("ALL",) or method in self


class Scale(tuple[tuple[str, float], ...], Kind):
    """Factors by route, written as `4` or `["POST /v1/users=5"]`. The route "" means all routes."""

    __slots__ = ()

    forms = '4 or ["POST /v1/users=5", "*=2"]'
    examples = (4, ["POST /v1/users=5", "*=2"])
    metavar = "K|ROUTE=K"
    program_type = "str | float | Sequence[str | float]"
    schema: ClassVar[dict[str, Any]] = {
        "type": ["string", "number", "array"],
        "items": {"type": ["string", "number"]},
    }
    takes_lists = True
    repeats_flag = True

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Parse `4`, `POST /v1/users=5` or a list of these."""
        rules = []
        for text in value if isinstance(value, list | tuple) else [value]:
            route, equals, number = str(text).rpartition("=")
            if equals and not route.strip():
                raise UsageError(f"{text!r} names no route before =", hint=f"write {cls.forms}")
            rules.append((" ".join(route.split()), units.parse_factor(number)))
        if len({route for route, _ in rules}) < len(rules):
            raise UsageError(f"{value!r} gives a route two factors", hint=f"write {cls.forms}")
        if len(rules) > 1 and any(not route for route, _ in rules):
            raise UsageError(
                f"{value!r} has a factor for all routes beside others",
                hint="write *=2 as the last factor instead",
            )
        return cls(rules)

    def written(self) -> list[str]:
        """Return a list such as `["POST /v1/users=5"]`, which `parse` reads as the same factors."""
        texts = [units.exact_text(factor) for _, factor in self]
        return [f"{route}={text}" if route else text for (route, _), text in zip(self, texts, strict=True)]


class Statuses(tuple[str, ...], Kind):
    """Statuses that a check accepts: `recorded`, `200`, or a list such as `["2xx", 404]`."""

    __slots__ = ()

    forms = '"recorded", 200, "2xx" or ["2xx", 404]'
    examples = ("recorded", 200, "2xx", ["2xx", 404])
    metavar = "STATUSES"
    program_type = "str | int | Sequence[str | int]"
    schema: ClassVar[dict[str, Any]] = {
        "type": ["string", "integer", "array"],
        "items": {"type": ["string", "integer"]},
    }
    takes_lists = True

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Parse `recorded`, `200`, `2xx` or a list."""
        names = [str(name) for name in value] if isinstance(value, list | tuple) else [str(value)]
        if names != ["recorded"] and (not names or not all(_STATUS.fullmatch(name) for name in names)):
            raise UsageError(f"{value!r} is not a list of statuses", hint=f"write {cls.forms}")
        return cls(names)

    def written(self) -> object:
        """Return `recorded`, or the statuses as a list."""
        return self[0] if self == ("recorded",) else list(self)


def statuses_of(text: str) -> range:
    """Return the statuses that `503` or `5xx` means; an empty range for other texts."""
    if re.fullmatch("[2-5]xx", text):
        return range(int(text[0]) * 100, int(text[0]) * 100 + 100)
    if re.fullmatch("[2-5][0-9][0-9]", text):
        return range(int(text), int(text) + 1)
    return range(0)


class HeaderNames(tuple[str, ...], Kind):
    """Header names in lower case, written as `user-agent,accept` or as a list."""

    __slots__ = ()

    forms = "user-agent,accept or all"
    examples = ("user-agent,accept", "all", ["user-agent"])
    metavar = "LIST"
    program_type = "str | Sequence[str]"
    schema: ClassVar[dict[str, Any]] = _TEXTS
    takes_lists = True

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Parse `user-agent,accept`, a list, or `all`."""
        names = value.replace(",", " ").split() if isinstance(value, str) else value
        names = (
            [name.lower() if isinstance(name, str) else "" for name in names]
            if isinstance(names, list | tuple)
            else [""]
        )
        for name in names:
            if not HEADER_NAME.fullmatch(name):
                raise UsageError(f"{name!r} is not a header's name", hint=f"write {cls.forms}")
            if name in MANAGED_HEADERS:
                raise UsageError(f"only replay itself may set {name}")
            if name == "content-type":
                raise UsageError("content-type is always sent with a body that has one", hint="leave it out")
        return cls(dict.fromkeys(names))

    def written(self) -> list[str]:
        """Return the names as a list, in lower case."""
        return list(self)


class HostNames(tuple[tuple[str, str], ...], Kind):
    """Hosts and their replacements, written as `["www.example=staging.example"]`."""

    __slots__ = ()

    forms = "www.example=staging.example or *.example=*.staging.example"
    examples = ("www.example=staging.example", ["*.example=*.staging.example"])
    metavar = "FROM=TO"
    program_type = "str | Sequence[str]"
    schema: ClassVar[dict[str, Any]] = _TEXTS
    takes_lists = True
    repeats_flag = True

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Parse `OLD=NEW`, or a list of these."""
        rules = []
        for text in value if isinstance(value, list | tuple) else [value]:
            old, separator, new = (part.strip() for part in str(text).partition("="))
            if not (separator and _HOST.fullmatch(old) and _HOST.fullmatch(new)):
                raise UsageError(f"{text!r} is not a pair of hosts", hint=f"write {cls.forms}")
            if new.startswith("*.") and not old.startswith("*."):
                raise UsageError(
                    f"{text!r}: NEW can begin with *. only if OLD does", hint=f"write {cls.forms}"
                )
            rules.append((old.lower(), new))
        return cls(rules)

    def written(self) -> list[str]:
        """Return a list of `OLD=NEW`."""
        return [f"{old}={new}" for old, new in self]
