"""Names are looked up as the C library does: hosts, candidates by ndots and search, A and AAAA, and who fails how."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import replay.cli
from replay.errors import UsageError
from replay.lane.resolve import Lookups
from replay.names import (
    NameFailure,
    Query,
    Settings,
    lookup,
    read_settings,
)
from replay.names.cost import ROUNDS, cost_of
from replay.names.settings import parse_server
from replay.staging.dns_server import Asked, DnsServer

KUBERNETES = """\
# of a pod
nameserver 10.96.0.10
search default.svc.cluster.local svc.cluster.local cluster.local
options ndots:5 timeout:3 attempts:4
"""
CLUSTER = ("default.svc.cluster.local", "svc.cluster.local", "cluster.local")


@pytest.fixture
def server() -> Iterator[DnsServer]:
    with DnsServer() as running:
        yield running


def asking(server: DnsServer, **changes: object) -> Settings:
    settings = Settings(servers=(("127.0.0.1", server.port),), timeout_s=2.0, attempts=1)
    return replace(settings, **changes)  # type: ignore[arg-type]


def names_asked(server: DnsServer) -> list[str]:
    """The names of its questions in order, each once."""
    return list(dict.fromkeys(asked.name for asked in server.asked))


def test_settings_are_those_of_resolv_conf(tmp_path: Path) -> None:
    conf, hosts = tmp_path / "resolv.conf", tmp_path / "hosts"
    conf.write_text(KUBERNETES)
    hosts.write_text("127.0.0.1 localhost # this one\n10.1.2.3\tDB.example db\n::1 localhost\nnonsense x\n")
    found = read_settings(conf=conf, hosts=hosts, environ={})
    assert found == Settings(
        servers=(("10.96.0.10", 53),), search=CLUSTER, ndots=5, timeout_s=3.0, attempts=4,
        hosts={"localhost": ("127.0.0.1", "::1"), "db.example": ("10.1.2.3",), "db": ("10.1.2.3",)},
    )  # fmt: skip


def test_a_resolver_of_ones_own_keeps_search_and_ndots(tmp_path: Path) -> None:
    conf = tmp_path / "resolv.conf"
    conf.write_text(KUBERNETES)
    found = read_settings("127.0.0.1:5353", conf=conf, environ={})
    assert found.servers == (("127.0.0.1", 5353),)
    assert (found.search, found.ndots) == (CLUSTER, 5)


def test_variables_override_the_file(tmp_path: Path) -> None:
    conf = tmp_path / "resolv.conf"
    conf.write_text(KUBERNETES)
    found = read_settings(
        conf=conf, environ={"LOCALDOMAIN": "a.example b.example", "RES_OPTIONS": "ndots:2 use-vc"}
    )
    assert (found.search, found.ndots, found.by_tcp) == (("a.example", "b.example"), 2, True)


def test_without_a_file_the_machine_itself_is_asked(tmp_path: Path) -> None:
    found = read_settings(conf=tmp_path / "none", hosts=tmp_path / "none", environ={"LOCALDOMAIN": ""})
    assert found == Settings(servers=(("127.0.0.1", 53),))


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("10.0.0.53", ("10.0.0.53", 53)),
        ("127.0.0.1:5353", ("127.0.0.1", 5353)),
        ("::1", ("::1", 53)),
        ("[::1]:5353", ("::1", 5353)),
    ],
)
def test_a_server_is_an_address_with_or_without_a_port(text: str, server: tuple[str, int]) -> None:
    assert parse_server(text) == server


@pytest.mark.parametrize("text", ["dns.example", "127.0.0.1:0", "127.0.0.1:x", "", "127.0.0.1:99999"])
def test_what_is_no_server_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a name server"):
        parse_server(text)


@pytest.mark.parametrize(
    ("name", "ndots", "expected"),
    [
        ("db", 1, ["db.a.", "db.b.", "db."]),
        ("db.x", 1, ["db.x.", "db.x.a.", "db.x.b."]),
        ("db.x", 5, ["db.x.a.", "db.x.b.", "db.x."]),
        ("db.x.", 5, ["db.x."]),
        ("1.2.3.4.5.x", 5, ["1.2.3.4.5.x.", "1.2.3.4.5.x.a.", "1.2.3.4.5.x.b."]),
    ],
)
def test_candidates(name: str, ndots: int, expected: list[str]) -> None:
    candidates = Settings(search=("a", "b"), ndots=ndots).candidates(name)
    assert [candidate.name for candidate in candidates] == expected


@pytest.mark.parametrize(
    ("name", "ndots", "queries"),
    [("api.shop.example", 1, 2), ("api.shop.example", 5, 8), ("api.shop.example.", 5, 2)],
)
async def test_what_a_name_outside_the_cluster_costs(
    server: DnsServer, name: str, ndots: int, queries: int
) -> None:
    server.set("api.shop.example", "127.0.0.2")
    found = await lookup(name, asking(server, search=CLUSTER, ndots=ndots))
    assert found.addresses == ("127.0.0.2",)
    assert found.found == "api.shop.example."
    assert len(server.asked) == queries
    assert server.count(kind="A") == server.count(kind="AAAA") == queries // 2
    searched = [f"api.shop.example.{domain}." for domain in CLUSTER] if queries == 8 else []
    assert names_asked(server) == [*searched, "api.shop.example."]


async def test_a_short_name_ends_at_the_first_domain_that_has_it(server: DnsServer) -> None:
    server.set("db.svc.cluster.local", "127.0.0.5")
    found = await lookup("db", asking(server, search=CLUSTER, ndots=5))
    assert found.found == "db.svc.cluster.local."
    assert names_asked(server) == ["db.default.svc.cluster.local.", "db.svc.cluster.local."]


async def test_both_kinds_are_used_with_the_shortest_ttl(server: DnsServer) -> None:
    server.set("backend.example", "127.0.0.2", "127.0.0.3", "::1", ttl_s=30)
    server.alias("www.example", "backend.example", ttl_s=7)
    seen: list[Query] = []
    found = await lookup("www.example", asking(server), seen.append)
    assert sorted(found.addresses) == ["127.0.0.2", "127.0.0.3", "::1"]
    assert found.addresses[-1] == "::1"
    assert found.ttl_s == 7
    assert sorted((query.kind, query.answer, len(query.addresses)) for query in seen) == [
        ("A", "NOERROR", 2),
        ("AAAA", "NOERROR", 1),
    ]
    assert all(query.took_ns > 0 for query in seen)


async def test_one_kind_is_enough(server: DnsServer) -> None:
    server.set("six.example", "::1")
    assert (await lookup("six.example", asking(server))).addresses == ("::1",)


async def test_an_answer_that_does_not_fit_comes_by_tcp(server: DnsServer) -> None:
    many = [f"127.0.1.{n}" for n in range(1, 101)]
    server.set("many.example", *many)
    found = await lookup("many.example", asking(server))
    assert sorted(found.addresses) == sorted(many)
    assert Asked("many.example.", "A", by_tcp=True) in server.asked
    lookups, before = Lookups("many.example", server.address), len(server.asked)
    await lookups.one()
    # Both record types are queried again over TCP, three times, until glibc's doubled buffer holds a hundred addresses.
    assert lookups.queries == len(server.asked) - before == 3 * (2 + 2)
    written, _ = await cost_of("many.example", asking(server))
    assert written.sent == 12


async def test_use_vc_asks_by_tcp_alone(server: DnsServer) -> None:
    server.set("a.example", "127.0.0.2")
    await lookup("a.example", asking(server, by_tcp=True))
    assert all(asked.by_tcp for asked in server.asked)
    queries: list[Query] = []
    await lookup("a.example", asking(server, by_tcp=True), queries.append)
    assert [query.by_tcp for query in queries] == [True, True]


async def test_hosts_and_addresses_ask_nobody(server: DnsServer) -> None:
    settings = asking(server, hosts={"db": ("10.9.8.7", "::1")})
    assert (await lookup("DB", settings)).addresses == ("10.9.8.7", "::1")
    assert (await lookup("127.0.0.9", settings)).source == "literal"
    assert (await lookup("::1", settings)).addresses == ("::1",)
    assert (await lookup("a.localhost", settings)).addresses == ("127.0.0.1", "::1")
    with pytest.raises(NameFailure):
        await lookup("nothing.invalid", settings)
    assert server.asked == []


async def test_the_next_server_is_asked_where_one_fails(server: DnsServer) -> None:
    server.set("a.example", "127.0.0.2")
    with DnsServer() as broken:
        broken.fail("a.example", "SERVFAIL")
        servers = (("127.0.0.1", broken.port), ("127.0.0.1", server.port))
        found = await lookup("a.example", asking(server, servers=servers))
        assert found.addresses == ("127.0.0.2",)
        assert len(broken.asked) == len(server.asked) == 2


async def test_a_datagram_that_is_lost_is_sent_again(server: DnsServer) -> None:
    server.set("a.example", "127.0.0.2")
    server.silent = True
    seen: list[Query] = []

    def speak_at_last(query: Query) -> None:
        seen.append(query)
        server.silent = len(seen) < 2

    found = await lookup("a.example", asking(server, attempts=3), speak_at_last)
    assert found.addresses == ("127.0.0.2",)
    assert [query.answer for query in seen] == ["timeout", "timeout", "NOERROR", "NOERROR"]


async def failure(name: str, settings: Settings) -> NameFailure:
    with pytest.raises(NameFailure) as caught:
        await lookup(name, settings)
    return caught.value


async def test_failures_are_told_apart(server: DnsServer) -> None:
    server.set("empty.example")
    for how in ("SERVFAIL", "REFUSED", "silence", "garbage"):
        server.fail(f"{how}.example", how)
    settings = asking(server, attempts=2)
    expected = {
        "none.example": ("NXDOMAIN", "no such name"),
        "empty.example": ("NODATA", "no A or AAAA record"),
        "SERVFAIL.example": ("SERVFAIL", "failed to look it up"),
        "REFUSED.example": ("REFUSED", "refused to answer"),
        "silence.example": ("timeout", "no answer from the name server"),
        "x" * 64 + ".example": ("not a name", "63 bytes"),
    }
    for name, (why, words) in expected.items():
        found = await failure(name, settings)
        assert (found.why, words in str(found)) == (why, True), str(found)
        assert found.hint
    assert (await failure("garbage.example", settings)).why in ("malformed", "timeout")
    assert str(server.port) in str(await failure("silence.example", settings))


async def test_a_server_that_is_not_there_is_known_at_once() -> None:
    with DnsServer() as gone:
        settings = asking(gone, timeout_s=5.0, attempts=2)
    begin = time.monotonic()
    assert (await failure("a.example", settings)).why == "unreachable"
    assert time.monotonic() - begin < 4


async def test_the_search_goes_on_after_servfail_and_after_silence_the_name_as_it_is_comes_next(
    server: DnsServer,
) -> None:
    server.fail("a.one", "SERVFAIL")
    server.fail("a.two", "silence")
    server.set("a.three", "127.0.0.2")
    assert (await lookup("a", asking(server, search=("one", "three"), ndots=2))).found == "a.three."
    found = await failure("a", asking(server, search=("two", "three"), ndots=2))
    assert (found.why, found.asked) == ("timeout", ("a.two.", "a."))


async def test_a_trailing_dot_saves_the_search(server: DnsServer) -> None:
    server.set("api.shop.example", "127.0.0.2", ttl_s=30)
    written, full = await cost_of("api.shop.example", asking(server, search=CLUSTER, ndots=5))
    assert (len(written.queries), len(full.queries), full.name) == (8, 2, "api.shop.example.")
    assert len(server.asked) == 8 + ROUNDS * (8 + 2)


async def test_a_short_name_is_compared_with_its_full_one(server: DnsServer) -> None:
    server.set("db.svc.cluster.local", "127.0.0.5")
    written, full = await cost_of("db", asking(server, search=CLUSTER, ndots=5))
    assert (len(written.queries), len(full.queries), full.name) == (4, 2, "db.svc.cluster.local.")


def doctor(server: DnsServer, name: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv("LOCALDOMAIN", " ".join(CLUSTER))
    monkeypatch.setenv("RES_OPTIONS", "ndots:5 timeout:1 attempts:1")
    return replay.cli.invoke(["doctor", name, "--resolver", server.address])


@pytest.mark.parametrize("name", ["api.shop.example", "http://api.shop.example:8080/v1"])
def test_doctor_shows_what_a_name_costs(
    server: DnsServer, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server.set("api.shop.example", "127.0.0.2", ttl_s=30)
    assert doctor(server, name, monkeypatch) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "api.shop.example.default.svc.cluster.local. A NXDOMAIN" in said
    assert "127.0.0.2, for 30 s (TTL) 8 queries," in said
    assert "with a trailing dot, api.shop.example. takes 2 queries" in said
    assert "6 of 8 queries are saved" in said
    assert "options ndots:2" in said


def test_doctor_shows_what_was_asked_in_vain(
    server: DnsServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert doctor(server, "none.example", monkeypatch) == 2
    said = capsys.readouterr()
    assert said.out.count("NXDOMAIN") == 8
    assert said.err.startswith("replay: none.example has no address: there is no such name")
    assert doctor(server, "http://", monkeypatch) == 2
