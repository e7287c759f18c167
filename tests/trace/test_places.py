"""Places of values: every leaf of a JSON text, where it stands, and what it stands for."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from replay.trace.places import (
    cookies,
    form_fields,
    json_leaves,
    path_segments,
    pointer_matches,
    query_fields,
)

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


def leaves(value: Any, pointer: str = "") -> list[tuple[str, Any]]:
    """The twin: leaves by their pointers."""
    if isinstance(value, dict):
        steps = [(key.replace("~", "~0").replace("/", "~1"), item) for key, item in value.items()]
    elif isinstance(value, list):
        steps = [(str(number), item) for number, item in enumerate(value)]
    else:
        return [(pointer, value)]
    return [leaf for step, item in steps for leaf in leaves(item, f"{pointer}/{step}")]


@given(VALUES, st.booleans(), st.sampled_from([None, 1]))
def test_leaves_are_those_that_json_has(value: Any, ascii_only: bool, indent: int | None) -> None:
    text = (
        json.dumps(value, ensure_ascii=ascii_only, indent=indent)
        .encode("utf-8", "surrogatepass")
        .decode("latin-1")
    )
    found = list(json_leaves(text))
    wanted = leaves(value)
    assert [place.name for place in found] == [pointer for pointer, _ in wanted]
    for place, (_, leaf) in zip(found, wanted, strict=True):
        raw = text[place.begin : place.end]
        if place.quoted:
            assert json.loads(f'"{raw}"'.encode("latin-1").decode("utf-8", "surrogatepass")) == leaf
            if not any(0xD800 <= ord(char) < 0xE000 for char in leaf):
                assert place.value == leaf
        else:
            assert json.loads(raw) == leaf and place.value == raw


@given(st.text(max_size=60))
def test_any_text_has_places_within_it(text: str) -> None:
    for of in (json_leaves, form_fields, query_fields, cookies, path_segments):
        for place in of(text):
            assert 0 <= place.begin <= place.end <= len(text)


def test_fields_cookies_and_segments() -> None:
    assert [(one.name, one.value) for one in form_fields("a=1&b+c=x%40y+z&d")] == [
        ("a", "1"),
        ("b c", "x@y z"),
    ]
    assert [(one.name, one.value) for one in query_fields("/p?a=1&b=")] == [("a", "1"), ("b", "")]
    assert [(one.name, one.value) for one in cookies("sid=a=b; theme=dark")] == [
        ("sid", "a=b"),
        ("theme", "dark"),
    ]
    assert [(one.name, one.value) for one in path_segments("/a/%C3%A9?x=/b")] == [("0", "a"), ("1", "é")]
    assert pointer_matches("/items/*/id", "/items/3/id") and not pointer_matches("/items/*", "/items/3/id")
