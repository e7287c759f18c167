"""A station driven by Trio's clock: each task waits for a free place."""

from __future__ import annotations

import trio

from .clock import clock_ns
from .station import Admission, Discipline, Station


class FullError(Exception):
    """The queue is full."""


class WaitedError(Exception):
    """The maximum time in the queue has passed."""


class _Ticket:
    __slots__ = ("event",)

    def __init__(self) -> None:
        self.event = trio.Event()


class Places:
    """The places of workers, which tasks take and give back."""

    def __init__(self, workers: int, queue_max: int, discipline: Discipline = "fifo") -> None:
        self.station: Station[_Ticket] = Station(workers, queue_max, discipline, clock_ns())

    async def take(self, wait_ns: int = 0) -> int:
        """Wait for a place, and return the waiting time in ns.

        Raises FullError if the queue is full, WaitedError after `wait_ns` (0: no limit).
        """
        ticket = _Ticket()
        begin_ns = clock_ns()
        admission = self.station.arrive(ticket, begin_ns)
        if admission is Admission.FULL:
            raise FullError
        if admission is Admission.STARTED:
            return 0
        try:
            with trio.move_on_after(wait_ns / 1e9 if wait_ns else float("inf")):
                await ticket.event.wait()
        finally:
            if not ticket.event.is_set():
                self.station.give_up(ticket, clock_ns())
        if not ticket.event.is_set():
            raise WaitedError
        return clock_ns() - begin_ns

    def give_back(self) -> None:
        """Give a place to the next waiting task, or make it free."""
        following = self.station.finish(clock_ns())
        if following is not None:
            following.event.set()

    def resize(self, workers: int, queue_max: int, discipline: Discipline = "fifo") -> None:
        """Change the limits, and start the tasks for which there are new places."""
        self.station.discipline = discipline
        for ticket in self.station.resize(workers, queue_max, clock_ns()):
            ticket.event.set()
