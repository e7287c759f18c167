"""An A/B session: both builds run in turns, in randomised ABBA and BAAB blocks, and are compared at fixed looks."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from replay.engine.prepare import prepare
from replay.engine.sinks import Sink
from replay.errors import (
    OutputError,
    RefusedError,
    ReplayError,
    TargetError,
    reason_of,
)
from replay.protocols.registry import parse_target
from replay.results.build_label import build_of
from replay.results.document import Latency, RunDocument
from replay.results.failures import failures_of
from replay.settings.scenario import Scenario
from replay.trace import Trace
from replay.units import format_latency

from .builds import HOST, READY_S, Build, run_step
from .decision import Options
from .looks import LOOKS, Look
from .set_aside import set_aside
from .sides import Side, SideRun, load_run_folder
from .verdict import Comparison, compare_sides

BLOCK = 4
RETRIES_MAX = 2
"""Maximum number of blocks or restarts that a session repeats because the generator was the bottleneck in a run."""

OBJECTIVE = 'slo = ["statuses differ<100%"]'
BOTTLENECK = "the generator was the bottleneck"
SETTLED = ("REGRESSION", "IMPROVEMENT", "NO_REGRESSION")
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The options of a session.

    Times are in seconds. `ready` and `ready_s` are those of `Build.running`. `restarts` is how often both builds are
    started if they run together.
    """

    base: Build
    new: Build
    out: Path
    ready: str = ""
    ready_s: float = READY_S
    setup: str = ""
    prepare: str = ""
    reset: str = ""
    cleanup: str = ""
    cool_down_s: float = 1.0
    time_limit_s: float = 600.0
    seed: int = 0
    options: Options = field(default_factory=Options)
    restarts: int = 0

    def log(self, name: str) -> Path:
        """Return the file for the output of a build or step."""
        return self.out / f"{name}.log"


def url_of_builds(scenario: Scenario) -> str:
    """Return the URL of a build that the session starts, with `{port}` in it.

    It is an HTTP URL, or has the protocol and path (a topic) of the scenario's own target.
    """
    place = f"{HOST}:{{port}}"
    if not scenario.target:
        return f"http://{place}"
    target = parse_target(scenario.target)
    if target.scheme in ("http", "https"):
        return f"http://{place}"
    return f"{target.scheme}://{place}/{target.base_path.lstrip('/')}"


class Interrupted(ReplayError):
    """The user interrupted the session; the runs that ended before are complete."""

    exit_code = 130  # type: ignore[assignment]


@dataclass
class Session:
    """A session in progress: the completed blocks, each with four runs and their builds."""

    plan: Plan
    trace: Trace
    scenario: Scenario
    say: Say
    sinks: Sequence[Sink] = ()
    blocks: list[list[tuple[Build, SideRun]]] = field(default_factory=list)
    number: int = 0
    retries: int = 0
    longest_block_s: float = 0.0
    started_s: float = field(default_factory=time.monotonic)

    @property
    def left_s(self) -> float:
        """The remaining seconds of the time limit."""
        return self.plan.time_limit_s - (time.monotonic() - self.started_s)

    def run(self) -> Comparison:
        """Run the session, and return the comparison at the look that ended it.

        Raise ReplayError if a build or step fails, if a run ends early, or if base answers otherwise than recorded.
        """
        try:
            self.plan.out.mkdir(parents=True)
        except OSError as error:
            raise OutputError(f"{self.plan.out} cannot be made: {reason_of(error)}") from None
        order = random.Random(self.plan.seed)
        try:
            run_step("setup", self.plan.setup, self.plan.log("setup"), self.left_s)
            return self._looks(order)
        finally:
            run_step("cleanup", self.plan.cleanup, self.plan.log("cleanup"), max(self.left_s, 30.0))

    def _looks(self, order: random.Random) -> Comparison:
        found: Comparison | None = None
        for look in LOOKS:
            whole = self._blocks_up_to(look, order)
            found = self.compare(look)
            if whole and look is not LOOKS[-1]:
                self.say(
                    f"result after {len(self.blocks)} blocks, alpha {look.alpha:g}: {found.verdict}: {found.sentence}"
                )
            if not whole or found.verdict in SETTLED or found.verdict == "INVALID":
                break
        assert found is not None
        return found

    def _blocks_up_to(self, look: Look, order: random.Random) -> bool:
        """Make blocks until there are enough for the look, and return whether there are.

        The answer is False if the time limit allows no further block, or if the generator remained the bottleneck.
        """
        while len(self.blocks) < look.blocks:
            if self.blocks and self.left_s < self.longest_block_s:
                self.say(f"no time for another block of {self.longest_block_s:.0f} s within the time limit")
                return False
            began = time.monotonic()
            base, new = self.plan.base, self.plan.new
            turns = order.choice([(base, new, new, base), (new, base, base, new)])
            made = [(build, self._one(build)) for build in turns]
            self.longest_block_s = max(self.longest_block_s, time.monotonic() - began)
            if any(run.document and run.document.validity.verdict == "INVALID" for _, run in made):
                if self.retries < RETRIES_MAX:
                    self.retries += 1
                    set_aside([Path(run.name) for _, run in made], BOTTLENECK)
                    self.say(f"{BOTTLENECK} in this block: it is repeated")
                    continue
                self.blocks.append(made)
                return False
            self.blocks.append(made)
        return True

    def _one(self, build: Build) -> SideRun:
        """Make one run of one build in its own folder, and check that the session can continue."""
        self.number += 1
        name = f"{self.number:02}-{build.label}"
        ready = self.plan.ready, self.plan.ready_s
        run_step("reset", self.plan.reset, self.plan.log("reset"), self.left_s)
        with build.running(self.plan.log(name), *ready, url_of_builds(self.scenario)) as url:
            run_step(
                "prepare", self.plan.prepare.replace("{url}", url), self.plan.log("prepare"), self.left_s
            )
            label = self.scenario.build or build_of(os.environ) or build.label
            label = label if build is self.plan.new else build.label
            scenario = msgspec.structs.replace(self.scenario, target=url, build=label)
            with prepare(self.trace, scenario) as prepared:
                document = prepared.run(self.plan.out / name, sinks=self.sinks)
        check_run(document, name, self.plan.out, is_base=build is self.plan.base)
        self.say(f"block {len(self.blocks) + 1}, run {name}: {figures_of(document)}")
        time.sleep(self.plan.cool_down_s)
        return load_run_folder(self.plan.out / name)

    def compare(self, look: Look) -> Comparison:
        """Compare the completed blocks at the alpha of a look."""
        sides = []
        for build in (self.plan.base, self.plan.new):
            runs = tuple(run for block in self.blocks for owner, run in block if owner is build)
            sides.append(Side(build.label, runs))
        blocks = [[run for _, run in block] for block in self.blocks]
        return compare_sides(sides[0], sides[1], replace(self.plan.options, alpha=look.alpha), blocks)


def check_run(document: RunDocument, name: str, out: Path, *, is_base: bool) -> None:
    """Raise Interrupted, TargetError or RefusedError if the session cannot continue after this run."""
    if document.ending.how == "interrupted":
        raise Interrupted("the session was interrupted", hint=f"its runs are in {out}")
    if document.interrupted:
        raise TargetError(
            f"run {name} was stopped: {document.ending.detail}",
            hint=f"see replay report {out / name}",
        )
    differs = document.status_differs
    if differs is not None and differs.failed and is_base:
        raise RefusedError(
            f"run {name}: {'; '.join(failures_of(document))}",
            hint=f"check the build, its data and credentials, or accept it in the scenario: {OBJECTIVE}",
        )


def figures_of(document: RunDocument) -> str:
    """Return the p50 and p99 of response time (service time if there is none) and the verdict of a run as text."""
    latency = document.latency.response
    if not isinstance(latency, Latency):
        latency = document.latency.service
    return f"p50 {format_latency(latency.p50_ns)}, p99 {format_latency(latency.p99_ns)}, {document.validity.verdict}"
