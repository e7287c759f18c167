"""Names in a twin: how many queries a lookup needs, what a cache spares, and what the quota answers. Over real sockets."""

from __future__ import annotations

from typing import Any

import dns.message
import dns.query
import dns.rcode
import pytest
import trio

from replay.staging.twin.resolving import QuotaServer
from replay.staging.twin.spec import Dns
from replay.units import SECOND_NS
from tests.support.twins import Served, served

FAMILIES = 2
"""A and AAAA."""


def twin_with(dns: dict[str, Any], calls: dict[str, Any] | None = None) -> dict[str, Any]:
    """A front whose every request calls the back over a new connection."""
    call = {"keep_alive": False, "timeout": "30s", **(calls or {})}
    return {
        "dns": dns,
        "services": {
            "front": {"routes": {"all": {"calls": ["back"]}}, "calls": {"back": call}},
            "back": {"routes": {"all": {}}},
        },
    }


def play(document: dict[str, Any], requests: int) -> tuple[list[int], dict[str, int]]:
    """The statuses of requests, one after another, and the counters of names."""
    statuses: list[int] = []
    totals: dict[str, int] = {}

    async def main() -> None:
        async with served(document) as twin:
            statuses.extend([await twin.get() for _ in range(requests)])
            totals.update(_totals(twin))

    trio.run(main)
    return statuses, totals


def _totals(twin: Served) -> dict[str, int]:
    names = ("front.lookups", "front.lookup_hits", "front.lookup_failures", "dns.queries", "dns.refused")
    return {name: twin.total(name) for name in names}


SEARCH = ["a.internal", "b.internal", "c.internal", "twin.internal"]


@pytest.mark.parametrize(
    ("given", "candidates"),
    [
        # back + each of the search list: the last one has it.
        ({"names": "short", "ndots": 5, "search": SEARCH}, 4),
        ({"names": "short", "ndots": 5, "search": SEARCH[::-1]}, 1),
        ({"names": "short", "ndots": 5, "search": SEARCH[2:]}, 2),
        # back.twin.internal has 2 dots: below ndots it is asked as it is only after the whole search list.
        ({"names": "relative", "ndots": 5, "search": SEARCH}, 5),
        ({"names": "relative", "ndots": 3, "search": SEARCH}, 5),
        ({"names": "relative", "ndots": 2, "search": SEARCH}, 1),
        ({"names": "relative", "ndots": 5, "search": []}, 1),
        # The final dot ends the search.
        ({"names": "absolute", "ndots": 5, "search": SEARCH}, 1),
    ],
)
def test_a_lookup_asks_each_candidate_for_both_families(given: dict[str, Any], candidates: int) -> None:
    statuses, totals = play(twin_with(given), 3)
    assert statuses == [200] * 3
    assert totals["front.lookups"] == 3
    assert totals["dns.queries"] == 3 * candidates * FAMILIES


def test_a_kept_answer_and_a_kept_connection_need_no_query() -> None:
    _, totals = play(twin_with({"names": "absolute", "cache": "1h"}), 20)
    assert (totals["front.lookups"], totals["front.lookup_hits"]) == (1, 19)
    assert totals["dns.queries"] == FAMILIES
    _, totals = play(twin_with({"names": "absolute"}, {"keep_alive": True}), 20)
    assert totals["dns.queries"] == FAMILIES


def test_calls_fail_once_the_quota_is_spent() -> None:
    # The quota is that of 5 lookups. Twenty take well over a second only on a machine that stands still.
    statuses, totals = play(twin_with({"names": "absolute", "quota": 10, "attempts": 1}), 20)
    assert totals["front.lookup_failures"] == statuses.count(503)
    assert totals["front.lookups"] == 20
    assert totals["dns.queries"] - totals["dns.refused"] >= 10
    assert 200 in statuses


def test_queries_beyond_the_quota_get_servfail() -> None:
    now_ns = 0
    within: list[bool] = []
    with QuotaServer(Dns(quota=30), within.append, lambda: now_ns) as server:
        server.set("auth.twin.internal", "127.0.0.1")

        def codes(count: int) -> list[str]:
            query = dns.message.make_query("auth.twin.internal.", "A")
            replies = [
                dns.query.udp(query, server.host, timeout=30, port=server.port, ignore_unexpected=True)
                for _ in range(count)
            ]
            assert all(reply.question == query.question for reply in replies)
            return [dns.rcode.to_text(reply.rcode()) for reply in replies]

        assert codes(50) == ["NOERROR"] * 30 + ["SERVFAIL"] * 20
        now_ns = SECOND_NS - 1
        assert codes(3) == ["SERVFAIL"] * 3
        now_ns = SECOND_NS
        assert codes(31) == ["NOERROR"] * 30 + ["SERVFAIL"]
    assert (within.count(True), within.count(False)) == (60, 24)
