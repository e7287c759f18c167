"""The charts of the rehearsal's page: both sides in one, each drawn once."""

from __future__ import annotations

import json
import re

from replay.rehearsal.page import beside
from replay.rehearsal.scene import scene_of
from replay.report.html import Figure, page_and_policy, small
from replay.results.timeline import Second


def second(t_s: float, queue: float | None) -> Second:
    return Second(
        t_s=t_s, length_s=1.0, wall_ns=0, planned=30, sent=30, ok=30, error=0, timeout=0, unsent=0, in_flight=0,
        waiting=0, open=1, bytes_sent=0, bytes_received=0, watched={"auth.queue": queue},
    )  # fmt: skip


def queue_of(row: Second) -> float | None:
    return row.watched.get("auth.queue")


def test_a_chart_has_both_sides_at_their_own_seconds() -> None:
    before = [second(at + 0.004, float(at)) for at in range(5)]
    after = [second(at + 0.0213, None if at == 1 else 2.0 * at) for at in range(3)]
    chart = beside([before, after], queue_of, "number", scene_of("monday"))
    assert chart is not None
    data = json.loads(chart.data())
    assert data["at"] == [0.5, 1.5, 2.5, 3.5, 4.5]
    assert [series["n"] for series in data["s"]] == ["before", "after"]
    assert data["s"][0]["v"] == [0, 1, 2, 3, 4]
    assert (data["s"][1]["at"], data["s"][1]["v"]) == ([0.5, 1.5, 2.5], [0, None, 4])


def test_a_figure_that_neither_side_has_is_named_without_a_chart() -> None:
    rows = [second(0.0, None)]
    assert beside([rows, rows], queue_of, "number", scene_of("monday")) is None
    assert "no value was recorded" in small([Figure("auth.queue", "", None, "no value was recorded")])


def test_small_charts_are_drawn_once_for_screens_and_phones() -> None:
    rows = [second(float(at), float(at % 7)) for at in range(30)]
    charts = [
        Figure(name, "", beside([rows, rows], queue_of, "number", scene_of("monday"))) for name in "abcd"
    ]
    page = page_and_policy("", "", [small(charts)])[0].decode()
    drawings = re.findall(r"<svg[^>]* role=\"img\"[^>]*>", page)
    assert len(drawings) == len(charts)
    assert all('class="single"' in drawing and "display" not in drawing for drawing in drawings)
