"""The targets of one run: each has a schedule, lanes and a feeder of its own, all on one timeline and in one folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import trio

from replay.errors import ReplayError
from replay.lane.contract import LaneSpec
from replay.plan.schedule import Schedule
from replay.protocols.adapter import Fittings
from replay.protocols.feeder import Feeder
from replay.protocols.http1.probe import shake_hands
from replay.results.document import (
    NameFigures,
    Note,
    RouteStart,
    TargetStart,
)
from replay.results.samples import RecordedRow
from replay.units import counted
from replay_native.ledger.lane_metrics import C

ONE_MORE_S = 5.0

UNBOUNDED_ROWS = 1 << 40
"""Sequence numbers kept for a schedule whose length the target decides."""


@dataclass
class Part:
    """One target's share of a run. Its sequence numbers begin at `first_seq`."""

    schedule: Schedule
    fittings: Fittings
    specs: list[LaneSpec]
    feeder: Feeder
    first_seq: int

    def started(self) -> TargetStart:
        """What is known of it when its first request is due."""
        plan = self.schedule.plan
        return TargetStart(
            target=self.schedule.target.url,
            engine=self.fittings.engine_name,
            lanes=len(self.specs),
            tick_ns=self.fittings.tick_ns,
            rows_in_window=plan.rows_in_window,
            skipped=plan.skipped,
            tls=self.fittings.peer,
            portable_because=self.fittings.portable_because,
        )

    def name_figures(self) -> NameFigures | None:
        """What looking its name up took; None where it has none."""
        return None if self.fittings.name is None else self.fittings.name.figures()


async def failed_handshakes(part: Part) -> list[Note]:
    """What one more handshake says, after a run in which some failed: lanes only count them."""
    fittings = part.fittings
    failed = sum(int(spec.metrics.counters[C.handshakes_failed]) for spec in part.specs)
    if not failed or fittings.tls is None:
        return []
    addresses = fittings.addresses if fittings.name is None else fittings.name.addresses
    said = "one more, after the run, had no answer"
    with trio.move_on_after(ONE_MORE_S):
        try:
            peer = await shake_hands(addresses, fittings.tls, part.schedule.target.authority)
            said = "one more, after the run, succeeded" if peer else said
        except ReplayError as error:
            said = f"one more, after the run: {error}"
    return [Note("HANDSHAKES_FAILED", f"{counted(failed, 'handshake')} failed; {said}")]


def first_seqs(schedules: Sequence[Schedule]) -> list[int]:
    """Where the sequence numbers of each begin, so that no two requests of a run have the same."""
    firsts = [0]
    for schedule in schedules:
        rows = schedule.plan.rows
        firsts.append(firsts[-1] + (UNBOUNDED_ROWS if rows is None else rows))
    return firsts[:-1]


def named_apart(routes: Sequence[RouteStart], taken: Sequence[RouteStart], target: str) -> list[RouteStart]:
    """Routes under names that no other target's has."""
    names = {route.name for route in taken}
    return [
        msgspec.structs.replace(route, name=f"{route.name} @ {target}") if route.name in names else route
        for route in routes
    ]


def lookup(parts: Sequence[Part], seqs: list[int]) -> Mapping[int, RecordedRow]:
    """The recorded rows of sequence numbers, whichever target they went to."""
    found: dict[int, RecordedRow] = {}
    for number, part in enumerate(parts):
        end = parts[number + 1].first_seq if number + 1 < len(parts) else 1 << 62
        own = [seq - part.first_seq for seq in seqs if part.first_seq <= seq < end]
        rows = part.schedule.lookup(own) if own else {}
        found |= {seq + part.first_seq: row for seq, row in rows.items()}
    return found
