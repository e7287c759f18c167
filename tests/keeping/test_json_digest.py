"""The digest of JSON against a naive one in plain Python, under any split of the text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay_native.keeping import json_digest as kernels
from replay_native.keeping.json_digest import DEPTH_MAX, STACK_WORDS
from replay_native.keeping.json_state import JSON
from tests import naive_digest

pytestmark = pytest.mark.boundscheck


def digest(data: bytes, cuts: Sequence[int] = ()) -> int | None:
    state, stack = np.zeros(1, JSON), np.zeros(STACK_WORDS, np.uint64)
    text = np.frombuffer(bytearray(data), np.uint8)
    ends = np.array([*sorted(cuts), len(data)], np.int64)
    return int(state[0]["sum"]) if kernels.digest_pieces(state, stack, text, ends) else None


TEXTS = [
    b"1", b"1.0", b"10e-1", b"0.1e1", b"-0", b"-0.0e5", b"0", b"1e5", b"100000", b"-1.50E+2", b"-150", b"0.001", b"1e-3",
    b"12345678901234567890123", b"[]", b"{}", b"[[],{}]", b'{"a":{}}', b'{"a":[]}', b'{"0":1}', b"[1]",
    b'"\\u0041bc"', b'"Abc"', b'"\\ud83d\\ude00"', '"\U0001f600"'.encode(), b'"\\ud83d"', b'"\\ud83dx\\n"', b'"\\ude00"',
    b'"\\ud83d\\ud83d\\ude00"', b'"\\/\\b\\f\\n\\r\\t\\"\\\\"', b'"abcdefghijklmnop"', b'"abcdefgh"', b'""',
    b"true", b"false", b"null", b" [ true , false , null ] ", b'{"a":1,"a":1}', b'{"a":1}', b"\t\r\n 1 \n",
]  # fmt: skip
BROKEN = [
    b"", b" ", b"01", b"-", b"1.", b".5", b"1e", b"1e+", b"+1", b"[1,]", b"[,1]", b"[1 2]", b'{"a":}', b'{"a"}', b'{"a":1,}',
    b"{a:1}", b"{1:2}", b"tru", b"truex", b"nul", b"True", b"NaN", b"1 2", b'"a', b'"\\x"', b'"\\u00g0"', b'"\n"', b"[1}",
    b'{"a":1]', b"]", b"}", b"[", b"{", b'{"a":1}}', b"<html>", b"\xef\xbb\xbf1", b"[1]x", b'"a""b"',
]  # fmt: skip


@pytest.mark.parametrize("text", [*TEXTS, *BROKEN])
def test_every_split_of_a_text_is_digested_as_the_naive_one_does(text: bytes) -> None:
    expected = naive_digest.digest(text)
    assert (expected is None) == (text in BROKEN)
    assert digest(text) == expected
    for cut in range(len(text) + 1):
        assert digest(text, [cut]) == expected
    assert digest(text, range(len(text))) == expected


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)


@given(value=VALUES, data=st.data(), is_ascii=st.booleans(), indent=st.sampled_from([None, 0, 1, 3]))
def test_a_value_has_the_naive_digest_however_it_is_written_and_split(
    value: Any, data: st.DataObject, is_ascii: bool, indent: int | None
) -> None:
    text = json.dumps(value, ensure_ascii=is_ascii, indent=indent).encode("utf-8", "surrogatepass")
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=6))
    expected = naive_digest.digest(json.dumps(value).encode())
    assert expected is not None
    assert digest(text, cuts) == expected


@given(
    text=st.binary(max_size=60)
    | st.text('{}[]",:\\u0123456789eE+-.truefalsn \n', max_size=40).map(str.encode),
    data=st.data(),
)
def test_any_bytes_are_json_for_both_or_for_none(text: bytes, data: st.DataObject) -> None:
    if any(byte >= 0x80 for byte in text):
        # The kernel compares strings as bytes, and does not check that they are UTF-8.
        text = bytes(byte & 0x7F for byte in text)
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=4))
    assert digest(text, cuts) == naive_digest.digest(text)


def shuffled(value: Any, order: Any) -> Any:
    if isinstance(value, dict):
        items = [(name, shuffled(member, order)) for name, member in value.items()]
        order.shuffle(items)
        return dict(items)
    return [shuffled(item, order) for item in value] if isinstance(value, list) else value


@given(value=VALUES, order=st.randoms(use_true_random=False))
def test_the_order_of_members_does_not_count(value: Any, order: Any) -> None:
    assert digest(json.dumps(value).encode()) == digest(json.dumps(shuffled(value, order)).encode())


@given(one=VALUES, other=VALUES)
def test_different_values_have_different_digests(one: Any, other: Any) -> None:
    texts = [json.dumps(value).encode() for value in (one, other)]
    same = one == other and repr(one).replace("-0.0", "0.0") == repr(other).replace("-0.0", "0.0")
    if not same and naive_digest.digest(texts[0]) != naive_digest.digest(texts[1]):
        assert digest(texts[0]) != digest(texts[1])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": 2}, {"a": 2, "b": 1}),
        ({"a": "1"}, {"a": 1}),
        ([1, 2], [2, 1]),
        ({"a": None}, {}),
        ({"a": []}, {"a": {}}),
        ({"a": {"b": 1}}, {"a": 1, "b": {}}),
        ({"0": 1}, [1]),
        ({"a/b": 1}, {"a": {"b": 1}}),
        ("abcdefgh", "abcdefgh\0"),
        ("a", "a\0"),
        (10, 100),
        (1.5, -1.5),
        (True, "true"),
        ([[1], []], [[], [1]]),
    ],
)
def test_what_differs_has_another_digest(one: Any, other: Any) -> None:
    assert digest(json.dumps(one).encode()) != digest(json.dumps(other).encode())


def test_a_text_may_be_64_levels_deep() -> None:
    for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
        deep = opening * DEPTH_MAX + b"1" + closing * DEPTH_MAX
        assert digest(deep) == naive_digest.digest(deep) is not None
        assert digest(opening + deep + closing) is None


def test_exponents_beyond_a_billion_count_as_one() -> None:
    assert digest(b"1e99999999999") == digest(b"1e1000000000") != digest(b"1e999999999")
