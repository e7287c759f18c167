"""Prints a scene on a terminal: the story, the failure in figures, the fix, and both sides next to each other."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from replay import units
from replay.ledger.catalog import GOOD
from replay.report.console import Console
from replay.report.page import Page
from replay.results.measured import FAILED

from .document import SceneResult, SideResult
from .files import SIDES, SceneFiles, surge_flags
from .scene import Promise, Scene
from .words import VERDICTS, rows_beside, seconds_text

if TYPE_CHECKING:
    from replay.engine.sinks import Sink
    from replay.results.deltas import Deltas
    from replay.results.document import RunDocument, Started
    from replay.results.timeline import Second

LINE_EVERY_S = 5
"""How many seconds of a run are combined in a line."""

_STYLES = {"AS_PROMISED": "green", "NOT_AS_PROMISED": "red", "MACHINE_TOO_BUSY": "yellow"}
_SIDE_STYLES = {"FAILED": "red", "PASSED": "green", "INVALID": "yellow"}
_HEADS = (("", ""), ("due", ""), ("good", ""), ("failed", ""), ("p99", ""))


class Ticker:
    """Prints a line for every few seconds of a run: a sink of `replay.engine.sinks`."""

    name = "rehearsal"
    noted = False
    every_total = False

    def __init__(self, page: Page, watch: Sequence[str]) -> None:
        self._page, self._watch = page, watch
        self._seconds: list[Second] = []

    def start(self, started: Started) -> None:
        """Do nothing: no line is printed at the start."""

    def second(self, second: Second, deltas: Deltas) -> None:
        """Collect the figures of a second, and print a line after every LINE_EVERY_S of them."""
        self._seconds.append(second)
        if len(self._seconds) == LINE_EVERY_S:
            self._print()

    def end(self, document: RunDocument) -> None:
        """Print a line for the last seconds."""
        if self._seconds:
            self._print()

    def close(self) -> None:
        """Do nothing: there is nothing to close."""

    def _print(self) -> None:
        rows, self._seconds = self._seconds, []
        length_s = max(sum(row.length_s for row in rows), 1e-9)
        planned = sum(row.planned for row in rows) / length_s
        good = sum(row.outcomes.get(name, 0) for row in rows for name in GOOD) / length_s
        failed = sum(row.outcomes.get(name, 0) for row in rows for name in FAILED) / length_s
        words = f"due {planned:3.0f}/s  good {good:3.0f}/s  failed {failed:3.0f}/s"
        figures = [f"{name} {value:g}" for name in self._watch if (value := _last(rows, name)) is not None]
        self._page.parts(
            [
                (f"{rows[-1].t_s + rows[-1].length_s:4.0f} s  ", "cyan"),
                (f"{words}  ", "red" if failed > planned / 10 else ""),
                ("  ".join(figures), "dim"),
            ],
            hang=8,
        )


def _last(rows: Sequence[Second], name: str) -> float | None:
    """Return the newest sample of a figure; None if there is none."""
    return next((value for row in reversed(rows) if (value := row.watched.get(name)) is not None), None)


class Narrator:
    """Prints scenes as they are played. With `brief` it prints only titles, verdicts and reasons."""

    def __init__(self, console: Console, scenes: int, *, brief: bool = False) -> None:
        self._page, self._count, self._brief = Page(console), scenes, brief

    def list_scenes(self, scenes: Sequence[Scene]) -> None:
        """Print the scenes with their lengths."""
        rows = [(str(scene.number), scene.name, f"{scene.length_s:.0f} s", scene.title) for scene in scenes]
        self._page.table((("", ""), ("scene", "name"), ("takes", "right"), ("", "text")), rows)
        whole = seconds_text(sum(scene.length_s for scene in scenes))
        self._page.say(f"All of them take about {whole}.", "dim")

    def begins(self, scene: Scene) -> None:
        """Print the title of a scene and, unless `brief`, its story."""
        self._page.title(f"Scene {scene.number} of {self._count}: {scene.title}")
        if not self._brief:
            self._page.say(scene.happened)

    def side_begins(self, scene: Scene, side: str, promise: Promise) -> Sequence[Sink]:
        """Print what is special about a side, and return the sink that prints its seconds.

        If `brief`, print nothing and return no sink.
        """
        if self._brief:
            return ()
        self._page.say()
        name = "Before" if side == SIDES[0] else "The fix"
        self._page.parts([(f"{name}: ", "bold"), (promise.words, "")])
        return (Ticker(self._page, scene.watch),)

    def side_ended(self, scene: Scene, side: str, result: SideResult) -> None:
        """Print the verdict on a side."""
        missed = [f"{each.slo} {each.words}" for each in result.objectives if not each.met]
        is_cut = result.verdict == "FAILED" and not missed and result.recovery != "DID_NOT_RECOVER"
        words = "the run ended early" if is_cut else "; ".join(missed) or "every objective is met"
        recovery = f"; after the surge: {result.recovery}" if result.recovery else ""
        style = _SIDE_STYLES[result.verdict]
        self._page.parts(
            [(f"{side}: ", "bold"), (result.verdict, style), (f": {words}{recovery}", "")], hang=2
        )

    def ended(self, scene: Scene, result: SceneResult, files: SceneFiles) -> None:
        """Print the verdict and its reasons and, unless `brief`, both sides and how to repeat the first."""
        if not self._brief:
            self._page.title("Side by side")
            rows = rows_beside(scene, result)
            self._page.table((("", "name"), ("before", "right"), ("after", "right")), rows)
            self._page.say()
            self._page.say(scene.lesson)
        self._page.say()
        style = _STYLES[result.verdict]
        self._page.parts([(result.verdict, style), (f": {VERDICTS[result.verdict]}", "")], hang=2)
        for reason in result.reasons:
            self._page.say(reason, "dim", indent=2)
        if not self._brief:
            self._commands(scene, files)

    def _commands(self, scene: Scene, files: SceneFiles) -> None:
        self._page.say()
        self._page.say("To repeat the side before the fix, in two terminals:")
        for command in commands(files):
            self._page.say(command, "cyan", indent=2)
        if flags := surge_flags(scene):
            self._page.say("To make the same surge with replay peak, in place of the second command:")
            line = f"replay peak {_quoted(files.base)} {_quoted(files.scenario)} {flags}"
            self._page.say(line, "cyan", indent=2)
        twin = _quoted(files.twin(SIDES[1]))
        self._page.say(f"The fix is in {twin}. Copy the files and change them.", "dim")

    def next_scene(self, scene: Scene) -> None:
        """Print how to play the next scene, or to quit."""
        self._page.say()
        self._page.say(
            f"Enter plays scene {scene.number}: {scene.title} ({scene.length_s:.0f} s); q and Enter quit.",
            "bold",
        )

    def time_left(self, scenes: Sequence[Scene]) -> None:
        """Print how long the remaining scenes take."""
        left = seconds_text(sum(scene.length_s for scene in scenes))
        self._page.say(f"{units.counted(len(scenes), 'scene')} left: about {left}.", "dim")

    def finished(self, results: Sequence[SceneResult], place: str, page: str) -> None:
        """Print the verdicts, and where the results are."""
        self._page.title("Results")
        rows = [(str(each.number), each.name, each.verdict) for each in results]
        self._page.table((("", ""), ("scene", "name"), ("verdict", "text")), rows)
        self._page.facts([("page", page), ("results", place)])


def commands(files: SceneFiles) -> list[str]:
    """Return the two commands that repeat the side before the fix."""
    return [
        f"replay twin run {_quoted(files.twin(SIDES[0]))}",
        f"replay run {_quoted(files.scenario)}",
    ]


def _quoted(path: object) -> str:
    return shlex.quote(str(path))
