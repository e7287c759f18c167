"""Bodies that were recorded are sent as they were, with their content type, unless the scenario gives others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replay.errors import UsageError
from replay.plan.schedule import Schedule, make_schedule
from replay.settings.file import load
from replay.trace import TraceWriter
from tests.reference import naive
from tests.support.http_plan import checked, render_of

from .test_render import empty_feed, pushed, render

pytestmark = pytest.mark.boundscheck

Recorded = tuple[str, bytes | None, bytes | None]

RECORDED = st.tuples(
    st.sampled_from(["GET", "POST", "PUT"]),
    st.one_of(st.none(), st.binary(min_size=1, max_size=300)),
    st.sampled_from([None, b"application/json", b"a/b; c=\xe4", b"bad\r\nEvil: 1"]),
)


def schedule_of(folder: Path, rows: list[Recorded], text: str = "", **flags: object) -> Schedule:
    with TraceWriter(folder / "t.trace") as writer:
        ids = [
            writer.add_request(
                method, b"/a", None, ((b"X", b"y"), (b"content-TYPE", kind)) if kind else None, body
            )
            for method, body, kind in rows
        ]
        number = np.arange(len(rows))
        writer.add_events(number.astype(np.int64), np.array(ids, np.uint32), number.astype(np.uint32))
    (folder / "s.toml").write_text(text)
    assert writer.trace is not None
    flags = {"target": "http://127.0.0.1:81", "methods": "all", **flags}
    return checked(make_schedule(writer.trace, load(folder / "s.toml", flags)))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(RECORDED, min_size=1, max_size=20),
    batch_rows=st.sampled_from([1, 3, 1 << 16]),
    block_bytes=st.sampled_from([1, 64, 1 << 14]),
)
def test_recorded_bodies_are_the_twins(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Recorded], batch_rows: int, block_bytes: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("replay.trace.blob_writer.BLOB_BATCH_ROWS", batch_rows)
        patch.setattr("replay.trace.packed_writer.BLOCK_BYTES", block_bytes)
        schedule = schedule_of(tmp_path_factory.mktemp("t"), rows, empty_bodies=True)
    feed = empty_feed()
    (batch,) = schedule.batches()
    assert render(schedule, render_of(schedule), batch, feed) == len(rows)
    for seq, ((method, body, kind), (_, request)) in enumerate(zip(rows, pushed(feed), strict=True)):
        kind = None if kind and b"\r" in kind else kind
        assert request == naive.rendered(
            method, b"/a", headers=render_of(schedule).headers.decode("latin-1"), seq=seq, body=body,
            content_type=kind.decode("latin-1") if kind else "",
        )  # fmt: skip


def test_a_rule_of_the_scenario_goes_before_what_was_recorded(tmp_path: Path) -> None:
    rule = "[[body]]\nroute = 'POST /a'\ntemplate = 'mine'\n"
    schedule = schedule_of(tmp_path, [("POST", b"recorded", None)], rule)
    feed = empty_feed()
    (batch,) = schedule.batches()
    render(schedule, render_of(schedule), batch, feed)
    assert pushed(feed)[0][1].endswith(b"\r\n\r\nmine")


def test_only_requests_without_a_body_are_refused(tmp_path: Path) -> None:
    schedule_of(tmp_path, [("POST", b"x", None)])
    (tmp_path / "more").mkdir()
    with pytest.raises(UsageError, match="has no bodies for POST /a"):
        schedule_of(tmp_path / "more", [("POST", b"x", None), ("POST", None, None)])
