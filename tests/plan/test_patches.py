"""[[set]] rules for fields, parameters and recorded headers: the requests are the recorded ones but for these values."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import parse_qs

import numpy as np
import pytest

from replay.errors import UsageError
from replay.plan.schedule import make_schedule
from replay.settings.file import load
from replay.trace import Trace, TraceWriter
from tests.plan.test_render import empty_feed, pushed, render
from tests.support.http_plan import render_of
from tests.support.trace_data import START_NS

JSON = ((b"Content-Type", b"application/json"),)
FORM = ((b"Content-Type", b"application/x-www-form-urlencoded"),)
LOGIN = b'{"email": "ann@x.example", "password": "p", "n": 12, "items": [{"id": "one"}, {"id": 2}], "s": "\\u00e9"}'


def trace_of(place: Path) -> Trace:
    """Two clients that send the same, and one request of each kind."""
    with TraceWriter(place) as writer:

        def request(
            method: str, target: bytes, headers: tuple[tuple[bytes, bytes], ...], body: bytes = b""
        ) -> int:
            return writer.add_request(method, target, None, headers=headers or None, body=body or None)

        requests = [
            request("POST", b"/login", JSON, LOGIN), request("POST", b"/form", FORM, b"a=1&password=p+q&b=2"),
            request("GET", b"/users/ann/orders?page=1&token=abc", ()),
            request("GET", b"/users/bob/orders", ((b"Authorization", b"Bearer x"),)),
            request("POST", b"/login", JSON, b'{"other": true}'),
        ]  # fmt: skip
        count = 2 * len(requests)
        writer.add_events(
            START_NS + np.arange(count), np.array(requests * 2, np.uint32),
            np.repeat(np.array([0, 1], np.uint32), len(requests)), np.full(count, 200, np.int16), np.full(count, -1),
        )  # fmt: skip
    assert writer.trace is not None
    return writer.trace


def sent(folder: Path, scenario: str, run_id: str = "r1") -> list[tuple[str, dict[str, str], str]]:
    """Target, headers and body of each request that the scenario sends."""
    folder.mkdir(exist_ok=True)
    (folder / "s.toml").write_text(scenario)
    trace = Trace.open(folder / "t.trace") if (folder / "t.trace").exists() else trace_of(folder / "t.trace")
    settings = {"target": "http://127.0.0.1:81", "methods": "all", "empty_bodies": True}
    schedule = make_schedule(trace, load(folder / "s.toml", settings))
    spec = render_of(schedule).of_run(run_id)
    feed = empty_feed()
    for batch in schedule.batches():
        render(schedule, spec, batch, feed)
    found = []
    for _, raw in pushed(feed):
        head, _, body = raw.partition(b"\r\n\r\n")
        line, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (each.partition(": ") for each in lines)}
        found.append((line.split(" ")[1], headers, body.decode()))
    return found


VARIABLE = '[[variable]]\nname = "v"\n'
SET = '[[set]]\nroute = "{}"\n{} = "{}"\nvalue = "{}"\n'


def test_only_the_named_values_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PW", 'He"l\\lo & é')
    rules = VARIABLE + 'env = "PW"\n' + SET.format("POST /login", "json", "/password", "{v}")
    rules += SET.format("POST /login", "json", "/items/*/id", "x-{v}")
    rules += SET.format("POST /form", "form", "password", "{v}") + SET.format(
        "GET *", "query", "token", "{v}"
    )
    requests = sent(tmp_path, rules)
    login = json.loads(requests[0][2])
    assert login == {**json.loads(LOGIN), "password": 'He"l\\lo & é', "items": [{"id": 'x-He"l\\lo & é'}] * 2}
    assert requests[0][1]["content-type"] == "application/json"
    assert parse_qs(requests[1][2]) == {"a": ["1"], "password": ['He"l\\lo & é'], "b": ["2"]}
    path, _, query = requests[2][0].partition("?")
    assert path == "/users/ann/orders" and parse_qs(query) == {"page": ["1"], "token": ['He"l\\lo & é']}
    assert requests[3][0] == "/users/bob/orders" and requests[4][2] == '{"other": true}'
    for _, headers, body in requests:
        assert int(headers.get("content-length", 0)) == len(body.encode())


@pytest.mark.parametrize("generate", ["email", "uuid", "word", "like"])
def test_a_value_by_value_is_one_for_each_recorded_value_client_and_run(
    generate: str, tmp_path: Path
) -> None:
    rules = VARIABLE + f'generate = "{generate}"\nby = "value"\neach_run = true\n'
    rules += SET.format("POST /login", "json", "/email", "{v}") + SET.format(
        "POST /form", "form", "password", "{v}"
    )
    rules += '[[set]]\nroute = "GET *"\npath = "/users/{v}/{*}"\n'
    runs = [sent(tmp_path, rules, run_id) for run_id in ("r1", "r1", "r2")]
    assert runs[0] == runs[1]
    first = [json.loads(requests[number][2])["email"] for requests in (runs[0], runs[2]) for number in (0, 5)]
    assert len(set(first)) == 4, "each client and each run has its own"
    paths = [
        target.partition("?")[0] for requests in runs[::2] for target, _, _ in requests if "/users/" in target
    ]
    assert len(set(paths)) == 8 and all(path.endswith("/orders") for path in paths)
    assert runs[0][2][0].endswith("?page=1&token=abc")
    if generate == "like":
        assert re.fullmatch(r"[a-z]{3}@[a-z]\.[a-z]{7}", first[0])


@pytest.mark.parametrize(("generate", "by", "is_number"), [
    ("uuid", "client", False), ("email", "value", False), ("word", "value", False), ("uuid", "request", False),
    ("like", "value", True),
])  # fmt: skip
def test_a_generated_value_in_place_of_a_number_leaves_the_body_json(
    generate, by, is_number, tmp_path
) -> None:
    rules = (
        VARIABLE + f'generate = "{generate}"\nby = "{by}"\n' + SET.format("POST /login", "json", "/n", "{v}")
    )
    found = [json.loads(body)["n"] for _, _, body in sent(tmp_path, rules) if '"n"' in body]
    assert len(found) == 2
    assert all(isinstance(number, int if is_number else str) and number != 12 for number in found)


@pytest.mark.parametrize("recorded", ["-12", "-1.5", "10", "0"])
def test_a_number_like_a_recorded_one_never_begins_with_0(recorded: str, tmp_path: Path) -> None:
    body = f'{{"n": {recorded}}}'.encode()
    with TraceWriter(tmp_path / "t.trace") as writer:
        number = writer.add_request("POST", b"/login", None, headers=JSON, body=body)
        writer.add_events(
            START_NS + np.arange(200), np.full(200, number, np.uint32), np.arange(200, dtype=np.uint32),
            np.full(200, 200, np.int16), np.full(200, -1),
        )  # fmt: skip
    rules = VARIABLE + 'generate = "like"\nby = "value"\n' + SET.format("POST /login", "json", "/n", "{v}")
    found = [json.loads(body)["n"] for _, _, body in sent(tmp_path, rules)]
    assert len(set(found)) > 5 and all((number < 0) == recorded.startswith("-") for number in found)


def test_a_header_is_set_where_it_was_recorded(tmp_path: Path) -> None:
    rule = '[[set]]\nroute = "*"\nheader = "authorization"\nvalue = "Bearer y"\nwhen_recorded = true\n'
    requests = sent(tmp_path, rule)
    assert [headers.get("authorization") for _, headers, _ in requests[:5]] == [
        None,
        None,
        None,
        "Bearer y",
        None,
    ]


@pytest.mark.parametrize(("rules", "said"), [
    (SET.format("POST /login", "json", "/emial", "x"), "no recorded request of POST /login has '/emial'"),
    (SET.format("POST /login", "json", "email", "x"), "'email' is not a JSON Pointer"),
    ('[[set]]\nroute = "*"\njson = "/a"\n', "a json needs a value"),
    ('[[set]]\nroute = "*"\npath = "/a"\nvalue = "b"\n', "a path has no value"),
    ('[[set]]\nroute = "*"\nquery = "a"\nform = "b"\nvalue = "c"\n', "cannot be combined"),
    (SET.format("*", "header", "X-A", "{v}") + VARIABLE + 'generate = "like"\nby = "value"\n', "no recorded value"),
    (VARIABLE + 'generate = "like"\n', 'give by = "value"'), (VARIABLE + 'env = "A-B"\n', "not the name"),
    (VARIABLE + 'env = "A"\neach_run = true\n', "generated values only"), (VARIABLE, "give one of file, generate or env"),
    (
        SET.format("POST /login", "json", "/email", "x") + '[[body]]\nroute = "POST /login"\ntemplate = "y"\n',
        "body[0] replaces the recorded body",
    ),
    (VARIABLE + 'env = "UNSET_A"\n[[variable]]\nname = "w"\nenv = "UNSET_B"\n', "v (UNSET_A), w (UNSET_B)"),
])  # fmt: skip
def test_rules_that_cannot_hold_are_refused_by_name(rules: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        sent(tmp_path, rules)
    assert said in f"{caught.value} {caught.value.hint}"
