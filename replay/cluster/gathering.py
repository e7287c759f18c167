"""The collection of the agents' run folders after a run; folders on other machines are fetched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import trio

from replay.errors import EngineError, InputError
from replay.results.agents import AgentClock

from . import shipping
from .coordinator_state import CoordinatorState, Seat
from .links import Links
from .merged_facts import NOTHING_OBSERVED, Observed
from .messages import FileOffer, Release, Stop
from .reports import Reports
from .share import NAME, read_share

FETCH_S = 600.0
"""Time limit for all files of the agents, after the run."""


@dataclass
class Gathered:
    """The result of a run over agents: each agent's seat, and the path of its run folder (None if there is none).

    `stopped_why` says why the run ended early, and `interrupted_by` is the signal that the coordinator received.
    Each is empty otherwise.
    """

    run_id: str
    epoch: str
    seats: list[Seat]
    folders: list[Path | None]
    instant_ns: int
    wall_ns: int
    stopped_why: str
    interrupted_by: str
    reports: list[Reports] = field(default_factory=list)
    lanes: list[tuple[int, int, int]] = field(default_factory=list)
    last_sending_ns: dict[int, int] = field(default_factory=dict)
    clocks: list[AgentClock] = field(default_factory=list)
    bytes_received: int = 0
    bytes_sent: int = 0
    observed: Observed = NOTHING_OBSERVED
    pauses_ns: list[int] = field(default_factory=list)


class Gathering:
    """Gets the run folders of the agents into `folder`, and releases the agents."""

    def __init__(
        self, state: CoordinatorState, links: Links, folder: Path, say: Callable[[str], None]
    ) -> None:
        self._state, self._links, self._folder, self._say = state, links, folder, say

    async def folders(self) -> list[Path | None]:
        """Return the path of each agent's run folder, and fetch those that are on other machines.

        The path is None if the folder was not received, or is not that of the agent's share. Raises EngineError if
        fetching takes longer than FETCH_S.
        """
        with trio.move_on_after(FETCH_S):
            return [await self._folder_of(seat) for seat in self._state.seats]
        raise EngineError(
            f"the agents' results did not arrive within {FETCH_S:g} s",
            hint=f"those that arrived are in {self._folder}",
        )

    async def _folder_of(self, seat: Seat) -> Path | None:
        own = self._folder / f"agent-{seat.agent}"
        if self._is_share(own, seat.agent):
            return own
        if seat.end is None or not self._links.is_open(seat.agent):
            return None
        try:
            await self._fetch(seat.agent, own, seat.end.files)
        except (InputError, trio.EndOfChannel) as error:
            self._say(f"the results of {seat.name} were not fetched: {error or 'its connection ended'}")
            return None
        return own if self._is_share(own, seat.agent) else None

    def _is_share(self, path: Path, agent: int) -> bool:
        if not (path / NAME).is_file():
            return False
        try:
            share = read_share(path)
        except InputError:
            return False
        return (share.epoch, share.agent) == (self._state.epoch, agent)

    async def _fetch(self, agent: int, folder: Path, files: list[FileOffer]) -> None:
        folder.mkdir(exist_ok=True)
        await shipping.receive_files(folder, files, self._links.asks(agent))

    async def release(self, folders: list[Path | None], failed_why: str = "") -> None:
        """Release the agents; those whose results have been fetched remove their own copies.

        If the run failed, the agents receive the reason first, and report it when they end.
        """
        for seat in self._state.seats:
            if failed_why:
                self._links.put(seat.agent, Stop(epoch=self._state.epoch, how="abandon", why=failed_why))
            path = folders[seat.agent] if folders else None
            fetched = path is not None and seat.end is not None and str(path.absolute()) != seat.end.folder
            self._links.put(seat.agent, Release(remove=fetched))
        await self._links.flush()
