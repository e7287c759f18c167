"""The files of a scene: a twin for each side, a scenario and its load.

These files are what the rehearsal runs, and users can also run them manually.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from replay import units
from replay.files import write_whole
from replay.settings.file import load_as
from replay.trace import Trace
from replay.workload.generate import generate
from replay.workload.recipe import Recipe
from replay.workload.surge import surge

from .scene import Promise, Scene
from .toml_text import laid_over, toml_text

SIDES = ("before", "after")

COPIED = "Copy it and change it. docs/rehearsal.md and docs/twin.md list the keys."


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the twin of a scene listens: the ports of its front and of its figures."""

    front_port: int
    control_port: int

    @property
    def target(self) -> str:
        """The URL that the load is sent to."""
        return f"http://127.0.0.1:{self.front_port}"

    @property
    def figures(self) -> str:
        """The URL of the document with the twin's figures."""
        return f"http://127.0.0.1:{self.control_port}/figures"


@dataclass(frozen=True, slots=True)
class SceneFiles:
    """The paths of a scene's files in its folder."""

    folder: Path

    @property
    def scenario(self) -> Path:
        """The scenario, which both sides run."""
        return self.folder / "scenario.toml"

    @property
    def recipe(self) -> Path:
        """The recipe of the load without the surge, for `replay generate`."""
        return self.folder / "load.toml"

    @property
    def base(self) -> Path:
        """The trace of the load without the surge. It is only written for a scene with a surge."""
        return self.folder / "base.trace"

    @property
    def trace(self) -> Path:
        """The trace of the load, with the surge if the scene has one."""
        return self.folder / "load.trace"

    def twin(self, side: str) -> Path:
        """Return the twin's configuration for a side."""
        return self.folder / f"{side}.twin.toml"

    def run(self, side: str) -> Path:
        """Return the run folder of a side."""
        return self.folder / side

    def log(self, side: str) -> Path:
        """Return the log of a side's twin."""
        return self.folder / f"{side}.log"


def folder_name(scene: Scene) -> str:
    """Return the name of a scene's folder, such as `04-retries`."""
    return f"{scene.number:02}-{scene.name}"


def write_files(scene: Scene, folder: Path, addresses: Addresses, seed: int) -> SceneFiles:
    """Write the files of a scene into the new folder, and generate its load.

    Raise OutputError if a file cannot be written, and UsageError or InputError for a load that is wrong.
    """
    files = SceneFiles(folder)
    folder.mkdir(parents=True)
    head = f"Scene {scene.number}, {scene.title}."
    for side, promise in zip(SIDES, (scene.before, scene.after), strict=True):
        comment = f"{head} The twin {side} the fix: {promise.words}\n{COPIED}"
        _write(files.twin(side), twin_document(scene, promise, addresses, seed), comment)
    comment = f"{head} Both sides run this scenario, and are judged by it.\n{COPIED}"
    _write(files.scenario, _scenario(scene, files, addresses), comment)
    recipe = scene.recipe() | {
        "seed": seed,
        "duration": units.duration_text(scene.load_ns + _margin_ns(scene)),
    }
    _write(files.recipe, recipe, f"{head} The load without any surge, as a recipe for `replay generate`.")
    _generate(scene, files, seed)
    return files


def _write(path: Path, document: dict[str, Any], comment: str) -> None:
    write_whole(path, toml_text(document, comment).encode())


def twin_document(scene: Scene, promise: Promise, addresses: Addresses, seed: int) -> dict[str, Any]:
    """Return the twin's configuration for a side, with its addresses and its seed."""
    own = {"seed": seed, "control_port": addresses.control_port, "balancer": {"port": addresses.front_port}}
    return laid_over(scene.twin_of(promise), own)


def _scenario(scene: Scene, files: SceneFiles, addresses: Addresses) -> dict[str, Any]:
    watch = [
        {"name": name, "json": addresses.figures, "pointer": f"/{name.replace('~', '~0').replace('/', '~1')}"}
        for name in scene.watch
    ]
    return {"target": addresses.target, "trace": files.trace.name, **scene.settings(), "watch": watch}


def _margin_ns(scene: Scene) -> int:
    """Return by how much the load without the surge must be longer than the scene's load.

    The last request may be due before the end of the load, and `replay peak` refuses a trace that ends before the trial.
    """
    return 0 if scene.surge is None else 2 * units.SECOND_NS


def _generate(scene: Scene, files: SceneFiles, seed: int) -> Trace:
    recipe = msgspec.structs.replace(load_as(Recipe, files.recipe), seed=seed)
    if scene.surge is None:
        return generate(recipe, files.trace)
    base = generate(recipe, files.base)
    start_ns = base.start_ns
    return surge(
        base,
        files.trace,
        scene.surge.scale,
        start_ns=start_ns,
        from_ns=start_ns + scene.surge.from_ns,
        until_ns=start_ns + scene.surge.until_ns,
        end_ns=start_ns + scene.load_ns,
        seed=seed,
    )


def surge_flags(scene: Scene) -> str:
    """Return the flags of `replay peak` that make the surge of a scene; empty without a surge, or if no flags can."""
    found = scene.surge
    if found is None or len(found.scale) != 1 or found.scale[0][0] or found.until_ns != 2 * found.from_ns:
        return ""
    length = units.format_duration(found.until_ns - found.from_ns).replace(" ", "")
    return f"--surge {units.exact_text(found.scale[0][1])} --trigger {length}"
