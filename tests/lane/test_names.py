"""A target's name during a run: followed as its TTL says, lost, moved to where it may not be; figures say so."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

import replay.engine
from replay.engine.sinks import Deltas, Second
from replay.engine.sinks import Sink as EachSecond
from replay.errors import LimitError, TargetError
from replay.lane.contract import Address
from replay.lane.resolve import check_reachable, resolve
from replay.protocols.registry import parse_target
from replay.results.deltas import RunEvent
from replay.results.document import RunDocument
from replay.settings.file import load
from replay.staging.dns_server import DnsServer
from replay.staging.sink import Sink
from tests.engine.test_run import schedule

NAME = "staging.example"
OLD, NEW, OUTSIDE = "127.0.0.2", "127.0.0.3", "10.255.0.1"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[DnsServer]:
    monkeypatch.setenv("RES_OPTIONS", "timeout:1 attempts:1")
    monkeypatch.setenv("LOCALDOMAIN", "")
    with DnsServer() as running:
        running.set(NAME, OLD, ttl_s=1)
        yield running


@pytest.fixture
def sinks() -> Iterator[tuple[Sink, Sink]]:
    with Sink(host=OLD, capacity=2_000) as first, Sink(host=NEW, port=first.port, capacity=2_000) as second:
        yield first, second


class Events(EachSecond):
    """A sink that keeps the events of a run."""

    def __init__(self) -> None:
        self.kept: list[RunEvent] = []

    def second(self, second: Second, deltas: Deltas) -> None:
        self.kept += deltas.events


async def run(
    folder: Path, server: DnsServer, port: int, during: Callable[[], Awaitable[None]], events: Events | None = None,
    **settings: Any,
) -> RunDocument:  # fmt: skip
    """Three seconds at 100/s; `during` begins with the run."""
    planned, scenario = schedule(
        folder, port, rows=300, **{"target": f"http://{NAME}:{port}", "resolver": server.address, **settings}
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(during)
        return await replay.engine.run(planned, scenario, folder / "run", sinks=[events] if events else [])


def balanced(document: RunDocument) -> None:
    accounts = document.accounts
    assert accounts.planned == accounts.sent + accounts.unsent
    assert sum(row.requests for row in document.addresses) == accounts.sent


@pytest.mark.whole
@pytest.mark.parametrize("engine", ["native", "portable"])
async def test_traffic_follows_a_name_that_moves(
    server: DnsServer, sinks: tuple[Sink, Sink], tmp_path: Path, engine: str
) -> None:
    async def move() -> None:
        while sinks[0].arrivals < 50:
            await trio.sleep(0.02)
        server.set(NAME, NEW, ttl_s=1)

    events = Events()
    document = await run(tmp_path, server, sinks[0].port, move, events, engine=engine)
    balanced(document)
    assert document.accounts.ok == 300
    assert [(event.kind, event.text) for event in events.kept] == [("address", f"{NAME} is now at {NEW}")]
    assert sinks[0].arrivals >= 50 and sinks[1].arrivals > 0
    assert [(row.address, row.requests, row.removed) for row in document.addresses] == [
        (OLD, sinks[0].arrivals, True),
        (NEW, sinks[1].arrivals, False),
    ]
    assert document.addresses[0].drained == document.addresses[0].connects
    (name,) = document.names
    assert (name.name, name.source, name.ttl_s) == (NAME, "dns", 1)
    (change,) = name.changes
    assert (change.added, change.removed) == ([NEW], [OLD])
    assert name.queries == len(server.asked) == 2 * name.lookups
    assert name.lookups_failed == 0


@pytest.mark.timing
@pytest.mark.whole
@pytest.mark.parametrize(("how", "words"), [("silence", "no answer from"), ("NXDOMAIN", "no such name")])
async def test_a_run_goes_on_without_its_name_and_says_so(
    server: DnsServer, sinks: tuple[Sink, Sink], tmp_path: Path, how: str, words: str
) -> None:
    async def lose() -> None:
        while sinks[0].arrivals < 5:
            await trio.sleep(0.02)
        if how == "silence":
            server.silent = True
        else:
            server.remove(NAME)

    document = await run(tmp_path, server, sinks[0].port, lose)
    balanced(document)
    assert document.accounts.ok == 300 == sinks[0].arrivals
    assert document.names[0].lookups_failed >= 1
    (note,) = [note for note in document.notes if note.code == "NAME_LOST"]
    assert words in note.message and "continued with the addresses it had" in note.message


@pytest.mark.timing
@pytest.mark.whole
async def test_a_lookup_that_the_end_of_a_run_finds_unanswered_is_said(
    server: DnsServer, sinks: tuple[Sink, Sink], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RES_OPTIONS", "timeout:30 attempts:1")

    async def fall_silent() -> None:
        while sinks[0].arrivals < 5:
            await trio.sleep(0.02)
        server.silent = True

    document = await run(tmp_path, server, sinks[0].port, fall_silent)
    (name,) = document.names
    assert (name.lookups, name.lookups_failed) == (2, 1)
    assert name.queries == len(server.asked) == 4 and name.answers == {"NOERROR": 2, "unanswered": 2}
    assert name.lookup_max_ns < 1_000_000_000
    (note,) = [note for note in document.notes if note.code == "NAME_LOST"]
    assert f"no answer from the name server {server.address} in" in note.message
    assert name.failed_at_s is not None and name.failed_at_s < 2


@pytest.mark.timing
@pytest.mark.whole
async def test_an_address_that_is_not_allowed_is_not_connected_to(
    server: DnsServer, sinks: tuple[Sink, Sink], tmp_path: Path
) -> None:
    async def stray() -> None:
        while sinks[0].arrivals < 5:
            await trio.sleep(0.02)
        server.set(NAME, OLD, OUTSIDE, NEW, ttl_s=1)

    document = await run(tmp_path, server, sinks[0].port, stray)
    balanced(document)
    assert document.accounts.ok == 300 and document.ending.how == "whole"
    assert {row.address for row in document.addresses} == {OLD, NEW}
    (note,) = [note for note in document.notes if note.code == "ADDRESS_NOT_ALLOWED"]
    assert OUTSIDE in note.message
    assert [change.refused for change in document.names[0].changes] == [[OUTSIDE]]


@pytest.mark.whole
async def test_a_run_ends_where_no_allowed_address_is_left(
    server: DnsServer, sinks: tuple[Sink, Sink], tmp_path: Path
) -> None:
    async def leave() -> None:
        while sinks[0].arrivals < 5:
            await trio.sleep(0.02)
        server.set(NAME, OUTSIDE, ttl_s=1)

    document = await run(tmp_path, server, sinks[0].port, leave)
    balanced(document)
    assert document.ending.how == "not_allowed"
    assert OUTSIDE in document.ending.detail and "not allowed" in document.ending.detail
    assert 5 <= document.accounts.ok == sinks[0].arrivals < 300
    assert {row.address for row in document.addresses} == {OLD}


@pytest.mark.whole
async def test_once_is_once(server: DnsServer, sinks: tuple[Sink, Sink], tmp_path: Path) -> None:
    async def nothing() -> None: ...

    document = await run(tmp_path, server, sinks[0].port, nothing, resolve="once", rate="1000/s")
    assert document.accounts.ok == 300
    assert len(server.asked) == 2
    assert [(name.resolve, name.lookups) for name in document.names] == [("once", 1)]


@pytest.mark.whole
@pytest.mark.parametrize("engine", ["native", "portable"])
async def test_each_connection_has_a_lookup_of_its_own(
    server: DnsServer, sinks: tuple[Sink, Sink], tmp_path: Path, engine: str
) -> None:
    async def move_and_fail() -> None:
        while sinks[0].arrivals < 30:
            await trio.sleep(0.01)
        server.set(NAME, NEW, ttl_s=60)
        while sinks[1].arrivals < 30:
            await trio.sleep(0.01)
        server.fail(NAME, "SERVFAIL")

    server.set(NAME, OLD, ttl_s=60)
    document = await run(
        tmp_path,
        server,
        sinks[0].port,
        move_and_fail,
        engine=engine,
        resolve="per-connection",
        path="/sink/close",
    )
    balanced(document)
    assert document.accounts.ok == 300
    assert min(sink.arrivals for sink in sinks) >= 30
    assert [row.requests for row in document.addresses] == [sink.arrivals for sink in sinks]
    assert sum(row.connects for row in document.addresses) == document.connections.opened >= 300
    (name,) = document.names
    assert name.lookups >= document.connections.opened + 1
    assert name.queries == len(server.asked) >= 2 * name.lookups
    assert [(change.added, change.removed) for change in name.changes] == [([NEW], [])]
    assert name.lookups_failed > 0 and "SERVFAIL" in name.failure


@pytest.mark.timing
@pytest.mark.whole
def test_the_command_reports_it_and_exits_by_1(
    server: DnsServer, sinks: tuple[Sink, Sink], tmp_path: Path
) -> None:
    schedule(tmp_path, sinks[0].port, rows=600)

    def wander() -> None:
        for arrivals, addresses in ((20, (OLD, NEW)), (150, (OUTSIDE,))):
            while sinks[0].arrivals + sinks[1].arrivals < arrivals:
                time.sleep(0.01)
            server.set(NAME, *addresses, ttl_s=1)

    words = ["run", "made.trace", "--target", f"http://{NAME}:{sinks[0].port}", "--resolver", server.address]
    mover = threading.Thread(target=wander, daemon=True)
    mover.start()
    done = subprocess.run(
        [sys.executable, "-m", "replay.cli", *words, "-o", "run"], cwd=tmp_path, capture_output=True, text=True,
        timeout=120, check=False, env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    said = " ".join(done.stdout.split())
    assert "stopped: the target moved to an address that is not allowed" in said
    assert f"{NAME} now has no address that is allowed" in said
    assert f"added {NEW}" in said and f"refused {OUTSIDE}" in said
    assert "queries (NOERROR" in said
    assert f"{OLD}:{sinks[0].port}" in said and f"{NEW}:{sinks[0].port}" in said


@pytest.mark.timing
async def test_a_name_that_cannot_be_resolved_says_why(server: DnsServer) -> None:
    server.set("empty.example")
    server.fail("broken.example", "SERVFAIL")
    server.fail("slow.example", "silence")
    for name, words in {
        "none.example": "there is no such name (NXDOMAIN",
        "empty.example": "no A or AAAA record",
        "broken.example": "SERVFAIL",
        "slow.example": "no answer from the name server",
    }.items():
        scenario = load(None, {"target": f"http://{name}:81", "resolver": server.address})
        with pytest.raises(TargetError) as caught:
            await resolve(parse_target(scenario.target), scenario)
        assert f"the target {name} has no address: " in str(caught.value)
        assert words in str(caught.value)
        assert caught.value.hint


async def test_a_name_that_the_system_knows_by_other_means_says_so(
    server: DnsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def known(host: str, port: object) -> list[tuple[object, ...]]:
        return [(2, 1, 6, "", ("10.9.8.7", 0))]

    monkeypatch.setattr(trio.socket, "getaddrinfo", known)
    scenario = load(None, {"target": "http://printer.invalid:81"})
    with pytest.raises(TargetError) as caught:
        await resolve(parse_target(scenario.target), scenario)
    assert "finds 10.9.8.7 for it" in caught.value.hint and "--host printer.invalid" in caught.value.hint


async def test_one_address_outside_is_enough_to_refuse(server: DnsServer) -> None:
    server.set(NAME, OLD, OUTSIDE)
    scenario = load(None, {"target": f"http://{NAME}:81", "resolver": server.address})
    with pytest.raises(LimitError, match=rf"{NAME} \({OUTSIDE}\)"):
        await resolve(parse_target(scenario.target), scenario)


async def test_a_family_that_takes_no_connection_is_left_out(sinks: tuple[Sink, Sink]) -> None:
    port = sinks[0].port
    four, six = (Address(OLD, port), Address(NEW, port)), Address("::1", port, ipv6=True)
    found = await check_reachable((six, *four))
    assert found.addresses == four
    assert len(found.left_out) == 1 and found.left_out[0].startswith("::1 (")


async def test_one_dead_address_of_several_stays(sinks: tuple[Sink, Sink]) -> None:
    both = (Address("127.0.0.4", sinks[0].port), Address(OLD, sinks[0].port))
    assert await check_reachable(both) == (both, ())


async def test_where_none_takes_a_connection_the_run_does_not_begin(sinks: tuple[Sink, Sink]) -> None:
    with pytest.raises(
        TargetError, match=r"127\.0\.0\.4:\d+ does not accept connections: connection refused"
    ):
        await check_reachable((Address("127.0.0.4", sinks[0].port),))
