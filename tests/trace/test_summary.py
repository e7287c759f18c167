"""What `replay inspect` says of a trace: hours by weekday, recorded latencies by route."""

from __future__ import annotations

import datetime as dt
import zoneinfo
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.cli.inspect import as_json, heat_map
from replay.trace.body_summary import summarize_bodies
from replay.trace.summary import summarize
from replay.units import SECOND_NS
from tests.support.trace_data import START_NS, Row, write_trace


def test_hours_are_those_of_the_recordings_own_zone(tmp_path: Path) -> None:
    """Over the end of summer time, where an hour comes twice."""
    zone, begin = zoneinfo.ZoneInfo("Europe/Berlin"), dt.datetime(2024, 10, 26, 20, tzinfo=dt.UTC)
    stamps = [int(begin.timestamp()) + 1_000 * step for step in range(100)]
    rows = [Row(second * SECOND_NS - START_NS) for second in stamps]
    summary = summarize(write_trace(tmp_path / "a.trace", rows, time_zone="Europe/Berlin"))
    local = [dt.datetime.fromtimestamp(second, zone) for second in stamps]
    expected = Counter((moment.weekday(), moment.hour) for moment in local)
    counts = np.array(summary.by_hour)
    assert {(int(day), int(hour)): int(counts[day, hour]) for day, hour in np.argwhere(counts)} == expected


def test_latencies_are_told_by_route_to_a_hundredth(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    slow = (random.gamma(2, 50e6, 1_000)).astype(int).tolist()
    rows = [Row(i, target=b"/slow/%d" % i, took_ns=took) for i, took in enumerate(slow)]
    rows += [Row(2_000 + i, target=b"/quick", took_ns=7_000) for i in range(500)]
    rows += [Row(3_000, target=b"/unknown")]
    trace = write_trace(tmp_path / "a.trace", rows)
    summary = summarize(trace)
    found = dict(zip(trace.requests.routes, summary.took_by_route, strict=True))
    took = found["GET /slow/{id}"]
    assert took is not None
    assert took.count == 1_000
    ordered = sorted(slow)
    assert (took.p50_ns, took.p99_ns) == pytest.approx((ordered[499], ordered[989]), rel=0.01)
    assert found["GET /quick"].p99_ns == pytest.approx(7_000, rel=0.01)  # type: ignore[union-attr]
    assert found["GET /unknown"] is None
    assert b'"recorded"' in as_json(trace, summary, summarize_bodies(trace), {})


@given(st.lists(st.integers(0, 1 << 40), min_size=168, max_size=168))
def test_a_cell_is_blank_only_where_there_is_nothing(counts: list[int]) -> None:
    by_hour = [counts[24 * day : 24 * day + 24] for day in range(7)]
    lines = iter(heat_map(by_hour))
    for hours in by_hour:
        if any(hours):
            cells = next(lines)[4:]
            assert len(cells) == 48
            assert [cell != " " for cell in cells[::2]] == [count > 0 for count in hours]
    assert next(lines, None) is None
    if any(counts):
        assert any("█" in line for line in heat_map(by_hour))
