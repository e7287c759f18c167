"""A value stays one value: a hostile answer cannot steer the path, the query, the cookies or the body of what follows."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import parse_qsl, unquote_to_bytes

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from replay.errors import UsageError
from replay.plan.schedule import make_schedule
from replay.protocols.http1.portable.session_values import link_of
from replay.protocols.http1.templates import encoded, encoding_of_body, parse_template
from replay.results.document import RunDocument
from replay.settings.file import load
from replay_native.ground import jit
from replay_native.http1 import sessions
from tests.support.runs import run_blocking
from tests.support.scripted_server import ScriptedServer
from tests.support.trace_data import Row, write_trace

MS = 1_000_000
ENGINES = pytest.mark.parametrize("engine", ["native", "portable"])
SCENARIO = """
target = "{target}"
engine = "{engine}"
methods = "all"
[[capture]]
route = "GET /login"
name = "id"
json = "/id"
[[set]]
route = "GET /users/me"
path = "/users/{{id}}/orders?user={{id}}&page=2"
[[set]]
route = "GET /users/me"
header = "Cookie"
value = "user={{id}}; role=guest"
[[body]]
route = "POST /orders"
content_type = "application/json"
template = '{{"of": "{{id}}", "number": {{id}}, "paid": false}}'
[[body]]
route = "POST /form"
content_type = "application/x-www-form-urlencoded"
template = 'of={{id}}&paid=0'
"""

LINK = """
target = "{target}"
engine = "{engine}"
[[capture]]
route = "GET /login"
name = "next"
json = "/id"
as = "path"
[[set]]
route = "GET /users/me"
path = "{{next}}"
"""

HOSTILE = [
    "../../admin", "..", ".", "a/b", "a?role=admin", "a&role=admin", "%2e%2e%2fadmin", "a#b", "a b", "é",
    'a","paid":true,"x":"', "a; role=admin", "1, 2", "1", "-1.5e3", "null", "0x1", "01", "a\\", "a%", "http://evil.example/",
    "//evil.example", "{id}",
]  # fmt: skip

REFUSED = [
    "//evil.example/x", "http://evil.example/x", "evil.example", "", "/a/../b", "/..", "/a/..", "/%2e%2e/x", "/.%2E/x",
    "/%252e%252e/x", "/a/..;v=1/b", "/a//b", "/\\evil.example", "/a\\..\\b", "/a/..%2fb", "/a%5c..%5cb", "/%2f/evil.example",
    "/x?next=http://evil.example/", "javascript:alert(1)", "/../x?y",
]  # fmt: skip
KEPT = {
    "/a/b?c=d&e=f": "/a/b?c=d&e=f", "/": "/", "/a%20b/c.d..e/...": "/a%20b/c.d..e/...", "/a#part": "/a", "/é": "/%C3%A9",
    "/a b": "/a%20b", "/orders/7;v=1?x=%26": "/orders/7;v=1?x=%26", "/.well-known/x": "/.well-known/x",
}  # fmt: skip


class AnyPath(dict[str, list[bytes]]):
    """The login for its path, an empty answer for every other one."""

    def __getitem__(self, path: str) -> list[bytes]:
        return (
            super().__getitem__(path) if path in self else [b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]
        )


def replayed(tmp_path: Path, engine: str, text: str, value: str) -> tuple[list[bytes], RunDocument]:
    """What a server was asked that answers the login with `value`, and the run."""
    body = json.dumps({"id": value}).encode()
    login = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    rows = [("GET", b"/login"), ("GET", b"/users/me"), ("POST", b"/orders"), ("POST", b"/form")]
    rows = rows if "[[body]]" in text else rows[:2]
    trace = [Row(n * 30 * MS, method, target, client=1) for n, (method, target) in enumerate(rows)]
    with ScriptedServer(AnyPath({"/login": [login]})) as server:
        path = tmp_path / "s.toml"
        path.write_text(text.format(target=f"http://127.0.0.1:{server.port}", engine=engine))
        scenario = load(path, {})
        schedule = make_schedule(write_trace(tmp_path / "t.trace", trace), scenario)
        document = run_blocking(schedule, scenario, tmp_path / "run")
    return server.asked, document


@ENGINES
def test_no_value_of_an_answer_steers_what_follows(tmp_path: Path, engine: str) -> None:
    for number, value in enumerate(HOSTILE):
        place = tmp_path / str(number)
        place.mkdir()
        asked, document = replayed(place, engine, SCENARIO, value)
        assert len(asked) == 4 and document.accounts.ok == 4, value
        raw = value.encode()
        line, head = asked[1].split(b"\r\n", 1)
        path, mark, query = line.split(b" ")[1].partition(b"?")
        segments = path.split(b"/")
        assert mark and len(segments) == 4 and segments[2] not in (b".", b".."), line
        assert unquote_to_bytes(segments[2]) == raw and segments[3] == b"orders"
        assert parse_qsl(query.decode()) == [("user", value), ("page", "2")]
        (cookie,) = [found[8:] for found in head.split(b"\r\n") if found.lower().startswith(b"cookie: ")]
        assert [pair.partition(b"=")[0] for pair in cookie.split(b"; ")] == [b"user", b"role"], cookie
        sent = json.loads(asked[2].partition(b"\r\n\r\n")[2])
        assert list(sent) == ["of", "number", "paid"] and sent["of"] == value and sent["paid"] is False
        assert sent["number"] == (json.loads(value) if value in ("1", "-1.5e3", "null") else value)
        form = asked[3].partition(b"\r\n\r\n")[2].decode()
        assert parse_qsl(form) == [("of", value), ("paid", "0")]


@ENGINES
def test_a_link_that_leaves_its_place_is_refused_and_counted(tmp_path: Path, engine: str) -> None:
    for number, value in enumerate(REFUSED):
        place = tmp_path / str(number)
        place.mkdir()
        asked, document = replayed(place, engine, LINK, value)
        assert [line.split(b" ")[1] for line in asked] == [b"/login"], value
        assert document.sessions is not None
        (rule,) = document.sessions.rules
        assert (rule.good, rule.missed, rule.refused) == (0, 1, 1), value
        assert document.accounts_detail.unsent["capture"] == document.accounts.unsent == 1


@ENGINES
def test_a_link_is_followed_as_it_is(tmp_path: Path, engine: str) -> None:
    for number, (value, target) in enumerate(KEPT.items()):
        place = tmp_path / str(number)
        place.mkdir()
        asked, document = replayed(place, engine, LINK, value)
        assert [line.split(b" ")[1].decode() for line in asked] == ["/login", target]
        assert document.sessions is not None and document.sessions.rules[0].refused == 0


@ENGINES
def test_a_line_break_in_a_value_is_no_header(tmp_path: Path, engine: str) -> None:
    asked, document = replayed(tmp_path, engine, SCENARIO, "a\r\nX-Admin: 1")
    assert len(asked) == 1 and document.accounts_detail.unsent["capture"] == 3


LINKS = st.lists(
    st.sampled_from(
        [
            "/",
            "..",
            ".",
            "%2e",
            "%2E",
            "%252e",
            "%2f",
            "%5C",
            "\\",
            ";",
            "?",
            "=",
            "&",
            "#",
            "a",
            "%",
            "25",
            "2f",
        ]
    ),
    max_size=8,
).map("".join)


@given(LINKS | st.text(max_size=20), st.booleans())
@example("/%2525", True)
@example("/a%", False)
def test_the_kernel_refuses_the_links_that_its_twin_refuses(text: str, rooted: bool) -> None:
    jit.warm(("http1.sessions",))
    value = (f"/{text}" if rooted else text).encode()
    data = np.frombuffer(bytearray(value or b"\0"), np.uint8)
    length = sessions.measured_link(data, len(value))
    assert (None if length < 0 else value[:length]) == link_of(value)


@given(
    st.text(max_size=12) | st.sampled_from(["1", "-0", "1e5", "1.", "tru", "true", "-", "00", "1e", "1.5E+3"])
)
def test_a_value_outside_of_a_json_string_is_one_value(value: str) -> None:
    if any(ord(character) < 32 or ord(character) == 127 for character in value):
        return
    written = encoded(value.encode(), "json_value")
    found = json.loads(b'{"a": ' + written + b', "b": 1}')
    assert list(found) == ["a", "b"] and found["b"] == 1
    assert not isinstance(found["a"], list | dict)


def test_a_template_knows_where_strings_are() -> None:
    template = rb'{"a": "x\"{n}", "b": {n}, "c{n}": [{n}]}'
    parts = parse_template(template, None, encoding_of_body("application/json"))
    assert b"".join(part.text for part in parts) == template.replace(b"{n}", b"")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/{next}", "is a whole path, which begins with / itself"),
        ("{next}/more", "is a whole path"),
        ("{next}?x=1", "is a whole path"),
        ("{id}", "'{id}' is not a path"),
        ("{uuid}", "'{uuid}' is not a path"),
    ],
)
def test_where_a_link_cannot_stand_is_refused_before_the_run(tmp_path: Path, path: str, said: str) -> None:
    text = (
        "[[capture]]\nroute='*'\nname='next'\njson='/n'\nas='path'\n[[capture]]\nroute='*'\nname='id'\njson='/i'\n"
        f"[[set]]\nroute='*'\npath='{path}'\n"
    )
    (tmp_path / "s.toml").write_text(text)
    with pytest.raises(UsageError) as caught:
        load(tmp_path / "s.toml", {"target": "http://127.0.0.1:1"})
    assert said in str(caught.value) and "set[0].path" in str(caught.value)


def test_two_captures_of_a_name_are_of_one_kind(tmp_path: Path) -> None:
    rule = "[[capture]]\nroute='*'\nname='next'\njson='/n'\n"
    (tmp_path / "s.toml").write_text(f"{rule}as='path'\n{rule}")
    with pytest.raises(UsageError, match=r"capture\[1\].as: 'next' is captured as a path by another rule"):
        load(tmp_path / "s.toml", {"target": "http://127.0.0.1:1"})
