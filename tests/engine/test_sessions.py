"""Values of a scenario's own in requests: variables, paths, headers, and an auth header that a command prints."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import h11
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from replay.errors import InputError, UsageError
from replay.plan.schedule import Schedule, make_schedule
from replay.protocols.http1 import auth as auths
from replay.protocols.http1.templates import encoded
from replay.settings.file import load
from replay.settings.kinds import size_range
from replay.settings.scenario import Scenario
from replay.settings.session_rules import Auth
from tests.plan.test_render import empty_feed, pushed, render
from tests.reference import naive
from tests.support.http_plan import checked, render_of
from tests.support.trace_data import Row, write_trace

pytestmark = pytest.mark.boundscheck


def read(tmp_path: Path, text: str, **flags: object) -> Scenario:
    path = tmp_path / "s.toml"
    path.write_text(text)
    return load(path, {"target": "http://127.0.0.1:81/base", "methods": "all", "empty_bodies": True, **flags})


def planned(tmp_path: Path, rows: list[Row], text: str, **flags: object) -> Schedule:
    return checked(make_schedule(write_trace(tmp_path / "t.trace", rows), read(tmp_path, text, **flags)))


def sent(schedule: Schedule, auth: bytes = b"") -> list[tuple[h11.Request, bytes]]:
    """The requests as a server reads them, with their bodies."""
    feed = empty_feed()
    (batch,) = schedule.batches()
    render(schedule, render_of(schedule).numbered("run").authorised(auth), batch, feed)
    requests = []
    for _, data in pushed(feed):
        server = h11.Connection(h11.SERVER)
        server.receive_data(data)
        request, body = server.next_event(), b""
        assert isinstance(request, h11.Request)
        while not isinstance(event := server.next_event(), h11.EndOfMessage):
            assert isinstance(event, h11.Data)
            body += event.data
        requests.append((request, body))
    return requests


def header(request: h11.Request, name: str) -> list[str]:
    return [value.decode("latin-1") for key, value in request.headers if key == name.lower().encode()]


ROWS = [Row(n, "GET", b"/users/%d?page=%d" % (n, n), client=n % 3) for n in range(6)]


def test_a_path_takes_the_place_of_the_recorded_one_and_keeps_its_query(tmp_path: Path) -> None:
    text = "[[set]]\nroute = '*'\npath = '/people/{client}/{n}'"
    targets = [request.target.decode() for request, _ in sent(planned(tmp_path, ROWS, text))]
    assert targets == [f"/base/people/{n % 3}/{n}?page={n}" for n in range(6)]


def test_a_path_with_a_query_is_the_whole_target(tmp_path: Path) -> None:
    text = "[[set]]\nroute = '*'\npath = '/people?q={n}'"
    assert sent(planned(tmp_path, ROWS, text))[4][0].target == b"/base/people?q=4"


def test_a_header_is_set_by_route_and_takes_the_place_of_that_of_all(tmp_path: Path) -> None:
    text = (
        "headers = { X-Who = 'all', X-Other = '1' }\n"
        "[[set]]\nroute = 'GET /users/*'\nheader = 'x-who'\nvalue = '{client}:{uuid}'\n"
    )
    rows = [*ROWS, Row(9, "GET", b"/health")]
    requests = sent(planned(tmp_path, rows, text, seed=7))
    assert [header(request, "X-Who") for request, _ in requests[:2]] == [
        [f"0:{naive.uuid_of(7, 0)}"],
        [f"1:{naive.uuid_of(7, 1)}"],
    ]
    assert header(requests[-1][0], "X-Who") == ["all"]
    for seq, (request, _) in enumerate(requests):
        assert header(request, "X-Other") == ["1"]
        assert header(request, "X-Replay") == [f"run-{seq}"]
        assert header(request, "Host") == ["127.0.0.1:81"]


def test_a_rule_may_leave_routes_out_and_a_later_one_wins(tmp_path: Path) -> None:
    text = (
        "[[set]]\nroute = '*'\nwithout = ['GET /health']\nheader = 'X-A'\nvalue = 'first'\n"
        "[[set]]\nroute = 'GET /users/*'\nheader = 'X-A'\nvalue = 'second'\n"
    )
    rows = [Row(0, "GET", b"/users/1"), Row(1, "GET", b"/health"), Row(2, "GET", b"/other")]
    found = [header(request, "X-A") for request, _ in sent(planned(tmp_path, rows, text))]
    assert found == [["second"], [], ["first"]]


def test_a_variable_by_client_is_the_same_at_each_of_its_requests(tmp_path: Path) -> None:
    text = (
        "[[variable]]\nname = 'mail'\ngenerate = 'email'\n"
        "[[variable]]\nname = 'key'\ngenerate = 'uuid'\nby = 'request'\n"
        "[[set]]\nroute = '*'\nheader = 'X-Mail'\nvalue = '{mail}'\n"
        "[[set]]\nroute = '*'\nheader = 'X-Key'\nvalue = '{key}'\n"
    )
    requests = [request for request, _ in sent(planned(tmp_path, ROWS, text))]
    mails = [header(request, "X-Mail")[0] for request in requests]
    assert mails[:3] == mails[3:] and len(set(mails)) == 3
    assert all(mail.endswith("@example.com") for mail in mails)
    assert len({header(request, "X-Key")[0] for request in requests}) == 6


def test_a_variable_of_a_file_goes_through_its_rows(tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text('name,pass word\nann,"a""b\\c"\nbob,ü&=\n')
    text = (
        "[[variable]]\nname = 'name'\nfile = 'users.csv'\n"
        "[[variable]]\nname = 'secret'\nfile = 'users.csv'\ncolumn = 'pass word'\nby = 'request'\n"
        '[[body]]\nroute = \'POST /json\'\ntemplate = \'{"u":"{name}","p":"{secret}"}\'\n'
        "[[body]]\nroute = 'POST /form'\ntemplate = 'u={name}&p={secret}'\n"
        "content_type = 'application/x-www-form-urlencoded'\n"
        "[[set]]\nroute = '*'\npath = '/{name}/{secret}?s={secret}'\n"
    )
    rows = [Row(n, "POST", b"/json" if n < 2 else b"/form", client=n // 2) for n in range(4)]
    requests = sent(planned(tmp_path, rows, text))
    assert [json.loads(body) for _, body in requests[:2]] == [
        {"u": "ann", "p": 'a"b\\c'},
        {"u": "ann", "p": "ü&="},
    ]
    assert [body for _, body in requests[2:]] == [b"u=bob&p=a%22b%5Cc", b"u=bob&p=%C3%BC%26%3D"]
    assert requests[1][0].target == b"/base/ann/%C3%BC%26%3D?s=%C3%BC%26%3D"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("nam\nx\n", "line 1: there is no column 'name' (did you mean 'nam'?)"),
        ("name\n", "holds no rows"),
        ("", "there is no column 'name'"),
        ("a,name\n1\n", "line 2: the column name is missing"),
        ('name\nx\n"a\nb"\n', "holds a control character"),
        (b"name\n\xff\n", "is not a CSV file"),
    ],
)
def test_a_file_that_is_wrong_is_named_with_its_line(tmp_path: Path, content: str | bytes, said: str) -> None:
    data = content if isinstance(content, bytes) else content.encode()
    (tmp_path / "users.csv").write_bytes(data)
    text = "[[variable]]\nname = 'name'\nfile = 'users.csv'\n[[set]]\nroute = '*'\npath = '/{name}'"
    with pytest.raises(InputError) as caught:
        planned(tmp_path, ROWS, text)
    assert said in str(caught.value)


@given(st.binary(max_size=30).filter(lambda value: not any(byte < 32 or byte == 127 for byte in value)))
def test_values_are_written_so_that_they_stay_one_value(value: bytes) -> None:
    text = b'"' + encoded(value, "json") + b'"'
    assert json.loads(text.decode("latin-1")) == value.decode("latin-1")
    from urllib.parse import parse_qs, unquote_to_bytes

    form = encoded(value, "form").decode("ascii")
    assert parse_qs(f"a={form}&b=1", encoding="latin-1", keep_blank_values=True)["a"] == [
        value.decode("latin-1")
    ]
    assert unquote_to_bytes(form) == value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[set]]\nroute='*'\nheader='A'\nvalue='{tokn}'\n[[variable]]\nname='token'\ngenerate='uuid'",
         "line 4: set[0].value: column 1: there is no value 'tokn' (did you mean 'token'?)"),
        ("[[set]]\nroute='*'\npath='users'", "line 3: set[0].path: 'users' is not a path"),
        ("[[set]]\nroute='*'", "line 2: set[0].route: give one of path, header, json, form or query"),
        ("[[set]]\nroute='*'\npath='/'\nheader='A'\nvalue='1'", "set[0].header: it cannot be combined with path"),
        ("[[set]]\nroute='*'\nheader='A'", "line 3: set[0].header: a header needs a value"),
        ("[[set]]\nroute='*'\nheader='Host'\nvalue='1'", "set[0].header: Host cannot be set as a header"),
        ("[[set]]\nroute='*'\nheader='Content-Length'\nvalue='1'", "only replay itself may set Content-Length"),
        ("[[variable]]\nname='n'\ngenerate='uuid'", "line 2: variable[0].name: {n} is a built-in value"),
        ("[[variable]]\nname='a b'\ngenerate='uuid'", "variable[0].name: 'a b' is not a name"),
        ("[[variable]]\nname='a'", "variable[0].name: give one of file, generate or env"),
        ("[[variable]]\nname='a'\ngenerate='ulid'", "line 3: variable[0].generate: 'ulid' is unknown (did you mean uuid?)"),
        ("[[variable]]\nname='a'\ngenerate='uuid'\ncolumn='b'", "variable[0].column: only a file has columns"),
        ("[[variable]]\nname='a'\ngenerate='uuid'\n[[variable]]\nname='a'\ngenerate='uuid'",
         "line 5: variable[1].name: the name 'a' is used twice"),
        ("cookies=true\n[[set]]\nroute='*'\nheader='Cookie'\nvalue='a=1'", "set[0].header: Cookie is given, although"),
        ("[auth]\ncommand='x'\n[headers]\nAuthorization='y'", "auth.header: Authorization is also given in [headers]"),
        ("send_headers='authorization'\n[auth]\ncommand='x'", "auth.header: Authorization is also given in send_headers"),
        (
            "[auth]\ncommand='x'\nheader='X-Who'\n[[set]]\nroute='*'\nheader='x-who'\nvalue='a'",
            "auth.header: X-Who is also given by a [[set]] rule",
        ),
        ("cookies=true\n[auth]\ncommand='x'\nheader='Cookie'", "auth.header: Cookie is also given by cookies = true"),
        (
            "client_ip_header='X-Who'\n[auth]\ncommand='x'\nheader='X-Who'",
            "auth.header: X-Who is also given by client_ip_header",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_rule_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, text)
    assert said in str(caught.value)


def test_a_rule_for_no_route_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"set\[0\]\.route: 'GET /user/\*' is not a route of the recording"):
        planned(tmp_path, ROWS, "[[set]]\nroute = 'GET /user/*'\npath = '/'")


def test_what_a_set_header_holds_is_not_saved(tmp_path: Path) -> None:
    text = "[[set]]\nroute = '*'\nheader = 'X-Key'\nvalue = 'hunter2'\n[auth]\ncommand = 'print hunter2'"
    saved = json.dumps(read(tmp_path, text).saved())
    assert "hunter2" not in saved and "X-Key" in saved


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [("5", 5, 5), (">= 1KiB", 1024, None), ("<10", 0, 9), ("<=10", 0, 10), (">10", 11, None)],
)
def test_a_range_of_sizes(text: str, least: int, most: int | None) -> None:
    low, high = size_range(text)
    assert low == least and (high == most if most is not None else high > 1 << 60)


def script(path: Path, body: str) -> str:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


async def test_the_first_line_that_a_command_prints_is_in_every_request(tmp_path: Path) -> None:
    command = script(tmp_path / "token", "echo tok-$1\necho more")
    line = await auths.header_line(Auth(command=f"{command} '7 8'"))
    assert line == b"Authorization: Bearer tok-7 8\r\n"
    for text in ("", "[[set]]\nroute = '*'\nheader = 'X-A'\nvalue = '1'"):
        (tmp_path / text[:3]).mkdir(exist_ok=True)
        requests = sent(planned(tmp_path / text[:3], ROWS, text), line)
        assert all(header(request, "Authorization") == ["Bearer tok-7 8"] for request, _ in requests)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("echo no luck >&2; exit 3", "ended with exit code 3"),
        ("true", "printed nothing"),
        ("printf 'a\\001b'", "printed characters that a header cannot contain"),
        ("yes", "printed more than 65,536 bytes"),
        ("yes >&2", "printed more than"),
    ],
)
async def test_a_command_that_fails_ends_a_run_before_it_begins(tmp_path: Path, body: str, said: str) -> None:
    command = script(tmp_path / "token", body)
    with pytest.raises((InputError, UsageError), match=said) as caught:
        await auths.header_line(Auth(command=command))
    assert "no luck" not in str(caught.value) and command in caught.value.hint


async def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(InputError, match=r"auth.command: no such file") as caught:
        await auths.header_line(Auth(command="/nowhere/token --secret x"))
    assert "/nowhere/token" in caught.value.hint and "--secret" not in caught.value.hint


async def test_a_header_is_refreshed_and_stays_where_the_command_fails(tmp_path: Path) -> None:
    count = tmp_path / "count"
    command = script(
        tmp_path / "token",
        f"echo x >> {count}; n=$(wc -l < {count}); [ $n -lt 3 ] || {{ echo hunter2 >&2; exit 1; }}; echo $n",
    )
    authoriser = auths.Authoriser(Auth(command=command, refresh_ns=20_000_000))  # type: ignore[arg-type]
    lines = [await authoriser.first()]
    with trio.move_on_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(authoriser.keep_fresh, lines.append)
            while not authoriser.notes():
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    assert lines == [b"Authorization: Bearer 1\r\n", b"Authorization: Bearer 2\r\n"]
    (note,) = authoriser.notes()
    assert note.code == "AUTH_STALE" and "ended with exit code 1" in note.message
    assert "hunter2" not in note.message and command not in note.message
