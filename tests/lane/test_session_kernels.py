"""What captures and checks look for in an answer: kernels beside their plain Python twins, and the standard library."""

from __future__ import annotations

import hashlib
import json
import re
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h11
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from replay.errors import LimitError, UsageError
from replay.protocols.http1.portable import json_pointer as plain_json
from replay.protocols.http1.portable.answers import parts_of
from replay.protocols.http1.portable.cookies import Jar
from replay.protocols.http1.portable.session_values import Answer, Sessions
from replay.protocols.http1.session_spec import SessionSpec, make_session_spec
from replay.settings.file import load
from replay.settings.patterns import compile_pattern
from replay_native.ground import jit, regex, sha256
from replay_native.http1 import (
    answers,
    cookies,
    json_pointer,
    sessions,
)
from replay_native.http1.sessions import (
    FORM,
    IN_COOKIE,
    JSON_TEXT,
    JSON_VALUE,
    RAW,
    SEGMENT,
    TARGET,
)

pytestmark = pytest.mark.boundscheck


@pytest.fixture(scope="module", autouse=True)
def _kernels() -> None:
    jit.warm(
        (
            "http1.json_pointer",
            "ground.regex",
            "ground.sha256",
            "http1.answers",
            "http1.cookies",
            "http1.sessions",
        )
    )


def _array(data: bytes) -> np.ndarray:
    return np.frombuffer(bytearray(data), np.uint8)


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


KEYS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=4)
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
    try:
        compile_pattern(whole)
    except UsageError as error:
        assume("too long" not in str(error))
        raise
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
        ("(?:a*)*", 7, "can be empty"),
        ("a**", 3, "repeats a repeat"),
        ("*a", 1, "nothing to repeat"),
        ("(a", 1, "not closed"),
        ("a)", 2, "closes nothing"),
        ("[a", 1, "not closed"),
        ("[b-a]", 2, "range"),
        ("a{3,2}", 2, "ascending order"),
        ("a{101}", 2, "ascending order"),
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


@given(st.binary(max_size=300))
@example(b"")
@example(b"x" * 55)
@example(b"x" * 56)
@example(b"x" * 64)
def test_a_digest_is_that_of_hashlib(data: bytes) -> None:
    work = np.zeros(sha256.WORK_WORDS, np.uint32)
    sha256.digested(_array(data), work)
    assert work[64:72].astype(">u4").tobytes() == hashlib.sha256(data).digest()


def looked_up(data: bytes, name: bytes) -> tuple[bytes, bytes, bytes | None]:
    """Head and body of a whole answer, and the first header of a name."""
    found, array = np.zeros(6, np.int64), _array(data)
    answers.looked_up(array, _array(name), found)
    head, head_end, body, body_end, value, value_end = found.tolist()
    text = array.tobytes()
    return text[head:head_end], text[body:body_end], None if value < 0 else text[value:value_end]


HEADERS = st.lists(
    st.tuples(
        st.sampled_from(["A", "a-b", "Set-Cookie", "ETag"]),
        st.text("ab;= \t,0", max_size=8).map(lambda text: text.strip(" \t")),
    ),
    max_size=5,
)  # fmt: skip


@given(HEADERS, st.lists(st.binary(min_size=1, max_size=20), max_size=4), st.booleans(), st.integers(0, 2))
def test_an_answer_is_taken_apart_as_h11_does(
    headers: list[tuple[str, str]], pieces: list[bytes], chunked: bool, informational: int
) -> None:
    body = b"".join(pieces)
    framing = ("Transfer-Encoding", "Chunked") if chunked else ("Content-Length", str(len(body)))
    head = (
        "HTTP/1.1 200 OK\r\n"
        + "".join(f"{name}:  {value} \r\n" for name, value in [*headers, framing])
        + "\r\n"
    )
    framed = b"".join(b"%X;x=1\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\nT: 1\r\n\r\n"
    data = (
        b"HTTP/1.1 103 Early Hints\r\nA: no\r\n\r\n" * informational
        + head.encode()
        + (framed if chunked else body)
    )
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    event = client.next_event()
    while not isinstance(event, h11.Response):
        event = client.next_event()
    for name in ("a", "a-b", "set-cookie", "etag", "none"):
        expected = next((value for key, value in event.headers if key == name.encode()), None)
        found = looked_up(data, name.encode())
        assert found == (head.encode(), body, expected)


FOLDS = st.lists(
    st.tuples(
        st.sampled_from(["A", "B"]),
        st.lists(st.text("ab: ", max_size=4), min_size=1, max_size=4),
        st.sampled_from([" ", "\t", "  "]),
        st.sampled_from(["\n", "\r\n"]),
    ),
    max_size=4,
)


@given(FOLDS, st.binary(max_size=10), st.integers(0, 1))
def test_folded_headers_are_those_of_the_twin(
    headers: list[tuple[str, list[str], str, str]], body: bytes, informational: int
) -> None:
    lines = [f"{name}:{(end + blank).join(parts)}{end}" for name, parts, blank, end in headers]
    head = "HTTP/1.1 200 OK\r\n" + "".join(lines) + "\r\n"
    data = b"HTTP/1.1 103 Hints\r\nA: no\r\n x\r\n\r\n" * informational + head.encode() + body
    found, whole = parts_of(data)
    for name in (b"a", b"b", b"none"):
        expected = next((value for key, value in found if key == name), None)
        _, kernel_body, value = looked_up(data, name)
        assert value == expected
        assert kernel_body == whole == body


COOKIES = st.lists(
    st.builds(
        lambda name, equals, value, attributes: f"{name}{equals}{value}{attributes}".encode("latin-1"),
        st.sampled_from(["a", "b", " sid ", "", "long" * 4]),
        st.sampled_from(["=", "=", " = ", ""]),
        st.text("xyz0 =\x01\xe9", max_size=10),
        st.sampled_from([
            "", "; Path=/", ";Max-Age=0", "; max-age=00 ", "; Max-Age=-5", "; Max-Age=60; Expires=Thu, 01 Jan 1970",
            "; Expires=Thu, 01 Jan 1970 00:00:00 GMT", "; expires=Wed, 21 Oct 2099; HttpOnly", "; Max-Age=", ";;",
        ]),
    ),
    max_size=8,
)  # fmt: skip


@given(COOKIES, st.integers(0, 40))
def test_a_jar_is_its_twins(headers: list[bytes], most: int) -> None:
    jar, length, twin = np.zeros(most, np.uint8), 0, Jar(most)
    for header in headers:
        found = cookies.jar_with(jar, length, _array(header))
        assert (found != cookies.NO_ROOM) == twin.put(header)
        length = length if found == cookies.NO_ROOM else found
        assert jar[:length].tobytes() == twin.text


def test_a_jar_holds_what_came_last_and_forgets_what_has_ended() -> None:
    jar = Jar(100)
    for header in (
        b"a=1",
        b"b=2; Path=/x; Secure",
        b"a=3",
        b"b=; Max-Age=0",
        b"c=4; Expires=Thu, 01 Jan 1970 00:00:00 GMT",
    ):
        assert jar.put(header)
    assert jar.text == b"a=3"


def test_a_cookie_may_hold_what_is_not_ascii_and_no_control_character() -> None:
    jar, native = Jar(100), np.zeros(100, np.uint8)
    length = 0
    for header in ("name=Jörg; Path=/".encode(), b"bad=a\x01b", b"gone=\x7f"):
        assert jar.put(header)
        length = cookies.jar_with(native, length, _array(header))
    assert jar.text == native[:length].tobytes() == "name=Jörg".encode()


def scenario_rules(tmp_path: Path, text: str) -> SessionSpec:
    path = tmp_path / "s.toml"
    path.write_text(text)
    requests = SimpleNamespace(routes=["GET /a", "GET /b"], actions=["", ""])
    return make_session_spec(requests, load(path), 8)  # type: ignore[arg-type]


RULES = """
cookies = true
[limits]
cookies = 30
answer = 400
[[capture]]
route = "GET /a"
name = "token"
json = "/token"
longest = 12
[[capture]]
route = "*"
name = "etag"
header = "ETag"
[[capture]]
route = "*"
name = "sid"
cookie = "sid"
[[capture]]
route = "*"
name = "csrf"
regex = 'csrf="([^"]*)"'
[[check]]
route = "*"
status = ["2xx", 404]
[[check]]
route = "*"
status = "recorded"
[[check]]
route = "GET /b"
contains = "token"
[[check]]
route = "*"
size = ">=10"
[[check]]
route = "*"
json = "/ok"
equals = "true"
[[check]]
route = "*"
json = "/list"
[[check]]
route = "GET /b"
digest = "sha256:TOKEN"
[[check]]
route = "*"
regex = "to+ken"
[[check]]
route = "*"
header = "etag"
equals = "e1"
"""

BODIES = st.sampled_from([
    b'{"token": "abc"}', b'{"token": "a\\u00e9\\"", "ok": true, "list": []}', b'{"token": "much too long for it"}', b"",
    b'{"token": ".."}', b'{"token": "-1.5e3"}', b'{"token": "null"}', b'{"token": "01"}', b'{"token": "."}',
    b'{"token": "a;b"}',
    b'<input csrf="s1"> token', b'{"token": "line\\nbreak", "ok": "true"}', b'{"list": null, "ok": false}', b'csrf=""',
])  # fmt: skip
ANSWERS = st.tuples(
    st.integers(0, 3), st.integers(0, 1), st.sampled_from([200, 201, 404, 500]), st.sampled_from([0, 200, 404]), BODIES,
    st.lists(st.sampled_from([
        ("ETag", "e1"), ("ETag", "a\xe9"), ("Set-Cookie", "sid=1; Path=/"), ("Set-Cookie", "sid=22"),
        ("Set-Cookie", "x=" + "y" * 40), ("Set-Cookie", "sid=; Max-Age=0"), ("Set-Cookie", "other=z"),
    ]), max_size=4),
    st.booleans(), st.booleans(),
)  # fmt: skip
ENCODINGS = [RAW, JSON_TEXT, TARGET, FORM, SEGMENT, JSON_VALUE, IN_COOKIE]
PATCHES = st.lists(
    st.tuples(st.integers(0, 12), st.integers(0, 4), st.sampled_from(ENCODINGS)),
    max_size=4,
)


@given(st.lists(ANSWERS, max_size=8), PATCHES, st.booleans())
@settings(max_examples=200)
def test_rules_and_patches_are_their_twins(
    session_rules: SessionSpec, asked: list[Any], wanted: list[tuple[int, int, int]], has_body: bool
) -> None:
    spec = session_rules
    table = spec.table(clients=4, lanes=1, connections=1)
    counts, twin_counts = (np.zeros((len(spec.rules), 2), np.int64) for _ in range(2))
    twin = Sessions(spec, twin_counts)
    for client, route, status, recorded, body, headers, chunked, whole in asked:
        framed = (
            b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
            if chunked and body
            else b"0\r\n\r\n"
            if chunked
            else body
        )
        framing = ("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(len(body)))
        lines = "".join(f"{name}: {value}\r\n" for name, value in [*headers, framing])
        data = f"HTTP/1.1 {status} OK\r\n{lines}\r\n".encode("latin-1") + framed
        given_answer = sessions.Answer(status, recorded, len(body), int(whole))
        result = sessions.evaluate_all(table, client, route, _array(data), given_answer, counts)
        lower = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
        found = twin.evaluate(
            client,
            route,
            Answer(status, lower, body if whole else None, len(body)),
            recorded,
            is_measured=True,
        )
        assert result == found
    assert counts.tolist() == twin_counts.tolist()
    request = b"GET / \r\n\r\nlength" if has_body else b"GET / HTTP/1.1\r\n"
    patches = sorted(min(at, len(request)) for at, _, _ in wanted)
    rows = [(at, slot | encoding << 16) for at, (_, slot, encoding) in zip(patches, wanted, strict=True)]
    if has_body:
        rows = sorted([*rows, (6, sessions.LENGTH_SLOT)], key=lambda row: row[0])
    entry = request + b"".join(struct.pack("<ii", *row) for row in rows)
    for client in range(4):
        out = np.zeros(4_096, np.uint8)
        length = sessions.patched(table, client, _array(entry), len(request), len(rows), out)
        assert (out[:length].tobytes() if length >= 0 else None) == twin.patched(entry, len(rows), client)


@pytest.fixture(scope="module")
def session_rules(tmp_path_factory: pytest.TempPathFactory) -> SessionSpec:
    digest = hashlib.sha256(b'{"token": "abc"}').hexdigest()
    return scenario_rules(tmp_path_factory.mktemp("rules"), RULES.replace("TOKEN", digest))


def test_a_value_that_needs_itself_is_refused(tmp_path: Path) -> None:
    text = (
        "[[capture]]\nroute = 'GET /a'\nname = 'token'\njson = '/token'\n"
        "[[set]]\nroute = '*'\nheader = 'X'\nvalue = '{token}'\n"
    )
    with pytest.raises(UsageError, match="can never be captured: GET /a returns it"):
        scenario_rules(tmp_path, text)
    scenario_rules(tmp_path, text + "without = ['GET /a']")


def test_values_that_could_outgrow_their_limit_are_refused(tmp_path: Path) -> None:
    text = "[[capture]]\nroute = '*'\nname = 'token'\njson = '/token'\nlongest = '64KiB'\n[limits]\nsessions = '256KiB'"
    with pytest.raises(LimitError, match="the values of 8 clients may need 512"):
        scenario_rules(tmp_path, text)
