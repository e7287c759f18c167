"""The page of a rehearsal: each scene with its story, and both sides in the same charts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from replay.files import write_whole
from replay.ledger.catalog import GOOD as GOOD_OUTCOMES
from replay.report.axes import count_axis, latency_axis, time_axis
from replay.report.charts import GREEN, GREY, RED, Chart, Series
from replay.report.html import (
    BAD,
    GOOD,
    OPEN,
    Figure,
    Html,
    Section,
    folded,
    html_table,
    page_and_policy,
    small,
    toned,
)
from replay.report.svg import escape
from replay.results.measured import FAILED
from replay.results.timeline import Second
from replay.units import SECOND_NS

from .document import Rehearsal, SceneResult, SideResult
from .files import SIDES, SceneFiles
from .narration import commands
from .playing import run_of
from .scene import Scene
from .words import VERDICTS, rows_beside, saved_text

NAME = "rehearsal.html"
TITLE = "The evening in a box"

_TONES = {"AS_PROMISED": GOOD, "NOT_AS_PROMISED": BAD, "MACHINE_TOO_BUSY": OPEN}
_SIDES = {"FAILED": BAD, "PASSED": GOOD, "INVALID": OPEN, "DID_NOT_RECOVER": BAD, "RECOVERED": GOOD}
_COLOURS = (RED, GREEN)
NOT_RECORDED = "no value was recorded"


Rows = Sequence[Second]
Value = Callable[[Second], float | None]


def write_page(folder: Path, scenes: Sequence[Scene], rehearsal: Rehearsal) -> Path:
    """Write the page of all scenes that were played, and return its path. Raise OutputError if that fails."""
    by_number = {scene.number: scene for scene in scenes}
    sections: list[Section] = [_overview(rehearsal)]
    for result in rehearsal.scenes:
        sections += _scene(folder, by_number[result.number], result)
    page, _ = page_and_policy(f"replay: {TITLE}", f"replay rehearse, seed {rehearsal.seed}", sections)
    write_whole(folder / NAME, page)
    return folder / NAME


def _overview(rehearsal: Rehearsal) -> str:
    kept = sum(result.verdict == "AS_PROMISED" for result in rehearsal.scenes)
    summary = (
        f"{kept} of {len(rehearsal.scenes)} scenes failed before their fix, and kept their promises after it"
    )
    rows = [
        [
            f"{result.number}. {result.title}",
            toned(result.before.verdict, _SIDES[result.before.verdict]),
            toned(result.after.verdict, _SIDES[result.after.verdict]),
            toned(result.verdict, _TONES[result.verdict]),
        ]
        for result in rehearsal.scenes
    ]
    return f"<h1>{escape(TITLE)}</h1><p>{escape(summary)}.</p>" + html_table(
        ("scene", "before", "after", "verdict"), rows, left=True
    )


def _scene(folder: Path, scene: Scene, result: SceneResult) -> Iterator[Section]:
    files = SceneFiles(folder / result.folder)
    head = f"{result.number}. {result.title}"
    yield f"<h1>{escape(head)}</h1>{_paragraphs(scene.happened)}"
    for name, words in (("Before", scene.before.words), ("The fix", scene.after.words)):
        yield f"<p><b>{name}:</b> {escape(words)}</p>"
    yield f"<h2>{toned(result.verdict, _TONES[result.verdict])} {escape(VERDICTS[result.verdict])}</h2>"
    yield "".join(f'<p class="soft">{escape(reason)}</p>' for reason in result.reasons)
    yield _paragraphs(scene.lesson)
    if saved := saved_text(scene, result):
        yield f"<p><b>Saved:</b> {escape(saved)}</p>"
    yield html_table(("", "before", "after"), [_toned_row(row) for row in rows_beside(scene, result)])
    yield _objectives(result)
    yield from _charts(folder, scene, result)
    lines = "<br>".join(f"<code>{escape(command)}</code>" for command in commands(files))
    yield f'<p class="soft">To repeat the side before the fix, in two terminals:</p><p>{lines}</p>'


def _paragraphs(text: str) -> str:
    return "".join(f"<p>{escape(part)}</p>" for part in text.split("\n\n"))


def _toned_row(row: Sequence[str]) -> list[str]:
    name, *cells = row
    return [
        name,
        *(toned(cell, tone) if (tone := _SIDES.get(cell.partition(" ")[0])) else cell for cell in cells),
    ]


def _objectives(result: SceneResult) -> str:
    def cell(side: SideResult, at: int) -> Html:
        found = side.objectives[at]
        return toned(f"{'met' if found.met else 'missed'}: {found.words}", GOOD if found.met else BAD)

    rows = [
        [each.slo, cell(result.before, at), cell(result.after, at)]
        for at, each in enumerate(result.before.objectives)
    ]
    return html_table(("objective", "before", "after"), rows, left=True)


def _charts(folder: Path, scene: Scene, result: SceneResult) -> Iterator[Section]:
    both = [run_of(folder, side).seconds() for side in (result.before, result.after)]
    felt: list[tuple[str, Value, str]] = [
        ("Good responses per second", lambda row: float(_good(row)), "rate"),
        ("Failed requests per second", lambda row: float(_failed(row)), "rate"),
        ("p99 of the response", lambda row: _positive(row.response_p99_ns), "latency"),
    ]
    yield small(
        [Figure(title, "", beside(both, value, unit, scene), NOT_RECORDED) for title, value, unit in felt]
    )
    charts = [
        Figure(name, "", beside(both, _watched(name), "number", scene), NOT_RECORDED) for name in scene.watch
    ]
    yield folded(f"{len(charts)} figures of the twin itself", small(charts))


def _failed(row: Second) -> int:
    return sum(row.outcomes.get(name, 0) for name in FAILED)


def _good(row: Second) -> int:
    return sum(row.outcomes.get(name, 0) for name in GOOD_OUTCOMES)


def _positive(value: int | None) -> float | None:
    return None if value is None else float(max(value, 1))


def _watched(name: str) -> Value:
    return lambda row: row.watched.get(name)


def beside(both: Sequence[Rows], value: Value, unit: str, scene: Scene) -> Chart | None:
    """Return the chart of a figure for both sides over the same seconds; None if neither has a value."""
    # A tenth of a second is about a pixel: more digits would only make the page larger.
    lines = [[(round(row.t_s + row.length_s / 2, 1), value(row)) for row in rows] for rows in both]
    known = [each for line in lines for _, each in line if each is not None]
    ends = [rows[-1].t_s + rows[-1].length_s for rows in both if rows]
    if not known or not ends:
        return None
    up = latency_axis(min(known), max(known), "") if unit == "latency" else count_axis(max(known), "")
    chart = Chart(time_axis(max(ends), None), up, height=180)
    if scene.surge is not None:
        chart.shade(scene.surge.from_ns / SECOND_NS, scene.surge.until_ns / SECOND_NS, GREY, "the surge")
    for name, colour, line in zip(SIDES, _COLOURS, lines, strict=True):
        chart.line(line, colour, name, width=2)
        chart.hover.append(Series(name, [at for at, _ in line], [each for _, each in line], unit, colour))
    return chart
