"""share.json: which share of a run over many machines is in a run folder.

It is written before the run, and read by the merge.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from replay.decoding import examined
from replay.errors import InputError, reason_of
from replay.files import read_whole, replacing
from replay.results.agents import AgentClock
from replay.results.folder import SHARE

NAME = SHARE
FORMAT_VERSION = 1
SHARE_BYTES_MAX = 64 << 20

ShareClock = AgentClock


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """One agent's share of the run `run_id`: lanes [first, after) `of` all lanes of the run.

    `instant_ns` is when the first request of the run is due, by the coordinator's clock (CLOCK_MONOTONIC of its
    machine), `start_ns` the same by CLOCK_MONOTONIC of this machine. `due_by_second` counts the share's requests
    by second. `skew_ns` is how far the clock that the agent reported was then ahead of CLOCK_MONOTONIC: 0, except
    in tests. `planned_whole` are the requests of the whole run (null: not known).
    """

    format_version: int = FORMAT_VERSION
    run_id: str
    epoch: str
    agent: int
    agents: int
    host: str = ""
    pid: int = 0
    first_lane: int
    after_lane: int
    of_lanes: int
    planned: int
    planned_whole: int | None = None
    due_by_second: list[int] = []
    instant_ns: int = 0
    start_ns: int = 0
    skew_ns: int = 0
    clock: ShareClock = ShareClock()
    trace_digest: str = ""


class LostAgent(msgspec.Struct, frozen=True, kw_only=True):
    """What the coordinator knows of an agent that was lost, or whose results were not received.

    `planned` are the requests of its share. `unknown` of them were due between its last report and its end, so
    they may have been sent. They are counted as unknown only if the agent's folder is missing. `at_s` is when it was
    lost, since the start (null: only its results were lost).

    Its reports add up to `counters` (by the names of a lane's counters), `routes` (by route and outcome) and
    `histograms` (by tag: indices and counts).
    """

    agent: int
    why: str
    host: str = ""
    pid: int = 0
    at_s: float | None = None
    planned: int = 0
    unknown: int = 0
    lanes: tuple[int, int, int] | None = None
    clock: AgentClock = AgentClock()
    counters: dict[str, int] = {}
    routes: dict[str, dict[str, int]] = {}
    histograms: dict[str, tuple[list[int], list[int]]] = {}


def write_share(folder: Path, share: Share) -> None:
    """Write share.json atomically."""
    with replacing(folder / NAME, durable=True) as file:
        file.write(msgspec.json.encode(share))


def read_share(folder: Path) -> Share:
    """Return the share of a run folder. Raises InputError if it has none, a damaged one, or one of a newer version."""
    path = folder / NAME
    try:
        share = msgspec.json.decode(read_whole(path, SHARE_BYTES_MAX), type=examined(Share))
    except OSError as error:
        raise InputError(
            f"{path}: {reason_of(error)}",
            hint="give the run folders of agents, as `replay agent` writes them",
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path} is damaged: {error}") from None
    if share.format_version > FORMAT_VERSION:
        raise InputError(
            f"{path} has format version {share.format_version}", hint="install a newer version of replay"
        )
    _check(path, share)
    return share


def _check(path: Path, share: Share) -> None:
    """Raise InputError if the numbers of a share contradict each other."""
    if not 0 <= share.first_lane < share.after_lane <= share.of_lanes:
        lanes = f"lanes {share.first_lane} to {share.after_lane} of {share.of_lanes}"
        raise InputError(f"{path} is damaged: there are no {lanes}")
    if not 0 <= share.agent < share.agents:
        raise InputError(f"{path} is damaged: there is no agent {share.agent} of {share.agents}")
    if share.planned < 0 or (share.planned_whole is not None and share.planned_whole < share.planned):
        raise InputError(
            f"{path} is damaged: {share.planned} requests of {share.planned_whole} cannot be planned"
        )
