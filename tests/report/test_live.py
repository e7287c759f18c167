"""The view of a run that goes on: it fits any terminal, names what is slow and what fails, and obeys no name."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

from replay.ledger.histogram import NS_2
from replay.report.console import Console
from replay.report.live import SPARK_SECONDS, LiveView, sparkline
from replay.report.slow_routes import SlowRoutes
from replay.results import hlog
from replay.results.deltas import Deltas, HistogramDelta
from replay.results.timeline import Second
from tests.reference.record import hdr_index
from tests.support.metrics_data import MS, S, at_s, trial

from .test_shown import HOSTILE, obeyed


class Planned:
    """What the view needs of a plan."""

    rows = 100_000
    length_ns = 100 * S


def second(t: int, **more: Any) -> Second:
    row: dict[str, Any] = dict.fromkeys(("error", "timeout", "unsent", "bytes_sent", "bytes_received"), 0)
    row |= {"response_p50_ns": 2 * MS + t, "response_p99_ns": 10 * MS * (t + 1), "lateness_p99_ns": 20_000}
    row |= {"service_p50_ns": 2 * MS, "service_p99_ns": 9 * MS, "in_flight": 17, "waiting": 3, "open": 41}
    return Second(
        **(
            row
            | {"t_s": float(t), "length_s": 1.0, "wall_ns": 0, "planned": 1_000, "sent": 900 + t, "ok": 900}
            | more
        )
    )


def deltas(slowest: dict[str, int]) -> Deltas:
    """What the recorder hands on of routes that had one request each, of so many ns."""
    found = []
    for route, took_ns in slowest.items():
        counts = np.zeros(NS_2.length, np.uint64)
        counts[hdr_index(took_ns, NS_2.half)] = 1
        found.append(HistogramDelta.of(hlog.tag_of("response", route, "2xx"), 0.0, 10.0, counts, NS_2))
    return Deltas(histograms=found)


def view(
    width: int, height: int = 40, seconds: int = 90, slowest: dict[str, int] | None = None, **more: Any
) -> tuple[LiveView, Console, io.StringIO]:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, color_system=None, width=width, height=height)
    made = LiveView(console, Planned())  # type: ignore[arg-type]
    for t in range(seconds):
        made._live = None  # Nothing is rendered until it is requested.
        made._plain_due_s = 1e9
        made.second(second(t, **more), deltas(slowest or {}))
    return made, console, out


def panel(width: int, height: int = 40, **more: Any) -> list[str]:
    made, console, out = view(width, height, **more)
    console.print(made._panel())
    return out.getvalue().splitlines()


@pytest.mark.parametrize("width", [200, 120, 80, 60, 40, 20])
def test_the_panel_fits_and_keeps_what_matters(width):
    slowest = {"POST /v1/payment/orders/of/a/very/long/name/that/goes/on": 317 * MS, HOSTILE: 5 * MS}
    lines = panel(width, slowest=slowest, outcomes={"2xx": 5, "5xx": 3, "reset": 2})
    assert all(len(line) <= width for line in lines)
    text = "\n".join(lines)
    assert not obeyed(text)
    flat = " ".join(text.split())
    for said in (
        "sent",
        "resp p50",
        "resp p99",
        "in flight 17",
        "270 5xx",
        "180 reset",
        "p99 319 ms",
        "900 ms",
    ):
        assert said in flat, (said, flat)


def test_a_small_terminal_gets_the_first_lines(capsys):
    lines = panel(80, height=6, slowest={"GET /a": MS}, outcomes={"5xx": 1})
    assert len(lines) <= 6 and any(line.startswith("resp p99") for line in lines)


def test_sparklines_show_the_last_minute():
    row = next(line for line in panel(200) if line.startswith("resp p99"))
    curve = row.removeprefix("resp p99").rsplit("   ", 1)[0].strip()
    assert len(curve) == SPARK_SECONDS and curve[-1] == "█" and curve[0] < curve[-1]
    assert (
        sparkline([None, 0.0, 5.0, 10.0], 6) == "   ▁▅█"
        and sparkline([1.0], 0) == ""
        and sparkline([], 3) == "   "
    )


def test_a_closed_loop_shows_its_service():
    gone: dict[str, Any] = dict.fromkeys(("response_p50_ns", "response_p99_ns", "lateness_p99_ns"))
    text = "\n".join(panel(80, **gone))
    assert "serv p99" in text and "resp" not in text and "generator lag" not in text


@pytest.mark.parametrize(
    "settings", [{"force_terminal": False}, {"force_terminal": True, "_environ": {"TERM": "dumb"}}]
)
def test_where_no_cursor_moves_a_plain_line_comes_every_few_seconds(settings):
    out = io.StringIO()
    console = Console(file=out, width=80, color_system=None, **settings)
    with LiveView(console, Planned()) as made:  # type: ignore[arg-type]
        for t in range(11):
            made.update(second(t, outcomes={"5xx": 1}))
    lines = out.getvalue().splitlines()
    assert len(lines) == 2 and "\x1b" not in out.getvalue()
    assert "generator lag p99 20.0 µs" in lines[0] and "failed 5 5xx" in lines[0]


def test_a_terminal_that_is_resized_is_drawn_anew():
    out = io.StringIO()
    console = Console(
        file=out, force_terminal=True, color_system=None, width=80, height=40, _environ={"TERM": "xterm"}
    )
    with LiveView(console, Planned()) as made:  # type: ignore[arg-type]
        made.update(second(0))
        console.size = (60, 40)  # type: ignore[assignment]
        out.truncate(0)
        made.update(second(1))
    after = out.getvalue()
    assert "\x1b[2J" in after
    assert all(len(line) <= 60 for line in after.partition("\x1b[2J")[2].splitlines() if "\x1b" not in line)


def test_the_slowest_routes_come_first(tmp_path):
    made, slow = trial(tmp_path / "run"), SlowRoutes("response")
    for at in range(25):
        for route, service_ms in enumerate((2.0, 200.0, 20.0)):
            made.lanes[0].request(route, due_ms=1_000.0 * at, service_ms=service_ms)
        _, found = made.recorder._recorder.tick(at_s(at + 1))
        slow.take(at + 1.0, found)
    assert [route for route, _ in slow.first(5)] == ["POST /v1/users", "GET /a,b c%", "GET /users/{id}"]
    assert slow.first(1)[0][1] == pytest.approx(200 * MS, rel=0.02)
