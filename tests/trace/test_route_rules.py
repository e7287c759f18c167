"""Routes and business actions of a user's own: read from TOML, kept in the trace, meant wherever a route is named."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from replay.errors import InputError, UsageError
from replay.naming import first_naming
from replay.trace import (
    RouteRules,
    Trace,
    TraceWriter,
    read_route_rules,
)
from replay.trace.manifest import ROUTES_MAX
from replay_native.trace.routes import matches_one

pytestmark = pytest.mark.boundscheck

Requests = list[tuple[str, bytes]]


def traced(folder: Path, rules: RouteRules, requests: Requests) -> Trace:
    with TraceWriter(folder / "a.trace", rules=rules) as writer:
        ids = np.array([writer.add_request(method, target) for method, target in requests], dtype=np.uint32)
        writer.add_events(np.arange(len(ids), dtype=np.int64), ids, np.zeros(len(ids), dtype=np.uint32))
    assert writer.trace is not None
    return writer.trace


def labels(trace: Trace) -> list[str]:
    """The route of each event."""
    requests = trace.requests
    return [requests.routes[requests.get(int(i)).route] for batch in trace.batches() for i in batch.request]


def read(folder: Path, text: str) -> RouteRules:
    path = folder / "rules.toml"
    path.write_text(text)
    return read_route_rules(path)


def matches(path: bytes, pattern: bytes) -> bool:
    return bool(matches_one(*(np.array(bytearray(text), np.uint8) for text in (path, pattern))))


def naive_matches(path: bytes, pattern: bytes) -> bool:
    """`matches`, by a regular expression made of the pattern."""
    tail = rb".*" if pattern.endswith(b"/*") else b""
    parts = re.split(rb"\{\w+\}", pattern[:-1] if tail else pattern)
    return re.fullmatch(rb"[^/]+".join(map(re.escape, parts)) + tail, path, re.DOTALL) is not None


SEGMENT = st.builds(
    lambda before, name, after: before + name + after,
    st.sampled_from([b"", b"a", b"b"]),
    st.sampled_from([b"", b"{x}"]),
    st.sampled_from([b"", b"a", b".b"]),
)
PATTERNS = st.builds(
    lambda segments, tail: b"".join(b"/" + segment for segment in segments) + tail,
    st.lists(SEGMENT, min_size=1, max_size=4),
    st.sampled_from([b"", b"/*"]),
)


@given(path=st.text("/ab.{x}", max_size=12).map(str.encode), pattern=PATTERNS)
@example(path=b"/a", pattern=b"/a{x}")
@example(path=b"/a/", pattern=b"/a/*")
@settings(max_examples=2000, deadline=None)
def test_a_template_matches_what_its_regular_expression_does(path: bytes, pattern: bytes) -> None:
    assert matches(path, pattern) == naive_matches(path, pattern)


@given(pattern=PATTERNS)
@settings(deadline=None)
def test_a_template_matches_itself(pattern: bytes) -> None:
    """So that labels which are routed again stay what they are."""
    assert matches(pattern, pattern)


def test_own_templates_are_tried_before_any_is_found(tmp_path: Path) -> None:
    rules = RouteRules(("GET /shop/{category}/{product}", "/files/{name}.pdf", "* /static/*"))
    requests = [
        ("GET", b"/shop/shoes/red-ones?size=9"),
        ("POST", b"/shop/shoes/17"),
        ("POST", b"/files/a.pdf"),
        ("GET", b"/files/17.txt"),
        ("GET", b"/static/a/b/c.js;v=1"),
        ("GET", b"/shop/shoes"),
    ]
    assert labels(traced(tmp_path, rules, requests)) == [
        "GET /shop/{category}/{product}",
        "POST /shop/shoes/{id}",
        "POST /files/{name}.pdf",
        "GET /files/{id}.txt",
        "GET /static/*",
        "GET /shop/shoes",
    ]


def test_an_own_template_survives_whatever_is_folded(tmp_path: Path) -> None:
    """Its rows are the rarest of more routes than a trace may have, and under a parent of many children."""
    rules = RouteRules(("/p/{mine}.own", "/q3/*"))
    many = [("GET", b"/p/name-%s" % word) for word in _words(300)]
    more = [("GET", b"/%s/x" % word) for word in _words(2 * ROUTES_MAX) for _ in range(2)]
    trace = traced(tmp_path, rules, [("GET", b"/p/a.own"), ("GET", b"/q3/z/z/z"), *many, *more])
    found = labels(trace)
    assert found[:2] == ["GET /p/{mine}.own", "GET /q3/*"]
    assert len(trace.manifest.routes) <= ROUTES_MAX


def _words(count: int) -> list[bytes]:
    letters = b"ghijklmnop"
    return [bytes(letters[int(digit)] for digit in f"{number:05d}") for number in range(count)]


def test_an_action_is_the_first_that_names_the_route(tmp_path: Path) -> None:
    rules = read(
        tmp_path,
        """
        routes = ["/shop/{category}/{product}"]
        [actions]
        registration = ["POST /v1/users"]
        browsing = ["GET /shop/*", "GET /"]
        writing = ["POST *"]
        """,
    )
    requests = [
        ("POST", b"/v1/users"),
        ("GET", b"/shop/a/b"),
        ("GET", b"/"),
        ("POST", b"/v1/orders"),
        ("GET", b"/health"),
    ]
    trace = traced(tmp_path, rules, requests)
    by_route = dict(zip(trace.requests.routes, trace.requests.actions, strict=True))
    assert by_route == {
        "POST /v1/users": "registration",
        "GET /shop/{category}/{product}": "browsing",
        "GET /": "browsing",
        "POST /v1/orders": "writing",
        "GET /health": "",
    }
    actions = {name: [route.route for route in routes] for name, routes in trace.manifest.actions().items()}
    assert set(actions) == {"registration", "browsing", "writing"}
    assert sorted(actions["browsing"]) == ["GET /", "GET /shop/{category}/{product}"]


def test_an_action_stands_wherever_a_route_is_named() -> None:
    routes, actions = ["POST /v1/users", "GET /a", "GET /b"], ["registration", "browsing", "browsing"]
    assert first_naming(routes, actions, ["browsing", "*"], ["--scale", "--scale"]) == [1, 0, 0]
    with pytest.raises(UsageError, match=r"--only: 'browsin' is not a route .* nor an action .*'browsing'"):
        first_naming(routes, actions, ["browsin"], ["--only"])


def test_what_names_nothing_is_said(tmp_path: Path) -> None:
    rules = RouteRules(
        actions=(("registration", ("POST /v1/user", "POST /v1/users")), ("writes", ("POST *",)))
    )
    trace = traced(tmp_path, rules, [("POST", b"/v1/users")])
    assert rules.idle(trace.manifest.routes) == [
        "registration: 'POST /v1/user' is not a route of the recording (did you mean 'POST /v1/users'?)",
        "writes: all its routes belong to actions above it",
    ]


def test_routes_of_two_actions_are_said(tmp_path: Path) -> None:
    """They belong to the first one; the second one's figures lack them."""
    rules = RouteRules(
        actions=(
            ("reading", ("GET /a", "GET /b*")),
            ("all-gets", ("GET *",)),
            ("writing", ("POST *", "GET /a")),
        )
    )
    asked = [("GET", path) for path in (b"/a", b"/b1", b"/b2", b"/b3", b"/c")] + [("POST", b"/a")]
    assert rules.idle(traced(tmp_path, rules, asked).manifest.routes) == [
        "all-gets: 'GET /a', 'GET /b1', 'GET /b2' and 1 more belong to reading, which is above it",
        "writing: 'GET /a' belongs to reading, which is above it",
    ]


WRONG = {
    "routes = [": "not TOML",
    "route = []": r"no key 'route' \(did you mean 'routes'",
    'routes = "GET /a"': "routes is not a list",
    'routes = ["GET a"]': "not a path template",
    'routes = ["GET /a/{x}{y}"]': "not a path template",
    'routes = ["GET /a/*/b"]': "not a path template",
    'routes = ["GET /a?b"]': "not a path template",
    'routes = ["G=T /a"]': "'G=T' is not a method",
    'routes = ["GET two /a"]': "'GET two' is not a method",
    "actions = 1": "actions is not a table",
    '[actions]\nregistration = "POST /v1/users"': "actions.registration is not a list",
    "[actions]\nregistration = []": "actions.registration lists no route",
    '[actions]\n"two words" = ["GET /a"]': "cannot have this name",
    '[actions]\nall = ["GET /a"]': "cannot have this name",
}


@pytest.mark.parametrize("text", WRONG)
def test_rules_that_say_something_else_are_refused_by_key(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match=WRONG[text]) as caught:
        read(tmp_path, text)
    assert "rules.toml" in str(caught.value)


def test_rules_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_route_rules(tmp_path / "none.toml")
