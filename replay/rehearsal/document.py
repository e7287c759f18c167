"""`rehearsal.json`: the results of each scene, and the promises that were broken."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from replay._version import __version__
from replay.errors import Exit
from replay.files import write_whole

NAME = "rehearsal.json"

SceneVerdict = Literal["AS_PROMISED", "NOT_AS_PROMISED", "MACHINE_TOO_BUSY"]
SideVerdict = Literal["FAILED", "PASSED", "INVALID"]
"""PASSED: the run ended normally, every objective was met, and no surge left the target harmed.
INVALID: the verdict on the run is INVALID. FAILED: all other cases."""

EXITS = {"AS_PROMISED": Exit.PASSED, "NOT_AS_PROMISED": Exit.FAILED, "MACHINE_TOO_BUSY": Exit.INVALID}


class Objective(msgspec.Struct, frozen=True, kw_only=True):
    """An objective of a side: whether it was met, and its figure in words."""

    slo: str
    met: bool
    words: str


class SideResult(msgspec.Struct, frozen=True, kw_only=True):
    """One side of a scene.

    `run` is its run folder, relative to the rehearsal's. `highest` has the highest value of each watched figure
    (null: no sample), and `events` how often the twin logged each kind of event. `broken` lists the promises
    that were not kept. `doubts` lists the reasons why the figures may not describe the twin.
    """

    run: str
    verdict: SideVerdict
    validity: str
    planned: int
    good: int
    failed_share: float
    p50_ns: int | None
    p99_ns: int | None
    objectives: list[Objective]
    recovery: str = ""
    recovered_after_s: float | None = None
    highest: dict[str, float | None] = {}
    good_by_route: dict[str, int] = {}
    events: dict[str, int] = {}
    others_cpu_share: float | None = None
    first_resource: str | None = None
    diagnosis: str = ""
    broken: list[str] = []
    doubts: list[str] = []


class SceneResult(msgspec.Struct, frozen=True, kw_only=True):
    """One scene.

    `saved` has the additional good responses after the fix by route, and `saved_eur` is what they are worth; null if
    the scene gives no worth.
    """

    number: int
    name: str
    title: str
    folder: str
    before: SideResult
    after: SideResult
    verdict: SceneVerdict
    reasons: list[str] = []
    saved: dict[str, int] = {}
    saved_eur: float | None = None
    took_s: float = 0.0


class Rehearsal(msgspec.Struct, frozen=True, kw_only=True):
    """All scenes that were played, in the order in which they were played."""

    format_version: int = 1
    replay: str = __version__
    seed: int
    scenes: list[SceneResult]


def save(folder: Path, rehearsal: Rehearsal) -> None:
    """Write the document. Raise OutputError if it cannot be written."""
    text = msgspec.json.format(msgspec.json.encode(rehearsal), indent=2)
    write_whole(folder / NAME, text + b"\n")


def exit_code(scenes: list[SceneResult]) -> Exit:
    """Return the exit code of a rehearsal.

    A broken promise takes precedence over a machine that was too busy to judge.
    """
    codes = {EXITS[scene.verdict] for scene in scenes}
    return next((code for code in (Exit.FAILED, Exit.INVALID) if code in codes), Exit.PASSED)
