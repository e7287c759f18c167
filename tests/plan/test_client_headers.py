"""What a request says of its client and of the recording: made-up addresses, chosen recorded headers, renamed hosts."""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import replay.engine
from replay.errors import UsageError
from replay.plan.schedule import Schedule, make_schedule
from replay.protocols.http1.recorded_headers import is_chosen, renamed, rewritten
from replay.settings.file import load
from replay.settings.headers import MANAGED_HEADERS
from replay.settings.kinds import HostNames
from replay.trace import TraceWriter
from tests.support.http_plan import checked, render_of

from .test_render import empty_feed, pushed, render

pytestmark = pytest.mark.boundscheck

Pairs = tuple[tuple[bytes, bytes], ...]
DEFAULTS = {"User-Agent", "Accept"}


class Recorded(NamedTuple):
    """One recorded request."""

    client: int = 0
    host: str | None = None
    headers: Pairs | None = None
    method: str = "GET"


def schedule_of(folder: Path, rows: list[Recorded], **settings: object) -> Schedule:
    with TraceWriter(folder / "t.trace") as writer:
        ids = [writer.add_request(row.method, b"/a", row.host, row.headers) for row in rows]
        at_ns = np.arange(len(rows), dtype=np.int64) * 1_000_000
        clients = np.array([row.client for row in rows], np.uint32)
        writer.add_events(at_ns, np.array(ids, np.uint32), clients)
    assert writer.trace is not None
    return checked(
        make_schedule(
            writer.trace, load(None, {"target": "http://127.0.0.1:81", "methods": "all", **settings})
        )
    )


def sent(schedule: Schedule, *, numbered: bool = False) -> list[Pairs]:
    """The headers of each request, in their order."""
    feed = empty_feed(ring=1 << 22)
    (batch,) = schedule.batches()
    spec = render_of(schedule).numbered("0123abcd") if numbered else render_of(schedule)
    assert render(schedule, spec, batch, feed) == len(batch)
    return [head_of(request) for _, request in pushed(feed)]


def head_of(request: bytes) -> Pairs:
    head, end, _ = request.partition(b"\r\n\r\n")
    assert end
    pairs = [line.partition(b": ") for line in head.split(b"\r\n")[1:]]
    return tuple((name, value) for name, _, value in pairs)


def values(head: Pairs, name: str) -> list[str]:
    return [value.decode("latin-1") for key, value in head if key.decode().lower() == name.lower()]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    clients=st.lists(
        st.one_of(st.integers(0, 1 << 31), st.sampled_from([0, 254, 255, 65_534, 65_535, (1 << 24) - 2])),
        min_size=1, max_size=20,
    ),
    network=st.sampled_from(["10.0.0.0/8", "198.18.0.0/15", "2001:db8::/32"]), numbered=st.booleans(),
)  # fmt: skip
def test_each_client_has_an_address_of_the_range(
    tmp_path_factory: pytest.TempPathFactory, clients: list[int], network: str, numbered: bool
) -> None:
    schedule = schedule_of(
        tmp_path_factory.mktemp("t"), [Recorded(client) for client in clients],
        client_ip_header="X-Forwarded-For", client_ip_range=network,
    )  # fmt: skip
    whole = ipaddress.ip_network(network)
    bits = min(32, whole.max_prefixlen - whole.prefixlen)
    (batch,) = schedule.batches()
    for client, head in zip(batch.client.tolist(), sent(schedule, numbered=numbered), strict=True):
        expected = whole.network_address + ((client + 1) & ((1 << bits) - 1))
        assert values(head, "x-forwarded-for") == [str(expected)]
        assert values(head, "host") == ["127.0.0.1:81"]


def test_a_header_that_another_setting_gives_is_not_also_sent_as_recorded(tmp_path: Path) -> None:
    headers = ((b"X-Client-Ip", b"1.2.3.4"), (b"X-Api-Key", b"recorded"), (b"X-Other", b"kept"))
    (head,) = sent(schedule_of(
        tmp_path, [Recorded(7, headers=headers)], send_headers="all", client_ip_header="X-Client-Ip",
        auth={"command": "token", "header": "x-api-key"},
    ))  # fmt: skip
    assert values(head, "x-client-ip") == ["10.0.0.8"]
    # A command prints the value of this header when the run begins.
    assert values(head, "x-api-key") == []
    assert values(head, "x-other") == ["kept"]


@pytest.mark.parametrize(
    ("network", "value"), [("10.0.0.0/8", "for=10.0.0.8"), ("2001:db8::/32", 'for="[2001:db8::8]"')]
)
def test_the_forwarded_header_has_its_own_form(tmp_path: Path, network: str, value: str) -> None:
    schedule = schedule_of(tmp_path, [Recorded(7)], client_ip_header="Forwarded", client_ip_range=network)
    (head,) = sent(schedule)
    assert values(head, "forwarded") == [value]


AGENT: Pairs = ((b"User-Agent", b"Firefox"), (b"X-Trace", b"1"), (b"Cookie", b"a=b"))


def test_recorded_headers_are_not_sent_unless_asked_for(tmp_path: Path) -> None:
    (head,) = sent(schedule_of(tmp_path, [Recorded(host="www.example", headers=AGENT)]))
    assert [name.decode() for name, _ in head] == ["Host", "User-Agent", "Accept"]
    assert values(head, "user-agent")[0].startswith("replay/")


def test_those_of_the_list_are_sent_as_recorded(tmp_path: Path) -> None:
    rows = [
        Recorded(headers=AGENT),
        Recorded(headers=((b"X-TRACE", b"2"), (b"x-trace", b"3"))),
        Recorded(),
        Recorded(headers=((b"user-agent", b"caf\xe9"), (b"Content-Length", b"9"))),
    ]
    heads = sent(schedule_of(tmp_path, rows, send_headers="User-Agent, x-trace"), numbered=True)
    agents = [values(head, "user-agent") for head in heads]
    assert [agents[0], agents[3]] == [["Firefox"], ["café"]]
    assert all(len(agent) == 1 and agent[0].startswith("replay/") for agent in (agents[1], agents[2]))
    assert [values(head, "x-trace") for head in heads] == [["1"], ["2", "3"], [], []]
    assert [values(head, "x-replay") for head in heads] == [[f"0123abcd-{n}"] for n in range(4)]
    assert not any(values(head, "cookie") or values(head, "content-length") for head in heads)


def test_all_leaves_out_what_says_who_asked(tmp_path: Path) -> None:
    headers: Pairs = (
        *AGENT, (b"Authorization", b"Bearer x"), (b"X-Forwarded-For", b"192.0.2.1"), (b"Host", b"www.example"),
        (b"Connection", b"close"), (b"Content-Type", b"a/b"), (b"Accept-Language", b"de"),
    )  # fmt: skip
    (head,) = sent(schedule_of(tmp_path, [Recorded(host="www.example", headers=headers)], send_headers="all"))
    assert [name.decode().lower() for name, _ in head] == [
        "host", "user-agent", "x-trace", "accept-language", "accept",
    ]  # fmt: skip
    assert values(head, "host") == ["127.0.0.1:81"]
    (tmp_path / "more").mkdir()
    asked = schedule_of(tmp_path / "more", [Recorded(headers=headers)], send_headers="all,cookie")
    assert values(sent(asked)[0], "cookie") == ["a=b"]


def test_a_header_of_the_scenario_comes_before_a_recorded_one(tmp_path: Path) -> None:
    schedule = schedule_of(
        tmp_path, [Recorded(headers=AGENT)], send_headers="user-agent", headers={"User-Agent": "mine"}
    )
    assert values(sent(schedule)[0], "user-agent") == ["mine"]


def test_what_would_break_a_request_is_not_sent(tmp_path: Path) -> None:
    headers: Pairs = ((b"A", b"x\r\nEvil: 1"), (b"B d", b"x"), (b"C", b"\x00"), (b"D", b" ok "))
    (head,) = sent(schedule_of(tmp_path, [Recorded(headers=headers)], send_headers="all"))
    assert {name.decode() for name, _ in head} == {"Host", "User-Agent", "Accept", "D"}
    assert values(head, "d") == ["ok"]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.builds(
            Recorded, client=st.integers(0, 9), host=st.sampled_from([None, "www.example", "api.example:8080"]),
            headers=st.one_of(
                st.none(),
                st.lists(
                    st.tuples(st.sampled_from([b"a", b"B", b"user-agent", b"c"]), st.binary(max_size=20)), min_size=1,
                    max_size=5,
                ).map(tuple),
            ),
            method=st.sampled_from(["GET", "POST"]),
        ),
        min_size=1, max_size=20,
    ),
    lanes_header=st.booleans(),
)  # fmt: skip
def test_requests_of_any_recording_are_the_twins(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Recorded], lanes_header: bool
) -> None:
    schedule = schedule_of(
        tmp_path_factory.mktemp("t"), rows, send_headers=["a", "b"], rewrite_host=["www.example=staging.example"],
        client_ip_header="X-Real-IP" if lanes_header else "", empty_bodies=True,
    )  # fmt: skip
    for row, head in zip(rows, sent(schedule, numbered=True), strict=True):
        recorded = [
            (name, value.strip())
            for name, value in row.headers or ()
            if name.lower() in (b"a", b"b") and all(byte == 9 or 31 < byte != 127 for byte in value)
        ]
        assert [pair for pair in head if pair[0].lower() in (b"a", b"b")] == recorded
        expected = "staging.example" if row.host == "www.example" else "127.0.0.1:81"
        assert (head[0][0], values(head, "host")) == (b"Host", [expected])
        client = str(ipaddress.ip_address("10.0.0.0") + row.client + 1)
        assert values(head, "x-real-ip") == ([client] if lanes_header else [])


NAMES = HostNames(
    [
        ("www.example", "staging.example"),
        ("api.example:8443", "api.staging.example:9443"),
        ("*.shop.example", "*.shop.staging.example"),
        ("[::1]", "six.example"),
    ]
)


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("www.example", "staging.example"),
        ("WWW.Example", "staging.example"),
        ("www.example:8080", "staging.example:8080"),
        ("api.example:8443", "api.staging.example:9443"),
        ("api.example", None),
        ("a.b.shop.example", "a.b.shop.staging.example"),
        ("shop.example", None),
        ("xwww.example", None),
        ("[::1]:80", "six.example:80"),
        ("", None),
    ],
)
def test_hosts_are_renamed(host: str, name: str | None) -> None:
    assert renamed(host.encode(), NAMES) == (name.encode() if name else None)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("https://www.example/a?b=c", "https://staging.example/a?b=c"),
        ("https://www.example", "https://staging.example"),
        ("https://www.example.com/a", "https://www.example.com/a"),
        ("https://u@www.example:8/x, http://a.shop.example", "https://u@staging.example:8/x, http://a.shop.staging.example"),
        ("www.example is no URL", "www.example is no URL"),
    ],
)  # fmt: skip
def test_urls_in_headers_follow(value: str, expected: str) -> None:
    assert rewritten(value.encode(), NAMES) == expected.encode()


def test_a_renamed_host_is_sent_and_others_keep_the_targets(tmp_path: Path) -> None:
    referer: Pairs = ((b"Referer", b"https://www.example/from"), (b"Origin", b"https://www.example"))
    rows = [Recorded(host="www.example", headers=referer), Recorded(host="other.example"), Recorded()]
    names = ["www.example=staging.example"]
    heads = sent(
        schedule_of(tmp_path, rows, rewrite_host=names, send_headers="referer,origin", host="default.example")
    )
    assert [values(head, "host") for head in heads] == [
        ["staging.example"],
        ["default.example"],
        ["default.example"],
    ]
    assert values(heads[0], "referer") == ["https://staging.example/from"]
    assert values(heads[0], "origin") == ["https://staging.example"]
    (tmp_path / "more").mkdir()
    heads = sent(schedule_of(tmp_path / "more", rows, rewrite_host=names, send_headers="host"))
    assert [values(head, "host") for head in heads] == [
        ["staging.example"],
        ["other.example"],
        ["127.0.0.1:81"],
    ]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"send_headers": "bad header,x:"}, "is not a header's name"),
        ({"send_headers": "Content-Length"}, "only replay itself may set"),
        ({"send_headers": "content-type"}, "is always sent with a body"),
        ({"rewrite_host": ["www.example"]}, "is not a pair of hosts"),
        ({"rewrite_host": ["a b=c"]}, "is not a pair of hosts"),
        ({"rewrite_host": ["a.example=*.b.example"]}, "only if OLD does"),
        ({"client_ip_header": "Host"}, "Host cannot be set as a header"),
        ({"client_ip_header": "X-Replay"}, "only replay itself may set"),
        ({"client_ip_header": "A", "headers": {"a": "1"}}, "give it once"),
        ({"client_ip_header": "A", "client_ip_range": "8.0.0.0/8"}, "is unknown"),
        (
            {"cookies": True, "send_headers": "accept,cookie"},
            "send_headers: Cookie is given, although cookies = true",
        ),
        (
            {"cookies": True, "headers": {"cookie": "a=1"}},
            "headers.cookie: Cookie is given, although cookies = true",
        ),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(None, {"target": "http://127.0.0.1:81", **settings})
    assert words in f"{caught.value} {caught.value.hint}"


@pytest.fixture
def server() -> Iterator[tuple[int, list[dict[str, str]]]]:
    """Its port, and the headers of what came."""
    came: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            came.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None: ...

    with Server(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield listening.server_port, came
        listening.shutdown()
        thread.join()


@pytest.mark.whole
@pytest.mark.parametrize("engine", ["native", "portable"])
async def test_a_server_gets_them(
    server: tuple[int, list[dict[str, str]]], tmp_path: Path, engine: str
) -> None:
    port, came = server
    rows = [
        Recorded(
            client,
            "www.example",
            ((b"User-Agent", b"agent-%d" % client), (b"Referer", b"http://www.example/")),
        )
        for client in (0, 1, 2, 1, 0)
    ]
    schedule = schedule_of(
        tmp_path, rows, target=f"http://127.0.0.1:{port}", engine=engine, client_ip_header="X-Forwarded-For",
        send_headers="user-agent,referer", rewrite_host=["www.example=staging.example"],
    )  # fmt: skip
    document = await replay.engine.run(schedule, schedule.scenario, tmp_path / "run")
    assert document.accounts.ok == 5
    came.sort(key=lambda headers: int(headers["x-replay"].rpartition("-")[2]))
    assert [headers["x-forwarded-for"] for headers in came] == [f"10.0.0.{n}" for n in (1, 2, 3, 2, 1)]
    assert [headers["user-agent"] for headers in came] == [f"agent-{n}" for n in (0, 1, 2, 1, 0)]
    assert {(headers["host"], headers["referer"]) for headers in came} == {
        ("staging.example", "http://staging.example/")
    }
    assert [list(names) for names in document.scenario["rewrite_host"]] == [
        ["www.example", "staging.example"]
    ]


@pytest.mark.parametrize(
    "name",
    [
        "Proxy-Connection", "HTTP2-Settings", "Transfer_Encoding", "transfer-encoding", "Content_Length", "Content.Length",
        "Keep_Alive", "Connection", "TE", "Trailer", "Upgrade", "Expect", "X_Replay", "Host", "-Transfer-Encoding-",
        "Sec-WebSocket-Key", "Proxy_Connection",
    ],
)  # fmt: skip
def test_no_header_of_the_recorded_connection_is_sent_in_any_spelling(name: str) -> None:
    for chosen in (["all"], [name.lower()], ["all", name.lower()]):
        assert not is_chosen(name.lower(), chosen, MANAGED_HEADERS)
    assert is_chosen("x-transfer-encoding-note", ["all"], MANAGED_HEADERS)
