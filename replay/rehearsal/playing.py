"""Plays a scene: sends the same load to the twin before and after the fix. Each side is an ordinary run."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec
import trio

from replay.engine.blocking import owns_signals, run_blocking
from replay.engine.prepare import Prepared, prepare
from replay.engine.sinks import Sink
from replay.errors import EngineError
from replay.protocols.scenario import load_scenario
from replay.results.run import Run, load_run
from replay.settings.groups.output import Watch
from replay.settings.scenario import Scenario
from replay.staging.twin import read_twin, running
from replay.trace import Trace

from .document import SceneResult, SideResult
from .files import SIDES, Addresses, SceneFiles, folder_name, write_files
from .judging import scene_result, side_result
from .machine import Usage
from .ports import free_ports
from .scene import Promise, Scene

LOOK_EVERY_S = 0.5
"""Seconds between two checks whether the twin's processes still run."""


class Audience(Protocol):
    """Receives the events of a scene while it is played."""

    def begins(self, scene: Scene) -> None:
        """Handle the beginning of a scene."""

    def side_begins(self, scene: Scene, side: str, promise: Promise) -> Sequence[Sink]:
        """Handle the beginning of a side. The returned sinks receive each second of its run."""

    def side_ended(self, scene: Scene, side: str, result: SideResult) -> None:
        """Handle the end of a side."""

    def ended(self, scene: Scene, result: SceneResult, files: SceneFiles) -> None:
        """Handle the end of a scene, after both sides have ended."""


def play(scene: Scene, folder: Path, seed: int, audience: Audience) -> SceneResult:
    """Play a scene, and save its files and runs in a new folder below `folder`.

    If the scene is not played to its end, that folder is removed. Raise EngineError if a process of the twin dies, and
    KeyboardInterrupt if a run is interrupted.
    """
    began_s = time.monotonic()
    place = folder / folder_name(scene)
    with _whole_or_not(place):
        with free_ports(2) as ports:
            files = write_files(scene, place, Addresses(*ports), seed)
        audience.begins(scene)
        before, after = (
            _play_side(scene, files, side, promise, audience)
            for side, promise in zip(SIDES, (scene.before, scene.after), strict=True)
        )
        result = scene_result(scene, place.name, before, after, time.monotonic() - began_s)
        audience.ended(scene, result, files)
    return result


@contextlib.contextmanager
def _whole_or_not(place: Path) -> Iterator[None]:
    """Remove a scene's folder if the scene is not played to its end."""
    try:
        yield
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise


def _play_side(
    scene: Scene, files: SceneFiles, side: str, promise: Promise, audience: Audience
) -> SideResult:
    sinks = audience.side_begins(scene, side, promise)
    scenario = load_scenario(files.scenario)
    twin = read_twin(files.twin(side))
    with running(twin, log=files.log(side)) as app:
        first = Usage.now(app.pids)
        scenario = _with_limits(scenario, app.figures())
        with prepare(Trace.open(files.trace), scenario, name=str(files.trace)) as prepared:
            _run(prepared, files.run(side), sinks, app.died)
        last = Usage.now(app.pids)
    others = first.others_share(last) if first is not None and last is not None else None
    run = load_run(files.run(side))
    result = side_result(scene, promise, run, f"{files.folder.name}/{side}", others)
    result = msgspec.structs.replace(result, events=count_events(files.log(side)))
    audience.side_ended(scene, side, result)
    return result


def _with_limits(scenario: Scenario, figures: Mapping[str, float]) -> Scenario:
    """Give a scenario's watched figures the limits of the running twin, so that a diagnosis can compare them.

    Resources that an autoscaler changes have no fixed limit.
    """

    def limited(watch: Watch) -> Watch:
        limit = figures.get(f"{watch.name}.limit")
        scales = f"{watch.name.partition('.')[0]}.replicas.limit" in figures
        return watch if limit is None or scales else msgspec.structs.replace(watch, limit=float(limit))

    return msgspec.structs.replace(scenario, watch=tuple(map(limited, scenario.watch)))


def _run(prepared: Prepared, out: Path, sinks: Sequence[Sink], dead: Callable[[], str]) -> None:
    """Make a run, which ends early when a process of the twin dies.

    Raise EngineError if a process died, and KeyboardInterrupt if the run was interrupted.
    """
    why, ending = "", ""
    has_signals = owns_signals()

    async def look(scope: trio.CancelScope) -> None:
        nonlocal why
        while not (why := dead()):
            await trio.sleep(LOOK_EVERY_S)
        scope.cancel()

    async def run() -> None:
        nonlocal ending
        async with trio.open_nursery() as nursery:
            nursery.start_soon(look, nursery.cancel_scope)
            document = await prepared.run_async(out, sinks=sinks, signals=has_signals)
            ending = document.ending.how
            nursery.cancel_scope.cancel()

    run_blocking(run)
    if why:
        raise EngineError(f"the twin has ended: {why}", hint="play the scene again")
    if ending == "interrupted":
        raise KeyboardInterrupt


def count_events(log: Path) -> dict[str, int]:
    """Count the events in a twin's log by kind, the most frequent first. A log that cannot be read has none."""
    counts: Counter[str] = Counter()
    with contextlib.suppress(OSError), log.open("rb") as lines:
        for line in lines:
            with contextlib.suppress(msgspec.DecodeError):
                event: Any = msgspec.json.decode(line)
                if isinstance(event, dict) and isinstance(event.get("what"), str):
                    counts[event["what"]] += int(event.get("more", 1))
    return dict(counts.most_common())


def run_of(folder: Path, side: SideResult) -> Run:
    """Return the run of a side that was played."""
    return load_run(folder / side.run)
