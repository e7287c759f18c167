"""`replay rehearse`: replays ten failures and their fixes against a twin of a fitness app."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from replay.errors import EngineError, UsageError

from .flags import whole_number
from .options import out_option
from .places import RUNS, keeping, result_folder

if TYPE_CHECKING:
    from replay.rehearsal.document import SceneResult
    from replay.rehearsal.narration import Narrator
    from replay.rehearsal.scene import Scene


@click.command(name="rehearse", short_help="Rehearse ten failures and their fixes against a twin of an app.")
@click.option("--scene", metavar="N", help="Play only this scene, by number or name.")
@click.option("--all", "everything", is_flag=True, help="Play all scenes without asking.")
@click.option(
    "--headless",
    is_flag=True,
    help="For CI: do not ask, and print a few lines per scene; one scene is played unless --all is given.",
)
@click.option("--seed", default="1", metavar="N", show_default=True, help="Seed for the load and the twin.")
@click.option("--list", "only_list", is_flag=True, help="List the scenes, and play none.")
@out_option("Folder for the results [default: runs/rehearsal-TIME].")
@click.option("--plain", is_flag=True, help="No colours.")
def command(
    scene: str | None,
    everything: bool,
    headless: bool,
    seed: str,
    only_list: bool,
    out: Path | None,
    plain: bool,
) -> None:
    """Replay an evening on which the defences of a fitness app failed one after the other, in ten scenes.

    Each scene sends the same load twice to a twin of the app on this machine: first without the fix, then with it.
    Without options, the scenes are listed and the first is played; Enter plays the next.

    Exit codes: 0 each scene failed before its fix and recovered after it, as described, 1 a process of the twin died, 2
    wrong usage, 4 this machine was too busy for a verdict, 99 a scene did not end as described, 130 interrupted.
    """
    from replay.rehearsal.narration import Narrator
    from replay.rehearsal.scene import all_scenes, scene_of

    from .run import report_console_for

    if scene is not None and everything:
        raise UsageError("--scene and --all contradict each other", hint="give one of them")
    number = whole_number(seed, "--seed")
    scenes = all_scenes()
    chosen = [scene_of(scene)] if scene is not None else scenes
    console = report_console_for(plain or headless, quiet=False)
    narrator = Narrator(console, len(scenes), brief=headless)
    if only_list or (scene is None and not headless):
        narrator.list_scenes(scenes)
    if only_list:
        return
    if scene is None and not everything and (headless or not _asks()):
        chosen = chosen[:1]
    with result_folder(out, RUNS, "rehearsal") as folder, keeping(folder):
        played = _Played(folder, number, scenes, narrator)
        asks = scene is None and not everything and len(chosen) > 1
        played.play(chosen, asks=asks)
        raise SystemExit(played.finish())


def _asks() -> bool:
    """Return whether a user is at the terminal to press Enter."""
    return sys.stdin.isatty() and sys.stdout.isatty()


class _Played:
    """Plays scenes into a folder. The results of each scene are saved as soon as it ends."""

    def __init__(self, folder: Path, seed: int, scenes: Sequence[Scene], narrator: Narrator) -> None:
        self._folder, self._seed, self._scenes, self._narrator = folder, seed, scenes, narrator
        self._results: list[SceneResult] = []

    def play(self, chosen: Sequence[Scene], *, asks: bool) -> None:
        """Play scenes. With `asks`, wait for Enter before each one after the first; q stops."""
        from replay.rehearsal.playing import play

        _warm()
        try:
            for at, scene in enumerate(chosen):
                if at and asks and not self._wanted(scene):
                    return
                if at and not asks:
                    self._narrator.time_left(chosen[at:])
                self._results.append(play(scene, self._folder, self._seed, self._narrator))
                self._save()
        finally:
            if not self._results:
                with contextlib.suppress(OSError):
                    self._folder.rmdir()

    def _wanted(self, scene: Scene) -> bool:
        self._narrator.next_scene(scene)
        answer = sys.stdin.readline()
        return bool(answer) and not answer.strip().lower().startswith("q")

    def _save(self) -> None:
        from replay.rehearsal.document import Rehearsal, save
        from replay.rehearsal.page import write_page

        rehearsal = Rehearsal(seed=self._seed, scenes=self._results)
        save(self._folder, rehearsal)
        write_page(self._folder, self._scenes, rehearsal)

    def finish(self) -> int:
        """Print where the results are, and return the exit code."""
        from replay.rehearsal.document import exit_code
        from replay.rehearsal.page import NAME

        if not self._results:
            raise EngineError("no scene was played")
        self._narrator.finished(self._results, str(self._folder), str(self._folder / NAME))
        return exit_code(self._results)


def _warm() -> None:
    """Compile the kernels for load and runs, if necessary."""
    from replay.engine.prepare import kernels_of
    from replay.report.console import Console
    from replay.settings.scenario import Scenario

    from .generate import KERNELS as OF_LOAD
    from .progress import KERNELS, warm_kernels

    of_target = kernels_of(Scenario(target="http://127.0.0.1:1"))
    warm_kernels(Console(stderr=True, highlight=False), (*KERNELS, *OF_LOAD, "workload.scale", *of_target))
