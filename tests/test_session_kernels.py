"""What captures and checks look for in an answer: kernels beside their plain Python twins, and the standard library."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from replay.engine import json_pointer as plain_json
from replay.errors import UsageError
from replay.patterns import compile_pattern
from replay_native import jit, json_pointer, regex, sha256

pytestmark = pytest.mark.boundscheck


@pytest.fixture(scope="module", autouse=True)
def _kernels() -> None:
    jit.warm(("json_pointer", "regex", "sha256", "answers"))


def _array(data: bytes) -> np.ndarray:
    return np.frombuffer(bytearray(data), np.uint8)


# JSON pointers.


def pointed(data: bytes, tokens: list[bytes]) -> tuple[int, bytes | None]:
    """What the kernel finds: the kind, and the decoded string or the bytes as they stand."""
    found, out = np.zeros(3, np.int64), np.zeros(max(1, len(data)), np.uint8)
    packed = _array(b"".join(token + b"\0" for token in tokens))
    length = json_pointer.pointed(_array(data), packed, found, out)
    kind, begin, end = found.tolist()
    if kind == json_pointer.STRING:
        return kind, out[:length].tobytes() if length >= 0 else None
    return kind, data[begin:end]


def plainly(data: bytes, tokens: list[bytes]) -> tuple[int, bytes | None]:
    kind, raw = plain_json.find(data, tokens)
    return kind, plain_json.decoded(raw) if kind == json_pointer.STRING else raw


KEYS = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=4)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(KEYS, inside, max_size=4),
    max_leaves=12,
)


def places(value: Any, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    """Every pointer into a value, with what is there."""
    inside: list[tuple[str, Any]] = []
    if isinstance(value, dict):
        inside = list(value.items())
    elif isinstance(value, list):
        inside = [(str(index), item) for index, item in enumerate(value)]
    return [(path, value), *(place for key, item in inside for place in places(item, (*path, key)))]


@given(VALUES, st.booleans(), st.sampled_from([None, 1]))
def test_every_value_of_a_json_text_is_found_by_its_pointer(
    value: Any, ascii: bool, indent: int | None
) -> None:
    data = json.dumps(value, ensure_ascii=ascii, indent=indent).encode("utf-8", "surrogatepass")
    for path, there in places(value):
        tokens = [key.encode() for key in path]
        kind, found = pointed(data, tokens)
        assert (kind, found) == plainly(data, tokens)
        if isinstance(there, str):
            lone = any(0xD800 <= ord(character) < 0xE000 for character in there)
            assert (kind, found) == (
                json_pointer.STRING,
                None if lone and ascii else there.encode("utf-8", "surrogatepass"),
            )
        elif there is None:
            assert kind == json_pointer.ABSENT
        elif isinstance(there, dict | list):
            assert (kind, json.loads(found or b"")) == (json_pointer.COMPOUND, there)
        else:
            assert (kind, json.loads(found or b"")) == (json_pointer.LITERAL, there)


PIECES = [b"{", b"}", b"[", b"]", b'"', b":", b",", b"a", b"1", b"\\", b"\\u00e9", b" ", b'"a":', b"null"]


@given(
    st.binary(max_size=40) | st.lists(st.sampled_from(PIECES), max_size=24).map(b"".join),
    st.lists(st.sampled_from([b"a", b"0", b"1", b"", b"01"]), max_size=3),
)
@example(b'{"a":"x\\', [b"a"])
@example(b'{"a', [b"a"])
@example(b'{"a":"\\ud800\\u0041"}', [b"a"])
@example(b"[1,]", [b"1"])
def test_broken_json_is_read_as_its_twin_reads_it(data: bytes, tokens: list[bytes]) -> None:
    assert pointed(data, tokens) == plainly(data, tokens)


@pytest.mark.parametrize(
    ("text", "tokens", "value"),
    [
        (
            '{"a/b": {"~": [10, {"token": "x\\u00e9\\ud83d\\ude00\\n"}]}}',
            ["a/b", "~", "1", "token"],
            "xé😀\n",
        ),
        ('{"a": 1, "a": 2}', ["a"], "1"),
        (' "whole" ', [], "whole"),
        ("[true, false]", ["1"], "false"),
    ],
)
def test_a_pointer_finds(text: str, tokens: list[str], value: str) -> None:
    assert pointed(text.encode(), [token.encode() for token in tokens])[1] == value.encode()


# Regular expressions.


def searched(text: str, data: bytes) -> bytes | None:
    pattern = compile_pattern(text)
    work = np.zeros((regex.WORK_ROWS, regex.PROGRAM_MAX + 1), np.int32)
    group = np.zeros(2, np.int64)
    length = regex.searched(_array(data), pattern.program, pattern.sets, work, group)
    return None if length < 0 else data[group[0] : group[1]]


ATOMS = st.sampled_from(
    ["a", "b", "c", ".", "[ab]", "[^a]", "[a-c]", r"\d", r"\w", r"\.", "é", "-", r"[\d-]"]
)
SINGLE = ATOMS.filter(lambda atom: atom != "é")
REPEATS = st.sampled_from(["?", "*", "+", "{2}", "{1,2}", "{0,3}", "{1,}", "??", "*?", "+?", "{0,2}?"])


@st.composite
def sequences(draw: st.DrawFn, depth: int = 0) -> str:
    parts = []
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.integers(0, 3 if depth < 2 else 2))
        if kind == 0:
            parts.append(draw(ATOMS))
        elif kind == 1:
            parts.append(draw(SINGLE) + draw(REPEATS))
        elif kind == 2:
            parts.append(f"(?:{draw(ATOMS)}{draw(ATOMS)}){draw(REPEATS)}")
        else:
            parts.append(f"(?:{draw(sequences(depth + 1))}|{draw(sequences(depth + 1))})")
    return "".join(parts)


@given(sequences(), sequences(), sequences(), st.text("aabbc1.-é\n", max_size=24))
@settings(max_examples=300)
def test_a_pattern_finds_what_python_finds(before: str, taken: str, after: str, text: str) -> None:
    whole = f"{before}({taken}){after}"
    found = re.search(whole.encode(), text.encode())
    assert searched(whole, text.encode()) == (found.group(1) if found else None)


@given(st.text("ab", max_size=12))
def test_a_group_that_may_not_take_part_is_nothing(text: str) -> None:
    found = re.search(b"a(b)a|b", text.encode())
    assert searched("a(b)a|b", text.encode()) == (found.group(1) if found else None)


@pytest.mark.parametrize(
    ("text", "column", "why"),
    [
        ("^a", 1, "anchors"),
        ("a$", 2, "anchors"),
        (r"(a)\1", 4, "back references"),
        (r"\bword", 1, "escape"),
        ("(?=a)", 1, "not supported"),
        ("(?i)a", 1, "not supported"),
        ("(a)(b)", 4, "one group"),
        ("(a)+", 4, "cannot be repeated"),
        ("(?:a*)*", 7, "may be empty"),
        ("a**", 3, "repeats a repeat"),
        ("*a", 1, "nothing to repeat"),
        ("(a", 1, "not closed"),
        ("a)", 2, "closes nothing"),
        ("[a", 1, "not closed"),
        ("[b-a]", 2, "range"),
        ("a{3,2}", 2, "count up"),
        ("a{101}", 2, "count up"),
        ("[é]", 2, "ASCII"),
        ("é+", 2, "repeated"),
    ],
)
def test_what_is_not_supported_is_refused_by_its_column(text: str, column: int, why: str) -> None:
    with pytest.raises(UsageError, match=rf"column {column}: .*{why}"):
        compile_pattern(text)


def test_a_pattern_that_is_too_long_is_refused() -> None:
    with pytest.raises(UsageError, match="too long"):
        compile_pattern("[ab]{100}" * 3)


def test_a_pattern_with_many_choices_takes_time_linear_in_the_text() -> None:
    assert searched("(?:a|a)*(?:a|a)*(?:a|a)*(b)", b"a" * 3_000) is None


# Digests.


@given(st.binary(max_size=300))
@example(b"")
@example(b"x" * 55)
@example(b"x" * 56)
@example(b"x" * 64)
def test_a_digest_is_that_of_hashlib(data: bytes) -> None:
    work = np.zeros(sha256.WORK_WORDS, np.uint32)
    sha256.digested(_array(data), work)
    assert work[64:72].astype(">u4").tobytes() == hashlib.sha256(data).digest()
