"""The order in which the runs of two builds were made, and what can be concluded from it.

A machine drifts: caches fill, other programs start and stop, disks get full. If all runs of one build were made
before all runs of the other, a drift looks like a difference between the builds, and no test can distinguish them.
Runs in turns (`replay ab`) share the drift. Nights that are compared with nights are judged by night
(`replay.comparison.design`).
"""

from __future__ import annotations

from dataclasses import dataclass

from .sides import Side, SideRun

NOT_INTERLEAVED = "NOT_INTERLEAVED"
SESSION_GAP_NS = 3 * 3600 * 10**9
"""Runs that are separated by a longer pause belong to different sessions."""


@dataclass(frozen=True, slots=True)
class Order:
    """The order of two sides.

    `first` and `second` are the labels of sides that ran one after the other, otherwise empty. `notes` are remarks on
    the order.
    """

    first: str = ""
    second: str = ""
    notes: tuple[str, ...] = ()

    @property
    def is_sequential(self) -> bool:
        """Whether all runs of one side started before all runs of the other."""
        return bool(self.first)

    @property
    def reason(self) -> str:
        """The reason why runs in this order do not allow a verdict on the builds."""
        return (
            f"{NOT_INTERLEAVED}: all runs of {self.first} started before all runs of {self.second}, so a machine that "
            "drifts looks like a difference between the builds; run them in turns with `replay ab`, or accept the risk "
            "with --sequential"
        )


def order_of(base: Side, new: Side) -> Order:
    """Determine the order of two sides' runs from their start times.

    The result is empty if a side has a single run.
    """
    if min(len(base.runs), len(new.runs)) < 2:
        return Order()
    times = [[run.started_ns for run in side.runs] for side in (base, new)]
    unknown = sum(time is None for side in times for time in side)
    if unknown:
        total = len(base.runs) + len(new.runs)
        return Order(notes=(_unchecked(f"{unknown} of {total} runs do not record when they started"),))
    one, two = ([time for time in side if time is not None] for side in times)
    if max(one) < min(two):
        return Order(base.label, new.label)
    if max(two) < min(one):
        return Order(new.label, base.label)
    if set(one) & set(two):
        return Order(notes=(_unchecked("runs of both builds report the same start time"),))
    apart = _mean_rank(two, one) - _mean_rank(one, two)
    if abs(apart) <= (len(one) + len(two)) / 4:
        return Order()
    late, early = (new, base) if apart > 0 else (base, new)
    return Order(
        notes=(
            f"most runs of {late.label} were made after most runs of {early.label}, so a drift of "
            f"the machine looks like part of the difference; `replay ab` makes runs in turns",
        )
    )


def pairs_together(base: Side, new: Side) -> list[tuple[SideRun, SideRun]] | None:
    """Return the runs in pairs that sent at the same instants (`replay ab --together`).

    Return None if not all runs are in such pairs.
    """
    one, two = (
        {
            run.document.together: run
            for run in side.runs
            if run.document is not None and run.document.together
        }
        for side in (base, new)
    )
    if not one or one.keys() != two.keys() or not len(one) == len(base.runs) == len(new.runs):
        return None
    return [(run, two[key]) for key, run in one.items()]


def _unchecked(why: str) -> str:
    return f"{why}, so it was not checked whether the builds were run in turns"


def _mean_rank(mine: list[int], others: list[int]) -> float:
    """Return the mean rank of `mine` among all runs. Runs with equal start times share a rank."""
    ordered = sorted([*mine, *others])
    return sum(ordered.index(time) + (ordered.count(time) - 1) / 2 for time in mine) / len(mine)


def sessions_by_time(side: Side) -> list[list[SideRun]] | None:
    """Return the runs of a side by session, in the order of their starts; None if a start is unknown.

    A pause longer than SESSION_GAP_NS separates two sessions.
    """
    if any(run.started_ns is None for run in side.runs):
        return None
    sessions: list[list[SideRun]] = []
    end = 0
    for run in sorted(side.runs, key=lambda run: run.started_ns or 0):
        start = run.started_ns or 0
        if not sessions or start - end > SESSION_GAP_NS:
            sessions.append([])
        sessions[-1].append(run)
        end = max(end, run.ended_ns or start)
    return sessions


def sessions_as_given(side: Side) -> list[list[SideRun]]:
    """Return one session for each path of the command line: a run, a log, or a folder of several.

    With a single path, each of its runs is a session.
    """
    paths = sorted({run.given for run in side.runs})
    if len(paths) == 1:
        return [[run] for run in side.runs]
    return [[run for run in side.runs if run.given == path] for path in paths]
