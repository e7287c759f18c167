"""Fields of bodies: equal documents have equal fields, whatever their white space, key order and set order."""

from __future__ import annotations

import json
import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.differences import fields
from replay.differences.fields import FIELDS_MAX, FORM_HTML, FORM_JSON, FORM_TEXT, OTHER, Flattener, Names


def columns(names, *bodies, form=FORM_JSON):
    """By field, (shape, value, order) of each body."""
    flattener = Flattener(names)
    for row, body in enumerate(bodies):
        flattener.add(row, body if isinstance(body, bytes) else json.dumps(body).encode(), form)
    return {
        names.names[index]: dict(
            zip(one.rows, zip(one.shapes, one.values, one.orders, strict=True), strict=True)
        )
        for index, one in flattener.sightings.items()
    }


def changed(one, two, form=FORM_JSON):
    """The fields in which two bodies differ, with the aspects."""
    found = columns(Names(), one, two, form=form)
    aspects = ("shape", "value", "order")
    return {
        name: {
            aspect
            for aspect, a, b in zip(aspects, seen.get(0, (0, 0, 0)), seen.get(1, (0, 0, 0)), strict=True)
            if a != b
        }
        for name, seen in found.items()
        if seen.get(0) != seen.get(1)
    }


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
)
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=4), inner, max_size=4)
    ),
)


def shuffled(node, rng):
    if isinstance(node, dict):
        items = [(key, shuffled(value, rng)) for key, value in node.items()]
        rng.shuffle(items)
        return dict(items)
    return [shuffled(value, rng) for value in node] if isinstance(node, list) else node


@given(document=DOCUMENTS, seed=st.integers(0, 99))
def test_key_order_and_white_space_do_not_count(document, seed):
    other = json.dumps(shuffled(document, random.Random(seed)), indent=1).encode()
    assert changed(json.dumps(document).encode(), other) == {}


def leaves(node, path="", inside=False):
    """The naive twin: every scalar by its field, elements of arrays pooled."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from leaves(value, f"{path}/{key.replace('~', '~0').replace('/', '~1')}")
    elif isinstance(node, list) and any(isinstance(value, (dict, list)) for value in node):
        for value in node:
            yield from leaves(value, f"{path}/*")
    elif isinstance(node, list):
        yield path or "document", ("list", len(node))
    else:
        yield path or "document", ("leaf", node)


@given(document=DOCUMENTS)
def test_every_leaf_has_its_field(document):
    found = columns(Names(), document)
    assert {path for path, _ in leaves(document)} <= found.keys()


@given(one=SCALARS, two=SCALARS)
def test_scalars_differ_where_json_differs(one, two):
    same = type(one) is type(two) and msgspec.json.encode(one) == msgspec.json.encode(two)
    found = changed({"a": one}, {"a": two})
    if same:
        assert found == {}
    elif not (isinstance(one, (int, float)) and isinstance(two, (int, float)) and one == two):
        assert "/a" in found


@pytest.mark.parametrize(
    ("one", "two", "field", "aspects"),
    [
        ({"a": 1}, {"a": None}, "/a", {"shape", "value"}),
        ({"a": 1}, {}, "/a", {"shape", "value"}),
        ({"a": -1}, {"a": -2}, "/a", {"value"}),
        ({"a": 1}, {"a": True}, "/a", {"shape", "value"}),
        ({"a": 1.25}, {"a": 1.2}, "/a", {"shape", "value"}),
        ({"a": 5}, {"a": 5.0}, "/a", {"shape"}),
        ({"a": "aa"}, {"a": "ab"}, "/a", {"value"}),
        ({"a": [1, 2]}, {"a": [2, 1]}, "/a", {"order"}),
        ({"a": [1, 2]}, {"a": [1]}, "/a", {"shape", "value", "order"}),
        ({"a": []}, {"a": {}}, "/a", {"shape", "value", "order"}),
        ([1], [2], "document", {"value", "order"}),
        (5, 6, "document", {"value"}),
    ],
)
def test_each_aspect(one, two, field, aspects):
    assert changed(one, two) == {field: aspects}


def test_elements_are_paired_by_their_key():
    one = {"items": [{"id": 1, "price": 5}, {"id": 2, "price": 6}]}
    shuffle = {"items": one["items"][::-1]}
    assert changed(one, shuffle) == {"/items": {"order"}}
    swapped = {"items": [{"id": 1, "price": 6}, {"id": 2, "price": 5}]}
    assert changed(one, swapped) == {"/items/*/price": {"order"}}


def test_elements_without_a_key_are_paired_by_index():
    one = {"items": [{"price": 5}, {"price": 6}]}
    assert changed(one, {"items": one["items"][::-1]}) == {"/items/*/price": {"order"}}
    assert changed(one, {"items": [{"price": 5}, {"price": 7}]}) == {"/items/*/price": {"value", "order"}}


def test_names_are_pointers():
    found = columns(Names(), {"a/b": {"~": 1}, "": 2})
    assert {"/a~1b", "/a~1b/~0", "/"} <= found.keys()


def test_fields_without_end_are_folded():
    names = Names()
    wide = {f"k{number}": number for number in range(FIELDS_MAX + 500)}
    found = columns(names, wide, wide | {f"k{FIELDS_MAX + 100}": -1})
    assert len(names.names) == FIELDS_MAX + 1 and names.folded > 0
    assert found[OTHER][0] != found[OTHER][1]
    assert changed(wide, wide) == {}


def test_depth_and_invalid_json_do_no_harm():
    deep = b"[" * 100_000 + b"]" * 100_000
    found = columns(Names(), deep, b'{"a": 1', b"\xff\xfe")
    assert set(found["document"]) == {0, 1, 2}
    assert changed(b'{"a": 1', b'{"a": 2') == {"line 1": {"value"}}
    assert changed({"a": 1}, b'{"a": 1').keys() == {"document", "/a", "lines", "line 1"}


def test_lines_of_text_and_html():
    assert changed(b"a\nb\nc", b"a\nB\nc", form=FORM_TEXT) == {"line 2": {"shape", "value"}}
    page = b"<ul><li>1</li><li>2</li></ul>"
    assert changed(page, page.replace(b"<li>2", b"<li>3"), form=FORM_HTML) == {"line 3": {"value"}}
    assert "lines" in changed(page, page.replace(b"<li>2</li>", b""), form=FORM_HTML)
    long = b"\n".join(b"%d" % number for number in range(fields.LINES_MAX + 50))
    assert changed(long, long + b"!", form=FORM_TEXT).keys() == {OTHER}
