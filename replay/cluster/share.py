"""share.json: which part of a run over many machines a run folder holds. Written before the load, read by the merge."""

from __future__ import annotations

from pathlib import Path

import msgspec

from replay.errors import InputError, reason_of
from replay.files import read_whole, replacing

NAME = "share.json"
FORMAT_VERSION = 1
SHARE_BYTES_MAX = 64 << 20


class ShareClock(msgspec.Struct, frozen=True, kw_only=True):
    """The agent's clock was `offset_ns` ahead of the coordinator's at the start, give or take `bound_ns`."""

    offset_ns: int = 0
    bound_ns: int = 0


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """One agent's share of the run `run_id`. It has lanes [first, after) `of` all lanes of the run.

    `instant_ns` is when the first request of the run is due, by the coordinator's clock (CLOCK_MONOTONIC of its
    machine), `start_ns` the same by CLOCK_MONOTONIC of this machine. `due_by_second` counts the share's requests by second.
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
    due_by_second: list[int] = []
    instant_ns: int = 0
    start_ns: int = 0
    clock: ShareClock = ShareClock()
    trace_digest: str = ""


def write_share(folder: Path, share: Share) -> None:
    """Write share.json completely or not at all."""
    with replacing(folder / NAME, durable=True) as file:
        file.write(msgspec.json.encode(share))


def read_share(folder: Path) -> Share:
    """The share of a run folder. InputError if it has none, or a damaged one."""
    path = folder / NAME
    try:
        share = msgspec.json.decode(read_whole(path, SHARE_BYTES_MAX), type=Share)
    except OSError as error:
        raise InputError(
            f"{path}: {reason_of(error)}",
            hint="give the run folders of agents, as `replay agent` writes them",
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path} is damaged: {error}") from None
    if share.format_version > FORMAT_VERSION:
        raise InputError(f"{path} has format version {share.format_version}", hint="install a newer replay")
    return share
