"""Makes the run from what a coordinator gathered: the agents' folders, and the reports of lost agents."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec

from replay.errors import EngineError
from replay.results.agents import AgentClock
from replay.results.document import Note, RunDocument
from replay.units import counted, format_duration

from .coordinator_state import Seat
from .endings import Cause
from .gathering import Gathered
from .merging import merge_runs
from .reports import unknown_requests
from .share import LostAgent, read_share, write_share

AGENTS = "agents"
"""The folder within the merged run that has the agents' own run folders."""


def merged(gathered: Gathered, agents: Path, out: Path) -> RunDocument:
    """Merge the run into the new folder `out`, and move the agents' own folders into it.

    Raises EngineError if no agent's results were received, otherwise the errors of `merge_runs`.
    """
    for number, folder in enumerate(gathered.folders):
        if folder is not None:
            _with_clock(folder, gathered.clocks[number])
    folders = [folder for folder in gathered.folders if folder is not None]
    if not folders:
        why = "; ".join(
            f"{seat.name}: {seat.lost_why or 'its results were not received'}" for seat in gathered.seats
        )
        raise EngineError(
            f"no agent's results were received ({why})", hint=f"the output of the agents is in {agents}"
        )
    document = merge_runs(
        folders,
        out,
        lost=lost_agents(gathered),
        wall_ns=gathered.wall_ns or None,
        cause=_cause(gathered),
        observed=gathered.observed._replace(notes=[*gathered.observed.notes, *_pause_notes(gathered)]),
    )
    shutil.move(agents, out / AGENTS)
    return document


def _pause_notes(gathered: Gathered) -> list[Note]:
    """Return a note on the time during which the coordinator itself did not run, if there was any."""
    pauses_ns = gathered.pauses_ns
    if not pauses_ns:
        return []
    longest = f", for up to {format_duration(max(pauses_ns))}" if len(pauses_ns) > 1 else ""
    words = (
        f"the coordinator did not run for {format_duration(sum(pauses_ns))} during the run"
        f" ({counted(len(pauses_ns), 'pause')}{longest}): that time does not count as silence of the agents"
    )
    return [Note("COORDINATOR_PAUSED", words)]


def _cause(gathered: Gathered) -> Cause:
    """Return why the coordinator ended the run early, if it did."""
    if gathered.interrupted_by:
        return Cause("interrupted", gathered.interrupted_by)
    return Cause("stopped", gathered.stopped_why) if gathered.stopped_why else Cause("none")


def _with_clock(folder: Path, clock: AgentClock) -> None:
    """Write what is known of the agent's clock at the end into share.json: its drift, its jumps, and a smaller bound."""
    share = read_share(folder)
    write_share(folder, msgspec.structs.replace(share, clock=clock))


def lost_agents(gathered: Gathered) -> list[LostAgent]:
    """Return what is known of the agents that were lost, or whose results were not received."""
    found = []
    for seat in gathered.seats:
        has_come = gathered.folders[seat.agent] is not None
        if seat.hello is None or (seat.lost_ns is None and has_come):
            continue
        reports = gathered.reports[seat.agent]
        found.append(
            LostAgent(
                agent=seat.agent,
                why=seat.lost_why or "its results were not received",
                host=seat.hello.host,
                pid=seat.hello.pid,
                at_s=_since_start_s(seat, gathered),
                planned=seat.ready.planned if seat.ready is not None else 0,
                unknown=_unknown(seat, gathered),
                lanes=gathered.lanes[seat.agent],
                clock=gathered.clocks[seat.agent],
                counters=reports.totals,
                routes={route: dict(counts) for route, counts in reports.routes.items()},
                histograms=reports.histogram_lists(),
            )
        )
    return found


def _since_start_s(seat: Seat, gathered: Gathered) -> float | None:
    """Return when an agent was lost, in seconds since the start; None if only its results were lost."""
    return None if seat.lost_ns is None else round((seat.lost_ns - gathered.instant_ns) / 1e9, 3)


def _unknown(seat: Seat, gathered: Gathered) -> int:
    """Return the number of requests that may have been sent after the last report.

    If the agent was not lost, they follow from its final counts.
    """
    reports = gathered.reports[seat.agent]
    if seat.lost_ns is None and seat.end is not None:
        return max(seat.end.accounts.get("planned", 0) - reports.totals.get("planned", 0), 0)
    last_ns = gathered.last_sending_ns[seat.agent]
    return unknown_requests(seat, reports, gathered.instant_ns, last_ns)
