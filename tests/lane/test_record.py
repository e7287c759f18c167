"""What is recorded of a request, against a twin that keeps them all."""

from __future__ import annotations

from collections import Counter
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replay_native.feed.ring import ENTRY
from replay_native.ledger import lane_metrics, record
from replay_native.ledger.hdr import COUNTERS_2, HALF_2, HALF_3
from replay_native.ledger.lane_metrics import (
    COUNTERS,
    OUTCOMES,
    SAMPLES_KEPT,
    TOTALS,
    C,
    LaneMetrics,
    arena_slots,
)
from tests.reference.record import (
    HIGHEST_NS,
    WARM_UP,
    Book,
    Ended,
    hdr_index,
)

pytestmark = pytest.mark.boundscheck

ROUTES = 3
MAX_WAIT_NS = 10_000_000_000
CLIENT = 9
SLOT_BYTES = 2 * COUNTERS_2 * 4
_names = count()


@st.composite
def requests(draw: st.DrawFn) -> list[Ended]:
    """Requests with stamps in their order, of every outcome."""
    spans = st.sampled_from([0, 1, 999, 1_023, 1_024, 5_000_000, 77_777_777_777, HIGHEST_NS, 2 * HIGHEST_NS])
    found = []
    for seq in range(draw(st.integers(0, 60))):
        outcome = draw(st.sampled_from(OUTCOMES))
        due = draw(st.integers(0, 1 << 40))
        taken = due + draw(spans)
        given: dict[str, Any] = {
            "route": draw(st.integers(0, ROUTES - 1)),
            "seq": seq,
            "due": due,
            "taken": taken,
        }
        given["warm_up"] = draw(st.integers(0, 9)) == 0
        given["own"] = draw(st.sampled_from([0, 1, MAX_WAIT_NS // 4, MAX_WAIT_NS // 4 + 1, HIGHEST_NS]))
        if outcome == "unsent":
            reason = draw(st.sampled_from(["max_wait", "interrupted", "limit", "capture"]))
            found.append(Ended(outcome, reason=reason, **given))
            continue
        attempted = outcome in OUTCOMES[:4] or draw(st.booleans())
        order = draw(spans) if attempted else 0
        sent = taken + order + draw(spans) if attempted else -1
        answered = attempted and (outcome in OUTCOMES[:4] or draw(st.booleans()))
        first_byte = sent + draw(spans) if answered else -1
        done = max(taken, sent, first_byte) + draw(spans)
        fresh = draw(st.booleans())
        given["order"] = order
        given["unread"] = draw(spans)
        found.append(Ended(outcome, sent=sent, first_byte=first_byte, done=done, fresh=fresh, **given))
    return found


def write(metrics: LaneMetrics, one: Ended, closed_loop: bool) -> None:
    """Record one request, by the calls that a lane makes."""
    flags = WARM_UP if one.warm_up else 0
    record.record_taken(metrics, flags, one.taken - one.due, closed_loop)
    if one.outcome == "unsent":
        reason = getattr(C, f"unsent_{one.reason}")
        record.record_net_unsent(metrics, reason, one.route, flags, one.own, MAX_WAIT_NS, MAX_WAIT_NS)
        request = record.Request(flags, one.route, one.seq, CLIENT, one.due, one.taken)
        record.record_unsent(metrics, reason, request, MAX_WAIT_NS)
        return
    record.record_attempt(metrics)
    if one.sent >= 0:
        record.record_sent(metrics, flags, one.sent - one.taken, one.order, one.fresh, closed_loop)
    code = OUTCOMES.index(one.outcome)
    status = 200 + 100 * code if code < 4 else 0
    record.record_net(metrics, flags, one.due, one.sent, one.done, one.own, one.unread, closed_loop)
    request = record.Request(flags, one.route, one.seq, CLIENT, one.due, one.taken)
    ending = record.Ending(code, status, 150, one.sent, one.first_byte, one.done)
    record.record_done(metrics, request, ending, closed_loop)


def counted(counts: np.ndarray) -> dict[int, int]:
    return {int(index): int(counts[index]) for index in np.flatnonzero(counts)}


def expected(values: list[int], half: int) -> dict[int, int]:
    return dict(Counter(hdr_index(value, half) for value in values))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=requests(), closed_loop=st.booleans(), spare_slots=st.integers(0, ROUTES * len(OUTCOMES)))
def test_it_counts_as_the_twin_does(
    tmp_path: Path, rows: list[Ended], closed_loop: bool, spare_slots: int
) -> None:
    arena_bytes = (len(OUTCOMES) + spare_slots) * SLOT_BYTES
    metrics = lane_metrics.create(tmp_path / str(next(_names)), ROUTES, arena_bytes)
    book = Book(arena_slots(ROUTES, arena_bytes), closed_loop, MAX_WAIT_NS)
    if closed_loop:
        rows = [one for one in rows if one.outcome != "unsent"]
    for one in rows:
        write(metrics, one, closed_loop)
        book.ended.append(one)

    for name, value in book.counters().items():
        assert (name, int(metrics.counters[COUNTERS.index(name)])) == (name, value)
    for name, values in book.totals().items():
        assert (name, counted(metrics.totals[TOTALS.index(name)])) == (name, expected(values, HALF_3))
    own = Counter(
        one.route
        for one in rows
        if one.outcome == "unsent" and not one.warm_up
        if one.reason not in ("max_wait", "limit") or 4 * one.own > MAX_WAIT_NS
    )
    assert Counter({route: int(count) for route, count in enumerate(metrics.route_own) if count}) == own
    assert_by_route(metrics, book)
    assert_samples(metrics, book)


def assert_by_route(metrics: LaneMetrics, book: Book) -> None:
    """Every pair has a slot of its own, but those that came late: they share the one of their outcome in
    `other`.
    """
    merged: dict[str, tuple[list[int], list[int]]] = {name: ([], []) for name in OUTCOMES}
    own = set()
    for (route, outcome), histograms in book.by_route().items():
        at = OUTCOMES.index(outcome)
        slot = int(metrics.slots[route, at])
        if slot == at:
            for into, values in zip(merged[outcome], histograms, strict=True):
                into.extend(values)
            continue
        own.add(slot)
        for which, values in enumerate(histograms):
            assert counted(metrics.arena[slot, which]) == expected(values, HALF_2)
    for at, name in enumerate(OUTCOMES):
        for which, values in enumerate(merged[name]):
            assert counted(metrics.arena[at, which]) == expected(values, HALF_2)
    assert own == set(range(len(OUTCOMES), int(metrics.counters[C.slots_used])))
    assert metrics.counters[C.routes_merged] == book.merged()
    found = {
        (int(route), OUTCOMES[at]): int(metrics.route_counts[route, at])
        for route, at in zip(*np.nonzero(metrics.route_counts), strict=True)
    }
    assert found == book.route_counts()


def assert_samples(metrics: LaneMetrics, book: Book) -> None:
    by_seq = {one.seq: one for one in book.measured}
    for route in range(ROUTES):
        failed = metrics.failed[route, : metrics.failed_counts[route]]
        assert failed["seq"].tolist() == book.failed(route)
        slowest = metrics.slowest[route, : metrics.slowest_counts[route]]
        felt = [by_seq[seq].felt(book.closed_loop, book.max_wait) for seq in slowest["seq"].tolist()]
        assert sorted(felt) == book.slowest(route)
        assert len(set(slowest["seq"].tolist())) == slowest.size
        for row in (*failed, *slowest):
            one = by_seq[int(row["seq"])]
            assert (row["route"], row["client"]) == (route, CLIENT)
            assert OUTCOMES[row["outcome"]] == one.outcome
            assert (row["taken_ns"], row["sent_ns"], row["first_byte_ns"]) == (
                one.taken,
                one.sent,
                one.first_byte,
            )
            if not book.closed_loop:
                assert row["due_ns"] == one.due


@st.composite
def together(draw: st.DrawFn) -> list[Ended]:
    """Requests of one route in the order of their due times, which are sent at one moment and end at another."""
    spans = st.sampled_from([0, 1, 500, 1_024, 70_000, 5_000_000, HIGHEST_NS])
    due, rows = draw(st.integers(0, 1 << 40)), []
    for _ in range(draw(st.integers(1, 80))):
        due += draw(spans)
        rows.append((due, draw(st.booleans())))
    sent = due + draw(spans)
    taken = st.sampled_from([due, sent])
    done, outcome = (
        sent + draw(spans),
        draw(st.sampled_from([OUTCOMES[0], OUTCOMES[2], "timeout", OUTCOMES[-2]])),
    )
    route = draw(st.integers(0, ROUTES - 1))
    return [
        Ended(outcome, route, seq, due, draw(taken), sent=sent, done=done, warm_up=warm_up)
        for seq, (due, warm_up) in enumerate(rows)
    ]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=together(), closed_loop=st.booleans(), spare_slots=st.integers(0, 2))
def test_those_that_go_together_count_as_one_by_one(
    tmp_path: Path, rows: list[Ended], closed_loop: bool, spare_slots: int
) -> None:
    arena_bytes = (len(OUTCOMES) + spare_slots) * SLOT_BYTES
    one_by_one, at_once = (
        lane_metrics.create(tmp_path / str(next(_names)), ROUTES, arena_bytes) for _ in range(2)
    )
    code = OUTCOMES.index(rows[0].outcome)
    status = 200 if code == 0 else 0
    entries = np.zeros(len(rows), ENTRY)
    for entry, one in zip(entries, rows, strict=True):
        flags = WARM_UP if one.warm_up else 0
        entry["due_ns"], entry["seq"], entry["client"], entry["route"] = one.due, one.seq, CLIENT, one.route
        entry["taken_ns"], entry["flags"] = one.taken, flags
        record.record_attempt(one_by_one)
        record.record_sent(one_by_one, flags, one.sent - one.taken, 0, False, closed_loop)
        request = record.Request(flags, one.route, one.seq, CLIENT, one.due, one.taken)
        record.record_done(
            one_by_one, request, record.Ending(code, status, 0, one.sent, -1, one.done), closed_loop
        )
    record.record_sent_together(at_once, entries, rows[0].sent, closed_loop)
    record.record_done_together(at_once, code, entries, rows[0].sent, rows[0].done, status, closed_loop)
    for name in LaneMetrics._fields:
        assert np.array_equal(getattr(at_once, name), getattr(one_by_one, name)), name


def test_the_slowest_are_kept_whatever_their_order(tmp_path: Path) -> None:
    for order in (range(100), reversed(range(100)), np.random.default_rng(1).permutation(100)):
        metrics = lane_metrics.create(tmp_path / str(next(_names)), 1)
        for value in map(int, order):
            write(
                metrics,
                Ended("2xx", 0, value, due=0, taken=0, sent=0, first_byte=1, done=1_000 + value),
                False,
            )
        assert sorted(metrics.slowest[0]["seq"].tolist()) == list(range(100 - SAMPLES_KEPT, 100))
        assert metrics.slowest[0, 0]["seq"] == 100 - SAMPLES_KEPT


@given(took=st.lists(st.tuples(st.booleans(), st.integers(0, 1 << 40)), max_size=30))
def test_handshakes_are_counted_apart_by_whether_they_resumed(
    tmp_path_factory: pytest.TempPathFactory, took: list[tuple[bool, int]]
) -> None:
    metrics = lane_metrics.create(tmp_path_factory.mktemp("metrics") / "lane", ROUTES, SLOT_BYTES)
    for resumed, took_ns in took:
        record.record_handshake(metrics, int(resumed), took_ns)
    for name, which in (("full", False), ("resumed", True)):
        values = [took_ns for resumed, took_ns in took if resumed == which]
        assert metrics.counters[COUNTERS.index(f"handshakes_{name}")] == len(values)
        assert counted(metrics.totals[TOTALS.index(f"handshake.{name}")]) == expected(values, HALF_3)
