"""Charts: labels at any range, never on each other; text that only ever is text; the page's weight."""

from __future__ import annotations

import datetime as dt
import itertools
import math
import re
from xml.etree import ElementTree as Xml

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.report.axes import (
    Axis,
    change_label,
    count_axis,
    latency_axis,
    padded,
    time_axis,
    times_label,
)
from replay.report.charts import NARROW, WIDE, Chart, Series
from replay.report.drawing import draw
from replay.report.fit import breaks, shortened
from replay.report.html import Figure, drawn, html_table, write_page
from replay.report.run_page import write_run_page
from replay.report.svg import LINE, number, path, text_width
from replay.results.document import RecordedClock
from replay.results.measured import FAILED
from replay.results.run import load_run
from replay.results.samples import RecordedRow
from tests.support.compare_data import TRACE
from tests.support.metrics_data import at_s, trial

from .test_shown import HOSTILE, obeyed

SVG = "{http://www.w3.org/2000/svg}"
CLOCK = RecordedClock(start_ns=1_600_000_000_123_456_789, speed=60.0, utc_offset_s=7_200)

spans = st.tuples(st.floats(-12, 14), st.floats(1e-4, 12)).map(
    lambda ends: (10 ** ends[0], 10 ** (ends[0] + ends[1]))
)
"""Ranges from a hundredth of a percent to twelve factors of ten, anywhere."""


def texts(svg: str) -> list[tuple[str, float, float, float]]:
    """(words, left, right, baseline) of each text in a picture."""
    found = []
    for node in Xml.fromstring(svg).iter(f"{SVG}text"):
        words = node.text or ""
        width, x = text_width(words), float(node.get("x", "nan"))
        left = {"middle": x - width / 2, "end": x - width}.get(node.get("text-anchor", ""), x)
        found.append((words, left, left + width, float(node.get("y", "nan"))))
    return found


def assert_apart(svg: str) -> None:
    for one, two in itertools.combinations(texts(svg), 2):
        across = min(one[2], two[2]) - max(one[1], two[1])
        assert across <= 0.2 or abs(one[3] - two[3]) >= LINE - 1.1, (one, two)


def axis_labels(svg: str) -> list[str]:
    ticks = next(node for node in Xml.fromstring(svg).iter(f"{SVG}g") if node.get("class") == "ticks")
    return [node.text or "" for node in ticks.iter(f"{SVG}text") if node.get("class") != "title"]


@settings(deadline=None, max_examples=150)
@given(spans, spans, st.sampled_from([WIDE, NARROW]), st.booleans())
def test_axes_are_labelled_at_any_range_and_no_label_lies_on_another(across, up, width, is_log):
    low, high = padded(*across, is_log=True)
    plot = Chart(
        Axis(low, high, "load", is_log=is_log, label=times_label), latency_axis(up[0], up[1], "response")
    )
    plot.line([(low, up[0]), (high, up[1])], "#000", "ascending")
    plot.rule_y(up[0], "#f00", "objective one")
    plot.rule_y(up[0] * 1.0001, "#f00", "objective two")
    svg = draw(plot, width)
    assert_apart(svg)
    labels = axis_labels(svg)
    assert len(labels) >= 2 or text_width(labels[0]) > width / 4, labels
    assert len(set(labels)) == len(labels), "two ticks of one name tell nothing"
    up_labels = [words for words, _, _, _ in texts(svg) if re.fullmatch(r"[\d,.]+ (ns|µs|ms|s|min)", words)]
    assert len(up_labels) >= 2 and len(set(up_labels)) == len(up_labels)


@settings(deadline=None, max_examples=150)
@given(
    st.floats(-3, 8).map(lambda power: 10**power),
    st.one_of(st.none(), st.floats(-6, 6).map(lambda power: 10**power)),
    st.integers(-1_400, 1_400),
    st.sampled_from([WIDE, NARROW]),
)
def test_a_time_axis_is_labelled_in_both_clocks(length_s, speed, offset_min, width):
    clock = None
    if speed is not None and 1e-6 <= length_s * speed < 2e9:
        clock = RecordedClock(start_ns=CLOCK.start_ns, speed=speed, utc_offset_s=60 * offset_min)
    svg = draw(Chart(time_axis(length_s, clock), count_axis(10.0, "requests per second")), width)
    assert_apart(svg)
    labels = axis_labels(svg)
    assert len(labels) >= (2 if clock is None else 4)


def test_a_tick_of_the_recorded_clock_stands_where_that_moment_was_replayed():
    axis = time_axis(30.0, CLOCK)
    tick = next(iter(axis.ticks()))[0]
    recorded_s = CLOCK.start_ns / 1e9 + tick.value * CLOCK.speed
    moment = dt.datetime.fromtimestamp(recorded_s, dt.timezone(dt.timedelta(hours=2)))
    assert moment.strftime("%H:%M") == tick.words[0] or moment.strftime("%H:%M:%S") == tick.words[0]
    assert abs(float(tick.words[1].removesuffix(" s")) - tick.value) < 0.06


@pytest.mark.parametrize(
    ("low", "high"), [(1.0, 1.0), (0.0, 0.0), (5e-324, 5e-324), (1.0, math.nextafter(1.0, 2.0))]
)
def test_a_range_without_length_is_one(low, high):
    for is_log in (True, False):
        start, end = padded(low, high, is_log=is_log)
        axis = Axis(start, end, is_log=is_log)
        assert start < end and len(list(axis.ticks())[-1]) >= 2


def test_changes_are_named_as_changes():
    assert [change_label(ratio, 0.1)[0] for ratio in (0.9, 1.0, 1.2, 2.0, 0.5)] == [
        "-10%",
        "same",
        "+20%",
        "2.0×",
        "0.5×",
    ]


@given(st.lists(st.tuples(st.floats(0, 1e3), st.floats(0, 1e3)), min_size=1, max_size=60))
def test_a_path_goes_where_its_points_are(points):
    """Steps are relative, and their roundings do not add up."""
    steps = re.findall(r"([Ml])(-?[\d.]+)[ ]?(-?[\d.]+)", path(points))
    x = y = 0.0
    for command, a, b in steps:
        x, y = (float(a), float(b)) if command == "M" else (x + float(a), y + float(b))
    assert abs(x - points[-1][0]) < 0.1 and abs(y - points[-1][1]) < 0.1


@given(st.floats(-1e6, 1e6))
def test_a_coordinate_is_short_and_right(value):
    assert abs(float(number(value)) - value) <= 0.0501 and "e" not in number(value)


@given(st.text(max_size=80), st.integers(1, 40))
def test_a_shortened_name_fits_and_keeps_both_ends(words, most):
    from rich.cells import cell_len

    made = shortened(words, most)
    assert cell_len(made) <= max(most, 1)
    if cell_len(words) <= most:
        assert made == words


@given(st.text(alphabet="ab /&,-1", max_size=120), st.integers(3, 30))
def test_a_broken_paragraph_loses_nothing(words, width):
    lines = [words[start:end] for start, end in breaks(words, width)]
    assert all(len(line) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == words.replace(" ", "")


def test_a_name_of_others_is_text_alone(tmp_path):
    plot = Chart(latency_axis(1e3, 1e9, HOSTILE), count_axis(1.0, HOSTILE), label=HOSTILE)
    nasty = f"</script><script>alert(1)</script>{HOSTILE}"
    plot.line([(1e3, 0.0), (1e9, 1.0)], "#000", nasty)
    plot.dots([(1e4, 0.5, nasty)], "#000", nasty)
    plot.rule_y(0.5, "#000", nasty)
    plot.hover.append(Series(nasty, [1e3, 1e9], [1.0, 2.0], "latency"))
    rows = Chart(latency_axis(1e3, 1e9), Axis(-0.6, 0.6, bare=True), height=40, rows=[nasty])
    table = html_table((nasty, '"}</style><script>alert(2)</script>{'), [(nasty, nasty)], nasty)
    write_page(tmp_path / "a.html", "a", "b", [Figure("", "", plot), Figure("", "", rows), table])
    page = (tmp_path / "a.html").read_text()
    assert not obeyed(page) and "<script>alert" not in page and page.count("<script") == 2
    assert page.count("</style>") == 1 and "nth-child(2)::before{content:" in page
    for svg in re.findall(r"<svg xmlns.*?class=.ticks.>.*?</g></svg>", page, re.DOTALL):
        Xml.fromstring(svg)


def test_many_points_are_thinned_and_keep_their_extremes():
    rng = np.random.default_rng(1)
    values = rng.random(20_000)
    values[12_345] = 5.0
    plot = Chart(Axis(0, 20_000), count_axis(5.0, ""))
    plot.line([(float(at), float(value)) for at, value in enumerate(values)], "#000")
    svg = draw(plot)
    assert len(svg) < 60_000
    frame = next(node for node in Xml.fromstring(svg).iter(f"{SVG}svg") if node.get("class") == "plot")
    line = next(frame.iter(f"{SVG}path")).get("d") or ""
    heights = np.cumsum([float(step[2]) for step in re.findall(r"([Ml])(-?[\d.]+)[ ]?(-?[\d.]+)", line)])
    assert heights.min() < 10, "the one high point is drawn"


def test_a_picture_needs_no_style_sheet():
    """Under a policy without style sheets only presentation attributes count: the narrow drawing stays hidden."""
    plot = Chart(latency_axis(1e3, 1e9), count_axis(1.0, "share"))
    plot.line([(1e3, 0.0), (1e9, 1.0)], "#123456", "a")
    section = drawn(Figure("title", "how to read it", plot))
    wide, narrow = re.findall(r"<svg xmlns[^>]*>", section)
    assert 'display="none"' in narrow and "display" not in wide
    assert "style=" not in section and 'stroke="#123456"' in section


def test_a_thousand_dots_are_light():
    plot = Chart(latency_axis(1e3, 1e9), Axis(0, 1))
    plot.dots([(1e3 * 1.01**at, 0.5, "") for at in range(1_000)], "#000", "runs")
    assert len(draw(plot)) < 20_000


def test_the_heaviest_page_of_a_run_is_below_200_kB(tmp_path):
    """Hundreds of routes of long names, an hour of seconds, every kind of failure."""
    routes = [f"GET /{'ségment' * (number % 30)}/{number}/<{{id}}>" for number in range(300)]
    rules = [f"check {'status ' * 40}{number}" for number in range(20)]
    made = trial(tmp_path / "run", routes=routes, trace=TRACE, slo=["p99<100ms", "errors<1%"], rules=rules)
    lane, rng = made.lanes[0], np.random.default_rng(1)
    for second in range(400):
        for at, service_ms in enumerate(rng.lognormal(1, 1.5, 40)):
            outcome = FAILED[at] if at < len(FAILED) and FAILED[at] != "unsent" else "2xx"
            lane.request(
                (second * 40 + at) % 300, outcome, due_ms=second * 1000.0 + at, service_ms=float(service_ms)
            )
        made.recorder.tick(at_s(9.0 * (second + 1)))
    lane.metrics.checked[:300] = [40, 3]
    made.recorder.finish(
        at_s(3_601), lookup=lambda seqs: {seq: RecordedRow(0, "GET", "/x" * 900) for seq in seqs}
    )
    write_run_page(load_run(tmp_path / "run"), tmp_path / "a.html")
    assert (tmp_path / "a.html").stat().st_size < 200_000
