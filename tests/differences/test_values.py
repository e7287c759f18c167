"""Kinds of differences, and how two values are shown."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.differences.values import Element, elements_of, first_difference, kind_of, shown_pair


@pytest.mark.parametrize(
    ("one", "two", "field", "kind"),
    [
        (12.345, 12.35, "/price", "precision"), (12.345, 12, "/price", "precision"), (12.34, 12.35, "/price", "value"),
        ("12.50", "12.5", "/price", "precision"), (0.1 + 0.2, 0.3, "/x", "precision"), (1, "1", "/x", "type"),
        ("2026-01-05T10:00:00Z", "2026-01-06T10:00:00Z", "/at", "time-like"), (1790000000, 1790000100, "/at", "time-like"),
        ("Mon, 05 Jan 2026 10:00:00 GMT", "Tue, 06 Jan 2026 10:00:00 GMT", "header date", "time-like"),
        ("3f2b0c9e-0000-4000-8000-000000000001", "3f2b0c9e-0000-4000-8000-0000000000ff", "/x", "id-like"),
        ("o-12", "o-13", "/order_id", "id-like"), (41, 42, "/id", "id-like"), (41, 42, "/stock", "value"),
        ("EUR", "USD", "/currency", "value"), (None, "x", "/x", "type"), (True, False, "/x", "value"),
        ([1, 2], [2, 1], "/x", "order"), ([1, 2], [1], "/x", "absent"), ([1], [1, 2], "/x", "added"),
        ([1], [2], "/x", "value"),
    ],
)  # fmt: skip
def test_kinds(one, two, field, kind):
    assert kind_of(one, two, field) == kind


VALUES = st.recursive(
    st.one_of(
        st.none(), st.integers(), st.text(max_size=4), st.floats(allow_nan=False, allow_infinity=False)
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
)


@settings(max_examples=200)
@given(one=VALUES, two=VALUES, field=st.sampled_from(["/a", "/a/*", "/a/*/b", "document"]))
def test_any_two_documents_can_be_shown(one, two, field):
    before, after = (elements_of(msgspec.json.encode({"a": value}), 1, field) for value in (one, two))
    pair = first_difference(before, after, field)
    if pair is not None:
        texts = shown_pair(pair.base, pair.new, field)
        assert all(isinstance(text, str) and len(text) < 200 for text in texts)


def test_a_long_text_is_shortened_around_the_difference():
    one, two = shown_pair("x" * 5_000 + "base", "x" * 5_000 + "new!", "/a")
    assert "base" in one and "new!" in two and len(one) < 200


def test_the_first_difference_is_the_element_that_changed():
    base = [Element((str(n),), f"/a/{n}", n) for n in range(5)]
    new = [element._replace(value=9 if element.value == 3 else element.value) for element in base]
    found = first_difference(base, new, "/a/*")
    assert found is not None and found[:3] == ("/a/3", 3, 9)
