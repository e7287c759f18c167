"""Prepares a run from a trace and a scenario, for every command and the library.

prepared = prepare(trace, scenario)     names are looked up, requests planned and checked, for every target
prepared.plans                          the dry run: no connection was made yet
prepared.run(out)                       the run; in a Trio program: await prepared.run_async(out)
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import trio

from replay.errors import UsageError
from replay.plan.schedule import Plan, Schedule, make_schedules
from replay.protocols.protocol import Found, TargetPlan
from replay.protocols.registry import protocol_of
from replay.settings.scenario import Scenario
from replay.settings.target import Target
from replay.trace import Trace
from replay.trace.actions import with_actions
from replay_native.ground.jit import warm

from .blocking import owns_signals, run_blocking

if TYPE_CHECKING:
    from replay.results.document import RunDocument

    from .joined import JoinedRun
    from .order import Order
    from .sinks import Sink


def parse_targets(scenario: Scenario) -> list[Target]:
    """Parse every target of a scenario, in order, without looking up names.

    Raises UsageError if a URL has no known protocol, or the protocol does not support the scenario's settings.
    """
    targets = []
    for number, own in enumerate(scenario.by_target()):
        try:
            protocol = protocol_of(own.target)
            targets.append(protocol.parse(own.target))
        except UsageError as error:
            if not number:
                raise
            raise UsageError(f"also[{number - 1}].target: {error}", hint=error.hint) from None
        protocol.check(own)
    return targets


async def find_targets(scenario: Scenario) -> list[Found]:
    """Parse and look up every target of a scenario.

    Raises TargetError if a target has no address, LimitError if one of its addresses is not allowed, and
    UsageError as `parse_targets` does.
    """
    targets = zip(scenario.by_target(), parse_targets(scenario), strict=True)
    return [await protocol_of(own.target).find(target, own) for own, target in targets]


def kernels_of(scenario: Scenario) -> tuple[str, ...]:
    """Return the kernel modules that the scenario's targets need besides those of every run."""
    return tuple(
        dict.fromkeys(name for own in scenario.by_target() for name in protocol_of(own.target).kernels)
    )


class Prepared:
    """A run that may begin: every target was looked up, and its requests were planned and checked.

    `close`, or the end of a `with` block, removes its temporary files. It may be run more than once; a later run
    looks the names up again. `on_end` is called with the folder of each run that ended without an error, in a thread.
    """

    def __init__(
        self, trace: Trace, scenario: Scenario, targets: Sequence[TargetPlan], area: Path | None = None
    ) -> None:
        self.trace, self.scenario, self.targets = trace, scenario, list(targets)
        self._area = area
        self._is_fresh = True
        self.on_end: Callable[[Path], None] | None = None

    @property
    def plans(self) -> list[Plan]:
        """The plan for each target."""
        return [target.schedule.plan for target in self.targets]

    @property
    def schedules(self) -> list[Schedule]:
        """The schedule of the requests to each target."""
        return [target.schedule for target in self.targets]

    def run(
        self,
        out: str | os.PathLike[str],
        *,
        sinks: Sequence[Sink | str] = (),
        start_at_ns: int | None = None,
        last: bool = False,
    ) -> RunDocument:
        """Run into the new folder `out`, and return its run.json; blocks, in any thread.

        In the main thread, SIGINT, SIGTERM and SIGHUP stop the run cleanly. `sinks` receive each second as it is
        measured (`replay.engine.sinks`). `start_at_ns` is the instant, in ns since the epoch, at which the first
        request may be due; without it that is half a second from now. `last` declares that no other run follows in
        this process. Raises TargetError, LimitError, UsageError or OutputError before anything is sent, EngineError if
        the run failed after that.
        """
        return run_blocking(
            partial(
                self.run_async,
                out,
                sinks=sinks,
                start_at_ns=start_at_ns,
                last=last,
                signals=owns_signals(),
            )
        )

    async def run_async(
        self,
        out: str | os.PathLike[str],
        *,
        sinks: Sequence[Sink | str] = (),
        start_at_ns: int | None = None,
        last: bool = False,
        signals: bool = False,
        order: Order | None = None,
        joined: JoinedRun | None = None,
    ) -> RunDocument:
        """Run under Trio, as `run` does; a cancelled run saves what was measured.

        With `signals` the run handles the signals that end it (`watch.ENDING`). With `order` it is a share of a larger
        run. With `joined` it is one of two runs at the same instants (`replay.engine.together`).
        """
        targets = self.targets if self._is_fresh else await self._looked_up_again()
        self._is_fresh = False
        document = await _run_targets(
            targets,
            self.scenario,
            out,
            sinks=sinks,
            start_at_ns=start_at_ns,
            signals=signals,
            last=last,
            order=order,
            joined=joined,
        )
        if self.on_end is not None:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self.on_end, Path(out))
        return document

    async def _looked_up_again(self) -> list[TargetPlan]:
        """Look up the targets' current addresses, and check the plans again."""
        found = await find_targets(self.scenario)
        return [planned(target.schedule, one) for target, one in zip(self.targets, found, strict=True)]

    def close(self) -> None:
        """Remove the temporary files of the run."""
        if self._area is not None:
            shutil.rmtree(self._area, ignore_errors=True)

    def __enter__(self) -> Prepared:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def prepare(
    trace: Trace,
    scenario: Scenario,
    *,
    name: str = "",
    area: Path | None = None,
    found: Sequence[Found] | None = None,
    show: Callable[[TargetPlan], None] = lambda target: None,
) -> Prepared:
    """Look up every target, plan its requests, and check the plan; nothing is sent yet.

    `name` is the recording's name in the plan and the report. A trace that is scaled or sampled is made in the
    folder `area`, or in a temporary one, which `Prepared.close` removes. `found` are targets that were looked up
    already. `show` is called with each plan before the plan is checked. Raises InputError, UsageError, LimitError
    or TargetError if a check fails.
    """
    if found is None:
        found = run_blocking(partial(find_targets, scenario))
    own_area = Path(tempfile.mkdtemp(prefix="replay-")) if area is None else None
    try:
        place = area or own_area
        assert place is not None
        trace = with_actions(trace, scenario.actions)
        if scenario.split_clients:
            # The search for session values is imported by the runs that need it.
            from .split_clients import with_split_clients

            trace = with_split_clients(trace, scenario, place)
        schedules = make_schedules(trace, scenario, name=name, area=place)
        targets = [planned(schedule, one, show) for schedule, one in zip(schedules, found, strict=True)]
    except BaseException:
        if own_area is not None:
            shutil.rmtree(own_area, ignore_errors=True)
        raise
    return Prepared(trace, scenario, targets, own_area)


def planned(
    schedule: Schedule, found: Found, show: Callable[[TargetPlan], None] = lambda target: None
) -> TargetPlan:
    """Plan one target's requests with its protocol, and check the plan.

    `show` is called with the plan before the check.
    """
    target = protocol_of(schedule.plan.target).plan(schedule, found)
    show(target)
    target.check()
    return target


async def _run_targets(
    targets: Sequence[TargetPlan], scenario: Scenario, out: str | os.PathLike[str], **how: Any
) -> RunDocument:
    """Run planned targets.

    Modules that only a run needs are imported here, so that a dry run starts faster.
    """
    from .nursery import run_targets

    warm({name: None for target in targets for name in protocol_of(target.schedule.plan.target).kernels})
    return await run_targets(targets, scenario, out, **how)


async def run(
    schedule: Schedule,
    scenario: Scenario,
    out: str | os.PathLike[str],
    *,
    sinks: Sequence[Sink | str] = (),
    also: Sequence[Schedule] = (),
) -> RunDocument:
    """Replay schedules that were made already into the new run folder `out`, and return its run.json.

    `also` are further schedules on the same timeline. The targets' names are looked up and the plans checked
    before anything is sent. A cancelled run saves what was measured.
    """
    schedules = [schedule, *also]
    targets = []
    for one in schedules:
        (found,) = await find_targets(one.scenario)
        targets.append(planned(one, found))
    return await _run_targets(targets, scenario, out, sinks=sinks)
