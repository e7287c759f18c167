"""Locates values in requests and responses: JSON leaves, fields of forms and queries, cookies, path segments.

Each function yields `Place`s: the name of the place, the range of its raw text, and the decoded value. Texts are
decoded as Latin-1, so that an offset in the text is also an offset in the bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple
from urllib.parse import unquote_to_bytes

Kind = Literal["header", "cookie", "query", "form", "json", "path"]

KINDS: tuple[Kind, ...] = ("header", "cookie", "query", "form", "json", "path")

JSON_DEPTH_MAX = 64
"""The maximum nesting of JSON that is searched for leaves. The search stops at anything deeper."""

_SPACE = r"[ \t\r\n]*"
_JSON_TOKEN = re.compile(
    _SPACE
    + r'(?:(?P<string>"(?:[^"\\]|\\.)*")|(?P<bare>-?\d[\d.eE+-]*|true|false|null)|(?P<mark>[{}\[\]:,]))',
    re.DOTALL,
)
_FIELD = re.compile(r"(?:^|&)([^=&]*)=([^&]*)")
_COOKIE = re.compile(r"(?:^|;)[ \t]*([^=;]+)=([^;]*)")
_SEGMENT = re.compile(r"/([^/?#]+)")
_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|(.))", re.DOTALL)
_SHORT_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}


class Place(NamedTuple):
    """A value: the name of its place (a JSON Pointer or field name), its raw range, and its decoded value.

    `quoted` means that the value lies inside the quotes of a JSON string. `first` is the start of the whole member
    or field.
    """

    name: str
    begin: int
    end: int
    value: str
    quoted: bool = False
    first: int = -1


def json_text(raw: str) -> str:
    """Decode the inside of a JSON string; `raw` is UTF-8 decoded as Latin-1."""
    text = _utf8(raw)
    if "\\" not in text:
        return text

    def one(match: re.Match[str]) -> str:
        return chr(int(match[1], 16)) if match[1] else _SHORT_ESCAPES.get(match[2], match[2])

    # JSON escapes a character beyond U+FFFF as two surrogates. Encoding them as UTF-16 joins them to one character.
    return _ESCAPE.sub(one, text).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def _utf8(latin: str) -> str:
    try:
        return latin.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return latin


def percent_text(raw: str, *, plus: bool = False) -> str:
    """Percent-decode a value; `plus` decodes `+` to a space, as in queries and forms."""
    if plus:
        raw = raw.replace("+", " ")
    return _utf8(unquote_to_bytes(raw).decode("latin-1")) if "%" in raw else _utf8(raw)


class _Level:
    """The state of one open object or array while a JSON text is scanned."""

    __slots__ = ("first", "index", "is_object", "name", "wants_value")

    def __init__(self, is_object: bool) -> None:
        self.is_object, self.index, self.name, self.first = is_object, 0, "", -1
        self.wants_value = not is_object


def json_leaves(text: str) -> Iterator[Place]:
    """Yield the strings, numbers and literals of a JSON text, named by JSON Pointer.

    Stops at the first text that is not a JSON token, and at an object or array nested deeper than JSON_DEPTH_MAX.
    """
    levels: list[_Level] = []
    at = 0
    while (token := _JSON_TOKEN.match(text, at)) is not None:
        at = token.end()
        mark = token["mark"]
        level = levels[-1] if levels else None
        if mark is None:
            kind = "string" if token["string"] is not None else "bare"
            begin, end = token.span(kind)
            if level is not None and not level.wants_value:
                level.name, level.first, level.wants_value = json_text(text[begin + 1 : end - 1]), begin, True
            else:
                yield _leaf(levels, text, begin, end, kind == "string")
        elif mark in "{[":
            if len(levels) >= JSON_DEPTH_MAX:
                return
            levels.append(_Level(mark == "{"))
        elif level is None:
            return
        elif mark in "}]":
            levels.pop()
        elif mark == ",":
            level.index += 1
            level.wants_value = not level.is_object
        if not levels:
            return


def _leaf(levels: list[_Level], text: str, begin: int, end: int, quoted: bool) -> Place:
    steps = [level.name if level.is_object else str(level.index) for level in levels]
    pointer = "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in steps)
    first = levels[-1].first if levels and levels[-1].is_object else begin
    if quoted:
        return Place(pointer, begin + 1, end - 1, json_text(text[begin + 1 : end - 1]), True, first)
    return Place(pointer, begin, end, text[begin:end], False, first)


def pointer_matches(pattern: str, pointer: str) -> bool:
    """Return whether a JSON Pointer matches a rule's pattern, in which `*` stands for any one step."""
    if "*" not in pattern:
        return pattern == pointer
    wanted, given = pattern.split("/"), pointer.split("/")
    return len(wanted) == len(given) and all(a in ("*", b) for a, b in zip(wanted, given, strict=True))


def form_fields(text: str, begin: int = 0) -> Iterator[Place]:
    """Yield the fields of a form, or of a query that starts at `begin`."""
    for match in _FIELD.finditer(text[begin:] if begin else text):
        yield Place(
            percent_text(match[1], plus=True), begin + match.start(2), begin + match.end(2),
            percent_text(match[2], plus=True), first=begin + match.start(1),
        )  # fmt: skip


def query_fields(target: str) -> Iterator[Place]:
    """Yield the parameters in the query of a request target."""
    at = target.find("?")
    if at >= 0:
        yield from form_fields(target, at + 1)


def cookies(value: str) -> Iterator[Place]:
    """Yield the `name=value` pairs of a `Cookie` or `Set-Cookie` header; those of the latter include attributes."""
    for match in _COOKIE.finditer(value):
        yield Place(match[1].strip(), match.start(2), match.end(2), match[2].strip(), first=match.start(1))


def path_segments(target: str) -> Iterator[Place]:
    """Yield the segments of a path that are not empty, numbered from 0."""
    for number, match in enumerate(_SEGMENT.finditer(target.partition("?")[0])):
        yield Place(str(number), match.start(1), match.end(1), percent_text(match[1]), first=match.start())


def is_json(body: str) -> bool:
    """Return whether a body looks like a JSON object or array."""
    return body.lstrip(" \t\r\n")[:1] in ("{", "[")


_FORM = re.compile(r"[!-;=?-z|~]+")


def is_form(body: str) -> bool:
    """Return whether a body looks like the fields of a form."""
    return "=" in body and _FORM.fullmatch(body) is not None
