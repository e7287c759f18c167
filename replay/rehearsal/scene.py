"""A scene: its story, its load, the twin before and after the fix, and what both sides promise.

Scenes are TOML files in `scenes/`. The load, the scenario and the twin of a scene are merged into those of the
fitness app, so that a scene contains only the differences.
"""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from replay import units
from replay.errors import UsageError
from replay.peaks.recovery import Verdict as Recovery
from replay.results import slo
from replay.settings.file import load_as
from replay.settings.kinds import Duration, Scale, SloText

from .toml_text import laid_over

SCENES = Path(__file__).with_name("scenes")
"""The folder of the scenes, and of the parts that they share."""

PARTS = ("load", "scenario", "twin")
"""The keys of a scene that are merged into the file `fitness.PART.toml`."""

OVERHEAD_S = 4.0
"""How many seconds a side takes besides its load: the twin starts, the last requests end, and the run is saved."""

LONGEST_S = 90.0
"""The maximum length of a scene in seconds."""


class Surge(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A part of the load with more requests."""

    from_ns: Annotated[Duration, Meta(description="Time from the start of the load")] = msgspec.field(
        name="from"
    )
    until_ns: Duration = msgspec.field(name="until")
    scale: Annotated[Scale, Meta(description="Factors by route")]


class Promise(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """One side of a scene: how its twin differs, and which results it promises.

    Objectives that are neither in `missed` nor in `either` must be met.
    """

    words: Annotated[str, Meta(min_length=1, description="What is special about this side")]
    twin: dict[str, Any] = {}
    missed: Annotated[tuple[SloText, ...], Meta(description="Objectives that this side misses")] = ()
    either: Annotated[
        tuple[SloText, ...], Meta(description="Objectives that this side may meet or miss")
    ] = ()
    recovery: Annotated[tuple[Recovery, ...], Meta(description="One of these verdicts on the surge")] = ()
    at_least: Annotated[
        dict[str, float], Meta(description="Watched figures, and what their highest value must reach")
    ] = {}
    at_most: Annotated[
        dict[str, float], Meta(description="Watched figures, and what their highest value must not exceed")
    ] = {}


class Scene(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A scene, as its file describes it."""

    number: Annotated[int, Meta(ge=1)]
    name: str
    title: str
    happened: Annotated[str, Meta(description="What happened that evening")]
    lesson: Annotated[str, Meta(description="What the two sides show")]
    watch: Annotated[tuple[str, ...], Meta(min_length=1, description="Figures of the twin to record")]
    load: dict[str, Any] = {}
    surge: Surge | None = None
    scenario: dict[str, Any] = {}
    twin: dict[str, Any] = {}
    before: Promise
    after: Promise
    worth_eur: Annotated[dict[str, float], Meta(description="What a good response is worth, by route")] = {}

    @property
    def load_ns(self) -> int:
        """The length of the load in nanoseconds."""
        return int(units.parse_duration_ns(str(self.recipe()["duration"])))

    @property
    def length_s(self) -> float:
        """The approximate length of the scene in seconds."""
        return 2 * (self.load_ns / units.SECOND_NS + OVERHEAD_S)

    @property
    def objectives(self) -> tuple[str, ...]:
        """The objectives by which both sides are judged."""
        return tuple(self.settings()["slo"])

    def recipe(self) -> dict[str, Any]:
        """Return the recipe of the load without the surge, for `replay generate`."""
        return laid_over(shared("load"), self.load)

    def settings(self) -> dict[str, Any]:
        """Return the scenario, without target, trace and watched figures."""
        return laid_over(shared("scenario"), self.scenario)

    def twin_of(self, side: Promise) -> dict[str, Any]:
        """Return the twin's configuration for one side."""
        return laid_over(laid_over(shared("twin"), self.twin), side.twin)


@cache
def shared(part: str) -> dict[str, Any]:
    """Read the load, the scenario or the twin that all scenes share."""
    return tomllib.loads((SCENES / f"fitness.{part}.toml").read_text("utf-8"))


def read_scene(path: Path) -> Scene:
    """Read the scene in a file.

    Raise InputError or UsageError if it is invalid; the message has the file and, in most cases, the key.
    """
    scene = load_as(Scene, path)
    for name, side in (("before", scene.before), ("after", scene.after)):
        _check_side(scene, side, f"{path}: {name}")
    if not any((scene.before.missed, scene.before.recovery, scene.before.at_least)):
        raise UsageError(f"{path}: before: nothing fails there", hint="give it missed, recovery or at_least")
    if scene.surge is not None and not 0 < scene.surge.from_ns < scene.surge.until_ns < scene.load_ns:
        raise UsageError(f"{path}: surge: it must begin after the load begins, and end before the load ends")
    if scene.length_s > LONGEST_S:
        raise UsageError(
            f"{path}: load.duration: the scene takes {scene.length_s:.0f} s, more than the limit of {LONGEST_S:.0f} s"
        )
    return scene


def _check_side(scene: Scene, side: Promise, where: str) -> None:
    for key in ("missed", "either"):
        for text in getattr(side, key):
            slo.parse(text)
            if text not in scene.objectives:
                raise UsageError(
                    f"{where}.{key}: {text!r} is not an objective of the scene",
                    hint=f"scenario.slo has {', '.join(scene.objectives)}",
                )
    for key in ("at_least", "at_most"):
        for name in getattr(side, key):
            if name not in scene.watch:
                raise UsageError(f"{where}.{key}: {name} is not watched", hint="add it to watch")
    if side.recovery and scene.surge is None:
        raise UsageError(f"{where}.recovery: the scene has no surge to recover from")


def all_scenes() -> list[Scene]:
    """Return every scene, ordered by number."""
    paths = sorted(SCENES.glob("[0-9]*.toml"))
    return sorted((read_scene(path) for path in paths), key=lambda scene: scene.number)


def scene_of(text: str) -> Scene:
    """Return the scene with this number or name. Raise UsageError if there is none."""
    scenes = all_scenes()
    for scene in scenes:
        if text.strip().lower() in (str(scene.number), scene.name):
            return scene
    guess = units.nearest(text, [scene.name for scene in scenes])
    meant = f" (did you mean {guess}?)" if guess else ""
    raise UsageError(
        f"--scene {text}: there is no such scene{meant}", hint=f"write 1 to {len(scenes)}, or a name"
    )
