"""The values of a field in two responses: how they differ, and how they are shown, shortened and without secrets."""

from __future__ import annotations

import datetime as dt
import email.utils
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from replay.trace.importing.secret_names import is_secret, is_secret_header
from replay.trace.importing.secrets import REDACTED
from replay.trace.importing.showing import scrub

from .fields import FORM_JSON, LINES, ROOT, decimals_of, key_of, lines_of

Kind = Literal["absent", "added", "type", "value", "order", "precision", "time-like", "id-like"]

SHOWN_CHARS = 120
_BEFORE = 30
"""Maximum number of characters of a long value that are shown, and how many of them are before the first difference."""

_ISO = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d.*)?")
_CLOCK = re.compile(r"\d\d:\d\d(:\d\d(\.\d+)?)?")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}")
_HEX = re.compile(r"(?=.*\d)[0-9a-fA-F]{8,}")
_OPAQUE = re.compile(r"(?=.*\d)(?=.*[A-Za-z])[\w.~+/=-]{10,}")
_PREFIXED = re.compile(r"[A-Za-z]{1,12}[-_:#]?[0-9a-fA-F-]*\d[0-9a-fA-F-]*")
_ID_NAME = re.compile(r"(?i)(^|[a-z_./-])(ids?|uuid|guid|nonce|token|etag|hash|digest|number|no|seq|key)$")
_EPOCH_S = (1e9, 4e9)
_DATE = re.compile(r"[A-Z][a-z]{2}, \d\d? [A-Z][a-z]{2} \d{4} ")


class Shown(str):
    """A text that is shown instead of a value."""

    __slots__ = ()


MISSING = Shown("(absent)")
"""The value of a field that a response lacks."""


class Element(NamedTuple):
    """One occurrence of a field in a body: its identity among the others, its pointer, and its value."""

    identity: tuple[str, ...]
    pointer: str
    value: Any


class Pair(NamedTuple):
    """A field in two responses to one request, at the first place where they differ.

    `kind` is the kind of difference.
    """

    pointer: str
    base: Any
    new: Any
    kind: Kind


def tokens_of(field: str) -> list[str]:
    """Return the reference tokens of a field of a JSON body."""
    return [token.replace("~1", "/").replace("~0", "~") for token in field.split("/")[1:]]


def elements_of(body: bytes, form: int, field: str) -> list[Element]:
    """Return every occurrence of a field in a body; an empty list if the body lacks it."""
    if form == FORM_JSON:
        try:
            document = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            form = 0
        else:
            return _in_document(document, [] if field == ROOT else tokens_of(field))
    if field == ROOT:
        return [Element((), "", body.decode("utf-8", "replace"))]
    lines = lines_of(body, form)
    if field == LINES:
        return [Element((), "", len(lines))]
    number = int(field.rpartition(" ")[2]) if field.startswith("line ") else 0
    return [Element((), field, lines[number - 1])] if 0 < number <= len(lines) else []


def _in_document(document: Any, tokens: Sequence[str]) -> list[Element]:
    found = [Element((), "", document)]
    for token in tokens:
        found = [inner for element in found for inner in _below(element, token)]
    return found


def _below(element: Element, token: str) -> list[Element]:
    identity, pointer, node = element
    if type(node) is dict:
        if token not in node:
            return []
        escaped = token.replace("~", "~0").replace("/", "~1")
        return [Element(identity, f"{pointer}/{escaped}", node[token])]
    if type(node) is not list or token != "*" or not node:
        return []
    key = key_of(node)
    return [
        Element((*identity, str(index if key is None else inner[key])), f"{pointer}/{index}", inner)
        for index, inner in enumerate(node)
    ]


def first_difference(base: Sequence[Element], new: Sequence[Element], field: str) -> Pair | None:
    """Return the first place where two responses differ in a field; None if they do not differ."""
    ours, theirs = ({element.identity: element for element in side} for side in (base, new))
    counts = [Counter(_canonical(element.value) for element in side) for side in (base, new)]
    differing = [
        identity
        for identity in (*ours, *(other for other in theirs if other not in ours))
        if _canonical(_value(ours, identity)) != _canonical(_value(theirs, identity))
    ]
    if not differing:
        if [element.identity for element in base] == [element.identity for element in new]:
            return None
        return Pair(field, [e.identity[-1] for e in base], [e.identity[-1] for e in new], "order")
    if counts[0] == counts[1]:
        place = differing[0]
        return Pair(_pointer(ours, theirs, place), _value(ours, place), _value(theirs, place), "order")
    gone, come = counts[0] - counts[1], counts[1] - counts[0]
    place = next(
        (
            identity
            for identity in differing
            if _canonical(_value(ours, identity)) in gone or _canonical(_value(theirs, identity)) in come
        ),
        differing[0],
    )
    one, two = _value(ours, place), _value(theirs, place)
    kind = kind_of(one, two, field)
    if (
        type(one) is list
        and type(two) is list
        and len(one) != len(two)
        and any(type(e) is dict for e in one or two)
    ):
        one, two = (Shown(f"{len(side)} elements") for side in (one, two))
    return Pair(_pointer(ours, theirs, place), one, two, kind)


def _value(side: dict[tuple[str, ...], Element], identity: tuple[str, ...]) -> Any:
    return side[identity].value if identity in side else MISSING


def _pointer(
    ours: dict[tuple[str, ...], Element], theirs: dict[tuple[str, ...], Element], place: tuple[str, ...]
) -> str:
    return (ours.get(place) or theirs[place]).pointer


def _canonical(value: Any) -> str:
    """Return a text by which values are compared: equal values have the same text.

    All objects that are not in an array have the same text, because their fields are judged separately.
    """
    if value is MISSING:
        return ""
    if type(value) is dict:
        return "{}"
    if type(value) is list:
        return msgspec.json.encode(value, order="sorted").decode()
    return f"{type(value).__name__} {value!r}"


def kind_of(base: Any, new: Any, field: str = "") -> Kind:
    """Return how two values of a field differ."""
    if base is MISSING or new is MISSING:
        return "added" if base is MISSING else "absent"
    if type(base) is list and type(new) is list:
        return _kind_of_arrays(base, new)
    numbers = [type(value) in (int, float) for value in (base, new)]
    if all(numbers):
        return _kind_of_numbers(base, new, field)
    if type(base) is not type(new):
        return "type"
    return _kind_of_texts(base, new, field) if type(base) is str else "value"


def _kind_of_arrays(base: list[Any], new: list[Any]) -> Kind:
    counts = [Counter(map(_canonical, side)) for side in (base, new)]
    if counts[0] == counts[1]:
        return "order"
    if not counts[1] - counts[0]:
        return "absent"
    return "added" if not counts[0] - counts[1] else "value"


def _kind_of_numbers(base: float, new: float, field: str) -> Kind:
    digits = min(decimals_of(base), decimals_of(new))
    if decimals_of(base) != decimals_of(new) and abs(base - new) <= 10.0**-digits:
        return "precision"
    if base and abs(base - new) / abs(base) < 1e-9:
        return "precision"
    for low, high in (_EPOCH_S, tuple(1e3 * end for end in _EPOCH_S), tuple(1e9 * end for end in _EPOCH_S)):
        if low <= base <= high and low <= new <= high:
            return "time-like"
    is_whole = type(base) is int and type(new) is int
    return "id-like" if is_whole and _ID_NAME.search(field.removesuffix("/*")) else "value"


def _is_time(text: str) -> bool:
    if _CLOCK.fullmatch(text):
        return True
    if _ISO.fullmatch(text):
        try:
            dt.datetime.fromisoformat(text)
        except ValueError:
            return False
        return True
    return bool(_DATE.match(text)) and email.utils.parsedate_tz(text) is not None


def _is_id(text: str, field: str) -> bool:
    if _UUID.fullmatch(text) or _HEX.fullmatch(text) or _OPAQUE.fullmatch(text):
        return True
    named = _ID_NAME.search(field.removesuffix("/*")) is not None
    return named and (_PREFIXED.fullmatch(text) is not None or text.isdigit())


def _kind_of_texts(base: str, new: str, field: str) -> Kind:
    if _is_time(base) and _is_time(new):
        return "time-like"
    try:
        numbers = float(base), float(new)
    except ValueError:
        return "id-like" if _is_id(base, field) and _is_id(new, field) else "value"
    places = [len(text.partition(".")[2]) for text in (base, new)]
    if places[0] != places[1] and abs(numbers[0] - numbers[1]) <= 10.0 ** -min(places):
        return "precision"
    return "id-like" if _is_id(base, field) and _is_id(new, field) else "value"


def shown_pair(base: Any, new: Any, field: str) -> tuple[str, str]:
    """Return both values as texts that are safe to show: without secrets, and shortened around the first difference."""
    quoted = type(base) is not type(new) and not {type(base), type(new)} & {Shown}
    one, two = (_text_of(value, field, quoted=quoted) for value in (base, new))
    if max(len(one), len(two)) <= SHOWN_CHARS:
        return one, two
    same = next(
        (at for at, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two))
    )
    begin = max(0, min(same - _BEFORE, max(len(one), len(two)) - SHOWN_CHARS))
    return _cut(one, begin), _cut(two, begin)


def _cut(text: str, begin: int) -> str:
    end = begin + SHOWN_CHARS
    head = "…" if begin and len(text) > begin else ""
    return head + text[begin:end] + ("…" if len(text) > end else "")


def _text_of(value: Any, field: str, *, quoted: bool) -> str:
    """Return a value as text. Strings that are `quoted` have quotes, which distinguish them from numbers."""
    if isinstance(value, Shown):
        return str(value)
    if is_secret_field(field):
        return REDACTED
    text = (
        value if type(value) is str and not quoted else msgspec.json.encode(_without_secrets(value)).decode()
    )
    return scrub(text[: 64 * SHOWN_CHARS], as_it_begins=True)


def _without_secrets(value: Any) -> Any:
    """Return objects and arrays without the values of secret names."""
    if type(value) is dict:
        return {
            key: REDACTED if is_secret(str(key)) else _without_secrets(inner) for key, inner in value.items()
        }
    return [_without_secrets(inner) for inner in value] if type(value) is list else value


def is_secret_field(field: str) -> bool:
    """Return whether a name on the field's path marks a secret."""
    if field.startswith("header "):
        return is_secret_header(field.removeprefix("header "))
    return any(is_secret(token) for token in tokens_of(field) if token != "*")
