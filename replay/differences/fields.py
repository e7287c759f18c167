"""The fields of response bodies, as columns: the content of each field in each request, as hashes of 32 bits.

A field is a JSON pointer, or a line of a text. Elements of an array share one field (`/items/*/price`): they are
ordered by a key such as `id` if they have one, otherwise by their index. Three aspects of each field are kept, so
that noise in one does not hide differences in another: its shape (type, length, decimals), its value, and the order
of its values in an array. Equal hashes count as equal values; by chance, one difference in 4 billion is missed.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from typing import Any

import msgspec

BODY = "body"
"""The field of bodies that are compared by their digests."""

ROOT = "document"
LINES = "lines"
OTHER = "(other fields)"
"""The field that combines all fields of a route beyond FIELDS_MAX, and all lines beyond LINES_MAX."""

FIELDS_MAX = 1_000
LINES_MAX = 256
"""Maximum number of fields of a route, and of lines of a text, that are judged separately."""

ABSENT = 0
MASK = 0xFFFFFFFF

_NULL, _BOOLEAN, _NUMBER, _TEXT, _OBJECT, _ARRAY = range(1, 7)
SOME_ABSENT, OBJECT = 1, 1 << _OBJECT
"""Two bits of `types`. SOME_ABSENT: some elements of an array lack the field. OBJECT: the field is an object. Every other
type has a bit of its own, too. The bits of the types of an array's scalars are _ELEMENTS bits higher.
"""

_ELEMENTS = 8
_LENGTH_MAX = 0xFFFF
_KEYS = ("id", "key", "uuid", "guid", "_id", "sku", "code", "slug", "name")
_TAG_BREAK = re.compile(r">\s*(?=<)")

FORM_JSON, FORM_TEXT, FORM_HTML = 1, 2, 3


class Sightings:
    """One field in one run: the rows that have it, and its types, shape, value and order in each row."""

    __slots__ = ("orders", "rows", "shapes", "types", "values")

    def __init__(self) -> None:
        self.rows, self.shapes, self.values, self.orders = (array("I") for _ in range(4))
        self.types = array("H")

    def add(self, row: int, types: int, shape: int, value: int, order: int = ABSENT) -> None:
        """Record the field in one more row, with shape, value and order reduced to 32 bits."""
        self.rows.append(row)
        self.types.append(types)
        self.shapes.append(shape & MASK or 1)
        self.values.append(value & MASK or 1)
        self.orders.append(order & MASK)


class Names:
    """The distinct fields of a route over all runs."""

    def __init__(self) -> None:
        self.names = [ROOT]
        self.parents = [-1]
        self._children: dict[tuple[int, str], int] = {}
        self._other = -1
        self.folded = 0

    def child(self, parent: int, token: str) -> int:
        """Return the index of the field `token` below another field. Beyond FIELDS_MAX it is that of OTHER."""
        found = self._children.get((parent, token))
        if found is not None:
            return found
        if parent == self._other:
            return parent
        if len(self.names) >= FIELDS_MAX:
            self.folded += 1
            return self._overflow()
        above = "" if parent == 0 else self.names[parent]
        name = f"{above}/{token.replace('~', '~0').replace('/', '~1')}"
        return self._new((parent, token), name, parent)

    def line(self, number: int) -> int:
        """Return the index of the field of a line; number 0 is the number of lines.

        Beyond LINES_MAX it is that of OTHER.
        """
        key = (-1, str(number))
        if (found := self._children.get(key)) is not None:
            return found
        if number > LINES_MAX:
            return self._overflow()
        return self._new(key, f"line {number}" if number else LINES, -1)

    def _new(self, key: tuple[int, str], name: str, parent: int) -> int:
        self._children[key] = len(self.names)
        self.names.append(name)
        self.parents.append(parent)
        return len(self.names) - 1

    def _overflow(self) -> int:
        if self._other < 0:
            self._other = len(self.names)
            self.names.append(OTHER)
            self.parents.append(-1)
        return self._other

    @property
    def other(self) -> int:
        """The index of OTHER; -1 if no field was folded into it."""
        return self._other


class Flattener:
    """Parses the bodies of one route in one run into the sightings of each field."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self.sightings: dict[int, Sightings] = {}
        self._decode = msgspec.json.Decoder().decode

    def add(self, row: int, body: bytes, form: int) -> None:
        """Parse the body of one response, and add its fields. Invalid JSON is treated as lines of text."""
        if form == FORM_JSON:
            try:
                document = self._decode(body)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                self._see(0, row, 1 << _TEXT, hash("invalid JSON"), 0)
                self._add_lines(row, body.decode("utf-8", "replace").split("\n"))
                return
            self._add_json(row, document)
            return
        self._see(0, row, 1 << _TEXT, form, 0)
        self._add_lines(row, lines_of(body, form))

    def _see(self, field: int, row: int, types: int, shape: int, value: int, order: int = ABSENT) -> None:
        found = self.sightings.get(field)
        if found is None:
            found = self.sightings[field] = Sightings()
        found.add(row, types, shape, value, order)

    def _add_lines(self, row: int, lines: Sequence[str]) -> None:
        line = self._names.line
        self._see(line(0), row, 1 << _NUMBER, len(lines), len(lines))
        for number, text in enumerate(lines[:LINES_MAX], 1):
            self._see(line(number), row, 1 << _TEXT, _shape_of_text(text), hash(text))
        if len(lines) > LINES_MAX:
            rest = tuple(lines[LINES_MAX:])
            self._see(line(LINES_MAX + 1), row, 1 << _TEXT, len(rest), hash(rest))

    def _add_json(self, row: int, document: Any) -> None:
        """Add a JSON document, without recursion, because it may be nested arbitrarily deep."""
        child, see = self._names.child, self._see
        many: dict[int, list[tuple[int, int, int]]] = {}
        pending: list[tuple[int, Any, bool]] = [(0, document, False)]
        while pending:
            field, node, is_element = pending.pop()
            order = ABSENT
            kind = type(node)
            if kind is dict:
                types, shape = OBJECT, _OBJECT
                value = shape
                pending += [(child(field, key), inner, is_element) for key, inner in node.items()]
            elif kind is list:
                types, shape, value, order, inner = _array(node)
                if inner:
                    below = child(field, "*")
                    pending += [(below, element, True) for element in reversed(inner)]
            else:
                shape, value = _scalar(node)
                types = 1 << (shape & 0xFF)
            if is_element or field == self._names.other:
                many.setdefault(field, []).append((types, shape, hash((value, order)) if order else value))
            else:
                see(field, row, types, shape, value, order)
        for field, seen in many.items():
            self._see_many(row, field, seen, many.get(self._names.parents[field], seen))

    def _see_many(
        self, row: int, field: int, seen: list[tuple[int, int, int]], parents: list[tuple[int, int, int]]
    ) -> None:
        """Add a field of several array elements, of which some may lack it."""
        all_types, shapes, values = zip(*seen, strict=True)
        types = 0
        for one in all_types:
            types |= one
        if len(seen) < sum(1 for one, _, _ in parents if one == OBJECT):
            types |= SOME_ABSENT
        self._see(field, row, types, hash(tuple(sorted(shapes))), sum(values), hash(values))


def lines_of(body: bytes, form: int) -> list[str]:
    """Return the lines of a text.

    In HTML, adjacent tags also begin new lines, because minified pages have no line breaks.
    """
    text = body.decode("utf-8", "replace")
    if form == FORM_HTML:
        text = _TAG_BREAK.sub(">\n", text)
    return text.split("\n")


def _shape_of_text(text: str) -> int:
    """Return a number for the length and the kinds of characters of a text; it is the same for ids of one kind."""
    kinds = text.isascii() | text.isdigit() << 1 | text.isalpha() << 2 | text.isupper() << 3
    return _TEXT | min(len(text), _LENGTH_MAX) << 8 | kinds << 24


def decimals_of(number: float) -> int:
    """Return the number of decimals of a number, as JSON would show it."""
    return 0 if type(number) is int else len(repr(number).partition(".")[2])


def _scalar(node: Any) -> tuple[int, int]:
    """Return the shape and the value of a scalar."""
    kind = type(node)
    if kind is str:
        return _shape_of_text(node), hash(node)
    if kind is int:
        return _NUMBER, hash(repr(node))
    if kind is float:
        whole = node.is_integer() and abs(node) < 2**53
        return _NUMBER | decimals_of(node) << 8, hash(repr(int(node) if whole else node))
    if node is None:
        return _NULL, _NULL
    return _BOOLEAN, 2 + node


def _array(node: list[Any]) -> tuple[int, int, int, int, list[Any]]:
    """Return types, shape, value and order of an array, and the elements that have fields of their own.

    The elements of an array of scalars have no fields of their own.
    """
    types = 1 << _ARRAY
    length = _ARRAY | len(node) << 8
    if not any(type(element) in (dict, list) for element in node):
        scalars = [_scalar(element) for element in node]
        values = tuple(hash(scalar) for scalar in scalars)
        shapes = hash((length, *sorted(shape & 0xFF for shape, _ in scalars)))
        for shape, _ in scalars:
            types |= 1 << (shape & 0xFF) + _ELEMENTS
        return types, shapes, sum(values) + length, hash(values), []
    key = key_of(node)
    if key is None:
        return types, length, length, ABSENT, node
    names = [str(element[key]) for element in node]
    ordered = [element for _, element in sorted(zip(names, node, strict=True), key=lambda pair: pair[0])]
    return types, length, hash(tuple(sorted(names))), hash(tuple(names)), ordered


def key_of(elements: Sequence[Any]) -> str | None:
    """Return the name of the key that identifies the objects of an array; None if there is none."""
    first = elements[0]
    if type(first) is not dict:
        return None
    for key in _KEYS:
        if key in first:
            names = {
                str(element[key])
                for element in elements
                if type(element) is dict and type(element.get(key)) in (str, int)
            }
            if len(names) == len(elements):
                return key
    return None
