"""Extracts the values that a recorded request sends, and those that a recorded response issues."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

from replay.trace.places import (
    cookies,
    form_fields,
    is_form,
    is_json,
    json_leaves,
    path_segments,
    query_fields,
)
from replay.trace.requests import Headers
from replay.trace.responses import RecordedResponse

LEAVES_MAX = 256
"""How many JSON values of one body are examined."""

VALUE_CHARS_MAX = 2_048
"""Longer values are ignored. This limit is the default of a capture's `longest`."""

BITS_MIN = 32.0
"""Matching values with at least this much information in all, in bits, match by chance once in 4 billion."""

_PLAIN_HEADERS = re.compile(
    r"host|user-agent|accept.*|content-.*|connection|keep-alive|cache-control|pragma|origin|referer|te|date|expect|via"
    r"|upgrade.*|sec-.*|if-.*|range|dnt|priority|transfer-encoding|x-forwarded-.*|x-real-ip|forwarded|traceparent|tracestate"
)
"""Headers of requests and responses that never contain session values."""

_RESPONSE_HEADERS = re.compile(
    r"server|etag|last-modified|vary|age|expires|allow|alt-svc|strict-transport-security|access-control-.*|x-powered-by"
    r"|x-request-id|x-content-type-options|x-frame-options|set-cookie|retry-after|link|nel|report-to"
)
_SCHEME = re.compile(r"[A-Za-z][\w-]{1,20} +(?=\S)")
_COMMON = re.compile(
    r"true|false|null|none|undefined|ok|yes|no|on|off|\d{4}-\d\d-\d\d.*|\d\d?:\d\d.*|\d{1,2}/\d{1,2}/\d{2,4}"
    r"|-?\d+\.\d+|v?\d+(?:\.\d+){2,3}(?:[-+.][a-z]+\.?\d*)?|\s*",
    re.IGNORECASE | re.DOTALL,
)
"""Empty values, booleans, dates, times, amounts and versions. That two are equal is no evidence of a link."""

_INPUT = re.compile(r"<(input|meta)\b([^<>]{1,1000})>", re.IGNORECASE)
_ATTRIBUTE = re.compile(r"([\w:-]+)\s*=\s*\"([^\"<>]*)\"")
_PATH = re.compile(r"/(?!/)[!-~]*")


class Sent(NamedTuple):
    """A value in a request: the kind and name of its place, and the scheme before it, such as `Bearer `."""

    kind: str
    name: str
    value: str
    scheme: str = ""


class Given(NamedTuple):
    """A value in a response: the kind of finder with which a [[capture]] finds it, and the finder's argument.

    The finder is `json`, `header`, `cookie`, `regex` or `location`.
    """

    finder: str
    name: str
    value: str


def is_common(value: str) -> bool:
    """Return whether a value occurs in many places by chance, or is too long."""
    return len(value) > VALUE_CHARS_MAX or _COMMON.fullmatch(value) is not None


def bits_of(value: str) -> float:
    """Estimate the information in a value, in bits, from its letters and digits.

    Words without digits in a single case or capitalized count little.
    """
    digits = sum(char.isdigit() for char in value)
    letters = sum(char.isalpha() for char in value)
    if not digits and (value.islower() or value.isupper() or value.istitle()):
        return min(letters * 1.5, 20.0)
    return digits * math.log2(10) + letters * math.log2(26)


def sent_by(target: str, headers: Headers, body: bytes) -> Iterator[Sent]:
    """Yield the values that a request sends in its target, headers and body.

    Headers that never contain session values are left out, and so are JSON values beyond the first LEAVES_MAX.
    """
    yield Sent("target", "", target.partition("?")[0])
    for place in path_segments(target):
        yield Sent("path", place.name, place.value)
    for place in query_fields(target):
        yield Sent("query", place.name, place.value)
    for name, value in headers:
        lowered, text = name.decode("latin-1").lower(), (value or b"").decode("latin-1")
        if lowered == "cookie":
            yield from (Sent("cookie", place.name, place.value) for place in cookies(text))
        elif not _PLAIN_HEADERS.fullmatch(lowered):
            scheme = _SCHEME.match(text)
            first = scheme.end() if scheme else 0
            yield Sent("header", name.decode("latin-1"), text[first:], text[:first])
    yield from _of_body(body)


def _of_body(body: bytes) -> Iterator[Sent]:
    text = body.decode("latin-1")
    if is_json(text):
        for number, place in enumerate(json_leaves(text)):
            if number == LEAVES_MAX:
                return
            yield Sent("json", place.name, place.value)
    elif is_form(text):
        yield from (Sent("form", place.name, place.value) for place in form_fields(text))


def given_by(response: RecordedResponse) -> Iterator[Given]:
    """Yield the values that a response issues in its headers and in its body, which may be JSON or a page.

    Headers that never contain session values are left out, and so are JSON values beyond the first LEAVES_MAX.
    """
    for name, value in response.headers:
        lowered, text = name.decode("latin-1").lower(), (value or b"").decode("latin-1")
        if lowered == "set-cookie":
            yield from (Given("cookie", place.name, place.value) for place in list(cookies(text))[:1])
        elif lowered == "location":
            if _PATH.fullmatch(text):
                yield Given("location", "Location", text.partition("#")[0].partition("?")[0])
        elif not (_PLAIN_HEADERS.fullmatch(lowered) or _RESPONSE_HEADERS.fullmatch(lowered)):
            yield Given("header", name.decode("latin-1"), text)
    text = (response.body or b"").decode("latin-1")
    if is_json(text):
        for number, place in enumerate(json_leaves(text)):
            if number == LEAVES_MAX:
                return
            yield Given("json", place.name, place.value)
    elif "<" in text[:200]:
        yield from _of_markup(text)


def _of_markup(text: str) -> Iterator[Given]:
    """Yield the values of the input and meta tags of a page, each with the pattern that finds it."""
    for tag in _INPUT.finditer(text):
        found = {match[1].lower(): match[2] for match in _ATTRIBUTE.finditer(tag[2])}
        value_key = "value" if tag[1].lower() == "input" else "content"
        name, value = found.get("name", ""), found.get(value_key, "")
        if not name or not value or len(found) < 2:
            continue
        escaped = re.sub(r"([\\.\[\]()*+?{}|^$])", r"\\\1", name)
        keys = [match[1].lower() for match in _ATTRIBUTE.finditer(tag[2])]
        if keys.index("name") < keys.index(value_key):
            pattern = f'name="{escaped}"[^>]*{value_key}="([^"]+)"'
        else:
            pattern = f'{value_key}="([^"]+)"[^>]*name="{escaped}"'
        yield Given("regex", pattern, value)
