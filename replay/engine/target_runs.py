"""The targets of one run: each has its own schedule, lanes and feeder, all on one timeline and in one folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from replay.lane.contract import LaneSpec
from replay.plan.schedule import Schedule
from replay.protocols.adapter import ProtocolAdapter
from replay.protocols.feeder import Feeder
from replay.protocols.protocol import TargetPlan
from replay.results.document import (
    NameFigures,
    RouteStart,
    TargetStart,
)
from replay.results.samples import RecordedRow

UNBOUNDED_ROWS = 1 << 40
"""The count of sequence numbers reserved for a schedule whose length is not known before the run, as in a closed loop."""


@dataclass
class TargetRun:
    """One target's share of a run. Its sequence numbers begin at `first_seq`."""

    planned: TargetPlan
    adapter: ProtocolAdapter
    specs: list[LaneSpec]
    feeder: Feeder
    first_seq: int

    @property
    def schedule(self) -> Schedule:
        """The schedule of the requests to this target."""
        return self.planned.schedule

    def started(self) -> TargetStart:
        """Return the facts that are known when the target's first request is due."""
        plan = self.schedule.plan
        return TargetStart(
            target=self.planned.target.url,
            engine=self.adapter.engine_name,
            lanes=len(self.specs),
            tick_ns=self.adapter.tick_ns,
            rows_in_window=plan.rows_in_window,
            skipped=plan.skipped,
            tls=self.adapter.peer,
            portable_because=self.adapter.portable_because,
        )

    def name_figures(self) -> NameFigures | None:
        """Return the lookup statistics of the target's name; None if it has no name to look up."""
        return None if self.adapter.name is None else self.adapter.name.figures()


def first_seqs(schedules: Sequence[Schedule]) -> list[int]:
    """Return the first sequence number of each target, so that no two requests of a run share one."""
    firsts = [0]
    for schedule in schedules:
        rows = schedule.plan.rows
        firsts.append(firsts[-1] + (UNBOUNDED_ROWS if rows is None else rows))
    return firsts[:-1]


def named_apart(routes: Sequence[RouteStart], taken: Sequence[RouteStart], target: str) -> list[RouteStart]:
    """Return routes with unique names: ` @ ` and the target's address are appended to a name that is taken."""
    names = {route.name for route in taken}
    return [
        msgspec.structs.replace(route, name=f"{route.name} @ {target}") if route.name in names else route
        for route in routes
    ]


def lookup(targets: Sequence[TargetRun], seqs: list[int]) -> Mapping[int, RecordedRow]:
    """Return the recorded rows of sequence numbers, for all targets."""
    found: dict[int, RecordedRow] = {}
    for number, target in enumerate(targets):
        end = targets[number + 1].first_seq if number + 1 < len(targets) else 1 << 62
        own = [seq - target.first_seq for seq in seqs if target.first_seq <= seq < end]
        rows = target.schedule.lookup(own) if own else {}
        found |= {seq + target.first_seq: row for seq, row in rows.items()}
    return found
