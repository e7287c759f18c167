"""An A/B session of two builds at once: every request goes to both at the same instant, and the unit is the restart.

In a restart, both builds are started, measured together, and stopped, which gives one run of each side. A process has
noise of its own, from the layout of its memory and the core on which it runs, that longer measurement does not
reduce. Therefore the builds swap cores, and the comparison is judged by the variation between restarts.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from replay.engine.joined import OTHER_ENDED
from replay.engine.prepare import Prepared, prepare
from replay.engine.sinks import Sink
from replay.engine.together import check_pairable, run_together
from replay.errors import OutputError, reason_of
from replay.results.document import RunDocument
from replay.settings.scenario import Scenario
from replay.trace import Trace

from .builds import Build, run_step
from .cores import CORES_MIN, physical_cores, two_shares, usable_cores
from .session import BOTTLENECK, RETRIES_MAX, Plan, Say, check_run, figures_of, url_of_builds
from .set_aside import set_aside
from .sides import Side, SideRun, load_run_folder
from .verdict import Comparison, compare_sides

PROCESSES = (
    "a build was given as a URL and never restarted, so the verdict is about these two "
    "processes, not about the builds; a REGRESSION changes the exit code only with --fail-on effect"
)
SAME_PLACE = (
    "both builds are at {place}: this compares a service with itself, or two services behind one address"
)


@dataclass
class TogetherSession:
    """A session in progress: the completed restarts, each with a run of base and one of new."""

    plan: Plan
    trace: Trace
    scenario: Scenario
    say: Say
    sinks: Sequence[Sink] = ()
    restarts: list[tuple[SideRun, SideRun]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    number: int = 0
    retries: int = 0
    longest_s: float = 0.0
    started_s: float = field(default_factory=time.monotonic)

    @property
    def left_s(self) -> float:
        """The remaining seconds of the time limit."""
        return self.plan.time_limit_s - (time.monotonic() - self.started_s)

    def run(self) -> Comparison:
        """Make the restarts and compare them. Raise the errors of `Session.run`."""
        try:
            self.plan.out.mkdir(parents=True)
        except OSError as error:
            raise OutputError(f"{self.plan.out} cannot be made: {reason_of(error)}") from None
        cores = self._cores()
        try:
            run_step("setup", self.plan.setup, self.plan.log("setup"), self.left_s)
            self._make_restarts(swaps(self.plan.restarts, self.plan.seed), cores)
        finally:
            run_step("cleanup", self.plan.cleanup, self.plan.log("cleanup"), max(self.left_s, 30.0))
        return self.compare()

    def compare(self) -> Comparison:
        """Compare the completed restarts. The notes of the result begin with the warnings of the session."""
        base, new = self.plan.base.label, self.plan.new.label
        sides = (
            Side(base, tuple(one for one, _ in self.restarts)),
            Side(new, tuple(two for _, two in self.restarts)),
        )
        options = replace(self.plan.options, design="together", of_processes=self._has_url)
        found = compare_sides(*sides, options, self.restarts)
        return replace(found, notes=(*self.warnings, *found.notes))

    @property
    def _has_url(self) -> bool:
        return self.plan.base.is_url or self.plan.new.is_url

    def _warn(self, text: str) -> None:
        """Report, once, a condition under which the result is less reliable."""
        if text not in self.warnings:
            self.warnings.append(text)
            self.say(f"warning: {text}")

    def _cores(self) -> tuple[frozenset[int], frozenset[int]]:
        """Return the two sets of cores for the builds; empty sets if the builds may use all cores."""
        anywhere: tuple[frozenset[int], frozenset[int]] = (frozenset(), frozenset())
        if self._has_url:
            self._warn(PROCESSES)
            return anywhere
        usable = usable_cores()
        shares = two_shares(usable)
        if shares is None:
            self._warn(
                "there is only one physical core, so the builds and the generator take time from each other"
                if usable
                else "this system does not pin processes to cores, so the builds and the generator may take time from "
                "each other"
            )
            return anywhere
        if (cores := len(physical_cores(usable))) < CORES_MIN:
            self._warn(
                f"{cores} physical cores for two builds and the generator: they take time from each other"
            )
        one, two = (",".join(map(str, sorted(share))) for share in shares)
        self.say(f"the builds run on cores {one} and {two}, and swap them in about half of the restarts")
        return shares

    def _make_restarts(self, swapped: Sequence[bool], cores: tuple[frozenset[int], frozenset[int]]) -> None:
        while len(self.restarts) < len(swapped):
            if self.restarts and self.left_s < self.longest_s:
                self.say(f"no time for another restart of {self.longest_s:.0f} s within the time limit")
                return
            began = time.monotonic()
            made = self._one(swapped[len(self.restarts)], cores)
            self.longest_s = max(self.longest_s, time.monotonic() - began)
            is_invalid = any(run.document and run.document.validity.verdict == "INVALID" for run in made)
            if is_invalid and self.retries < RETRIES_MAX:
                self.retries += 1
                set_aside([Path(run.name) for run in made], BOTTLENECK)
                self.say(f"{BOTTLENECK} in this restart: it is repeated")
                continue
            self.restarts.append(made)
            if is_invalid:
                return

    def _one(self, is_swapped: bool, cores: tuple[frozenset[int], frozenset[int]]) -> tuple[SideRun, SideRun]:
        """Start both builds, measure them together, and stop them. `is_swapped`: new is first in every step."""
        self.number += 1
        builds = (self.plan.base, self.plan.new)
        order = builds[::-1] if is_swapped else builds
        names = [f"{self.number:02}-{build.label}" for build in order]
        run_step("reset", self.plan.reset, self.plan.log("reset"), self.left_s)
        with contextlib.ExitStack() as stack:
            urls = [
                stack.enter_context(
                    build.running(
                        self.plan.log(name),
                        self.plan.ready,
                        self.plan.ready_s,
                        url_of_builds(self.scenario),
                        share,
                    )
                )
                for build, name, share in zip(order, names, cores, strict=True)
            ]
            for url in urls:
                run_step(
                    "prepare", self.plan.prepare.replace("{url}", url), self.plan.log("prepare"), self.left_s
                )
            first, second = (stack.enter_context(self._prepared(url)) for url in urls)
            self._check_apart(first, second)
            outs = self.plan.out / names[0], self.plan.out / names[1]
            sinks = (self.sinks, ()) if is_swapped else ((), self.sinks)
            documents = run_together((first, second), outs, sinks=sinks)
        self._check(documents, names, order)
        for name, document in sorted(zip(names, documents, strict=True)):
            self.say(f"restart {len(self.restarts) + 1}, run {name}: {figures_of(document)}")
        time.sleep(self.plan.cool_down_s)
        one, two = (load_run_folder(out) for out in outs)
        return (two, one) if is_swapped else (one, two)

    def _prepared(self, url: str) -> Prepared:
        prepared = prepare(self.trace, msgspec.structs.replace(self.scenario, target=url))
        try:
            check_pairable(prepared)
        except BaseException:
            prepared.close()
            raise
        return prepared

    def _check_apart(self, first: Prepared, second: Prepared) -> None:
        """Warn if both builds have the same address and port."""
        one, two = (
            {(host, prepared.targets[0].target.port) for host in prepared.targets[0].found.hosts}
            for prepared in (first, second)
        )
        for host, port in sorted(one & two):
            self._warn(SAME_PLACE.format(place=f"{host}:{port}"))

    def _check(self, documents: Sequence[RunDocument], names: Sequence[str], order: Sequence[Build]) -> None:
        """Check both runs with `check_run`.

        A run that ended because of the other one is checked last, so that the error reports the cause.
        """
        runs = sorted(
            zip(documents, names, order, strict=True),
            key=lambda run: run[0].ending.detail.startswith(OTHER_ENDED),
        )
        for document, name, build in runs:
            check_run(document, name, self.plan.out, is_base=build is self.plan.base)


def swaps(restarts: int, seed: int) -> list[bool]:
    """Draw in which restarts new is first.

    One draw decides a pair of restarts, so that each build is first equally often if `restarts` is even.
    """
    draw = random.Random(seed)
    made: list[bool] = []
    while len(made) < restarts:
        first = draw.random() < 0.5
        made += [first, not first]
    return made[:restarts]
