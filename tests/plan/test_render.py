"""Rendered requests are bytes that a server reads, equal to the twin's, in the very places the feed's law
says.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import h11
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replay.lane.feed import FeedWriter
from replay.plan.schedule import DueBatch, Schedule, make_schedule
from replay.protocols.http1.render import RenderSpec
from replay.protocols.http1.templates import Part, parse_template
from replay.settings.file import load
from replay_native.feed.ring import (
    ENTRY,
    HEAD,
    IDEMPOTENT,
    STATUS_SHIFT,
    WARM_UP,
    Feed,
    LaneShare,
)
from replay_native.ground import shared
from replay_native.http1 import render as kernels
from replay_native.ledger.lane_metrics import Control
from replay_native.templates.text import LITERAL
from tests.reference import naive
from tests.support.http_plan import checked, render_of
from tests.support.trace_data import Row, write_trace

pytestmark = pytest.mark.boundscheck

TEMPLATE = '{"id": "{uuid}", "mail": "{email}", "who": {client}, "no": {n}, "again": {n}, "{other}": {}}'
FOREVER = 1 << 62


def empty_feed(entries: int = 4096, ring: int = 1 << 20) -> FeedWriter:
    """A feed of any size, and its producer."""
    feed = Feed(np.zeros(entries, ENTRY), np.zeros(ring, np.uint8))
    metrics = SimpleNamespace(control=np.zeros(Control.WORDS, np.int64))
    return FeedWriter(SimpleNamespace(metrics=metrics, feed=feed, wake_fd=-1))  # type: ignore[arg-type]


def render(
    schedule: Schedule, spec: RenderSpec, batch: DueBatch, feed: FeedWriter, *, begin: int = 0, lane: int = 0,
    lanes: int = 1, by_client: bool = False, start_ns: int = 0, horizon_ns: int = FOREVER,
) -> int:  # fmt: skip
    share = LaneShare(lane, lanes, by_client, start_ns, schedule.warm_up_ns, horizon_ns)
    table = spec.table()
    return int(
        kernels.render_rows(
            batch.rows, batch.first_seq, begin, share, schedule.requests_table, table, feed.rings
        )
    )


def pushed(feed: FeedWriter) -> list[tuple[np.void, bytes]]:
    """Entries with their bytes, as the lane would find them."""
    size = feed.feed.ring.size
    found = []
    for index in range(int(feed.tails[0])):
        entry = feed.feed.entries[index % feed.feed.entries.size]
        begin = int(entry["offset"]) % size
        found.append((entry, feed.feed.ring[begin : begin + int(entry["length"])].tobytes()))
    return found


def schedule_of(tmp_path: Path, rows: list[Row], text: str = "", **flags: object) -> Schedule:
    path = tmp_path / "s.toml"
    path.write_text(text)
    flags = {"target": "http://127.0.0.1:81/base", "methods": "all", "empty_bodies": True, **flags}
    return checked(make_schedule(write_trace(tmp_path / "t.trace", rows), load(path, flags)))


ROWS = st.builds(
    Row,
    at_ns=st.integers(0, 1000),
    method=st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"]),
    target=st.one_of(
        st.binary(max_size=40),
        st.sampled_from(
            [b"/", b"*", b"", b"/a b", b"/\r\nEvil: 1", b"no/slash", b"/%41?x=y#z", b"/" + b"x" * 300]
        ),
    ),
    client=st.integers(0, 12_345),
    status=st.sampled_from([-1, 200, 304, 404]),
    took_ns=st.just(-1),
    host=st.none(),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(ROWS, min_size=1, max_size=30), numbered=st.booleans(), seed=st.integers(0, 1 << 62),
    lanes=st.integers(1, 3), by_client=st.booleans(),
)  # fmt: skip
def test_requests_and_their_places_are_the_twins(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Row], numbered: bool, seed: int, lanes: int,
    by_client: bool,
) -> None:  # fmt: skip
    text = f"[[body]]\nroute = 'P*'\ntemplate = '{TEMPLATE}'\ncontent_type = 'a/b'\n[headers]\nA = 'ä'\n"
    if not any(row.method in ("POST", "PUT") for row in rows):
        text = "[headers]\nA = 'ä'\n"
    schedule = schedule_of(tmp_path_factory.mktemp("t"), rows, text, seed=seed)
    spec = render_of(schedule).numbered("0123abcd") if numbered else render_of(schedule)
    ordered = sorted(rows, key=lambda row: row.at_ns)
    (batch,) = schedule.batches()
    for lane in range(lanes):
        feed, twin = empty_feed(), empty_feed()
        reached = render(schedule, spec, batch, feed, lane=lane, lanes=lanes, by_client=by_client, start_ns=7)
        assert reached == len(rows)
        for seq, row in enumerate(ordered):
            if (row.client if by_client else seq) % lanes != lane:
                continue
            body = naive.filled(TEMPLATE.encode(), seed, seq, row.client)
            request = naive.rendered(
                row.method, row.target, base_path="/base", headers=spec.headers.decode("latin-1"),
                run_id="0123abcd" if numbered else "", seq=seq, body=body, content_type="a/b",
            )  # fmt: skip
            flags = HEAD * (row.method == "HEAD") | IDEMPOTENT * (row.method not in ("POST", "PATCH"))
            flags |= max(row.status, 0) << STATUS_SHIFT
            due = row.at_ns - ordered[0].at_ns
            route = int(batch.route[seq])
            assert twin.push_nowait(due + 7, seq, request, client=row.client, route=route, flags=flags)
        assert feed.tails.tolist() == twin.tails.tolist()
        for (entry, request), (twin_entry, twin_request) in zip(pushed(feed), pushed(twin), strict=True):
            assert request == twin_request
            assert entry.tolist() == twin_entry.tolist()


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(ROWS, min_size=1, max_size=10), empty=st.booleans())
def test_a_server_reads_one_whole_request_whatever_was_recorded(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Row], empty: bool
) -> None:
    wants_body = not empty and any(row.method in ("POST", "PUT") for row in rows)
    text = f"[[body]]\nroute = 'P*'\ntemplate = '{TEMPLATE}'\n" if wants_body else ""
    schedule = schedule_of(tmp_path_factory.mktemp("t"), rows, text)
    feed = empty_feed()
    (batch,) = schedule.batches()
    render(schedule, render_of(schedule).numbered("ff"), batch, feed)
    for seq, (row, (_, request)) in enumerate(
        zip(sorted(rows, key=lambda r: r.at_ns), pushed(feed), strict=True)
    ):
        server = h11.Connection(h11.SERVER)
        server.receive_data(request)
        head = server.next_event()
        assert isinstance(head, h11.Request)
        assert head.method.decode() == row.method
        assert head.target.startswith(b"*" if row.target == b"*" else b"/base/")
        headers = dict(head.headers)
        assert headers[b"x-replay"] == b"ff-%d" % seq and headers[b"host"] == b"127.0.0.1:81"
        body = b""
        while isinstance(event := server.next_event(), h11.Data):
            body += event.data
        assert isinstance(event, h11.EndOfMessage) and server.trailing_data[0] == b""
        assert bool(body) == (wants_body and row.method in ("POST", "PUT"))


def test_a_request_never_wraps_and_full_rings_make_it_wait(tmp_path: Path) -> None:
    rows = [Row(n, target=b"/" + b"x" * (n * 37 % 211)) for n in range(200)]
    schedule = schedule_of(tmp_path, rows)
    (batch,) = schedule.batches()
    feed, twin = empty_feed(16, 1024), empty_feed(16, 1024)
    requests = [
        naive.rendered("GET", row.target, base_path="/base", headers=render_of(schedule).headers.decode())
        for row in rows
    ]
    at = 0
    while at < len(rows):
        reached = render(schedule, render_of(schedule), batch, feed, begin=at)
        for number in range(at, reached):
            flags = IDEMPOTENT | 200 << STATUS_SHIFT
            assert twin.push_nowait(
                number, number, requests[number], route=int(batch.route[number]), flags=flags
            )
        if reached < len(rows):
            assert not twin.push_nowait(0, reached, requests[reached])
        assert np.array_equal(feed.feed.entries, twin.feed.entries)
        assert np.array_equal(feed.feed.ring, twin.feed.ring)
        assert feed.tails.tolist() == twin.tails.tolist()
        at = reached
        for writer in (feed, twin):
            shared.write_word(writer.control, Control.FEED_HEAD, int(feed.tails[0]))
            shared.write_word(writer.control, Control.RING_HEAD, int(feed.tails[1]))


def test_rendering_stops_at_the_horizon_and_at_what_never_fits(tmp_path: Path) -> None:
    schedule = schedule_of(tmp_path, [Row(n * 100, target=b"/" + b"x" * (50 * n)) for n in range(10)])
    (batch,) = schedule.batches()
    assert render(schedule, render_of(schedule), batch, empty_feed(), start_ns=1000, horizon_ns=1350) == 4
    reached = render(schedule, render_of(schedule), batch, empty_feed(64, 256))
    assert reached >= 0
    assert render(schedule, render_of(schedule), batch, empty_feed(64, 256), begin=9) == -10


def test_the_first_moments_are_marked_as_warm_up(tmp_path: Path) -> None:
    schedule = schedule_of(tmp_path, [Row(n * 100) for n in range(10)], warm_up="350ns")
    feed = empty_feed()
    (batch,) = schedule.batches()
    render(schedule, render_of(schedule), batch, feed)
    assert [bool(entry["flags"] & WARM_UP) for entry, _ in pushed(feed)] == [True] * 4 + [False] * 6


def test_a_template_keeps_every_brace_that_is_no_placeholder() -> None:
    parts = parse_template(b'{"a": {n}, "b": "{uuid}{client}", "c": {nn}}')
    literals = [part.text for part in parts if part.kind == LITERAL]
    assert literals == [b'{"a": ', b', "b": "', b'", "c": {nn}}']
    assert parse_template(b"{n}", fill=False) == (Part(LITERAL, b"{n}"),)


def test_bodies_of_one_seed_are_the_same_again_and_of_no_two_requests_alike(tmp_path: Path) -> None:
    rows = [Row(n, "POST", b"/u") for n in range(500)]
    text = "[[body]]\nroute = 'POST /u'\ntemplate = '{uuid} {email}'"
    bodies = []
    for number, seed in enumerate((1, 1, 2)):
        folder = tmp_path / str(number)
        folder.mkdir()
        schedule = schedule_of(folder, rows, text, seed=seed)
        feed = empty_feed()
        (batch,) = schedule.batches()
        render(schedule, render_of(schedule), batch, feed)
        bodies.append([request.rpartition(b"\r\n\r\n")[2] for _, request in pushed(feed)])
    assert bodies[0] == bodies[1]
    assert len(set(bodies[0]) | set(bodies[2])) == 1000
