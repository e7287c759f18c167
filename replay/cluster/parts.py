"""The run folders of agents, read and checked for merging."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from replay.decoding import examined
from replay.errors import InputError, reason_of
from replay.files import read_whole
from replay.ledger.accounts import AT, settled
from replay.results.agents import agent_name
from replay.results.document import RunDocument, Started
from replay.results.folder import DOCUMENT_BYTES_MAX, RunFolder
from replay.results.run import load_run
from replay.units import SECOND_NS
from replay_native.ledger.lane_metrics import LaneMetrics, open_metrics

from .share import Share, read_share

OF_AN_AGENT = ("connections", "threads", "allow", "allow_production", "trace", "limits")
"""The settings in which the shares of one run may differ."""

FILES = ("ca", "cert", "key", "ssl_cafile", "file")
"""The keys in tables of a scenario whose values are paths of files."""

_STAMPS = ("due_ns", "taken_ns", "sent_ns", "first_byte_ns", "done_ns")
_INSTANTS = ("first_due_ns", "last_done_ns")


@dataclass(frozen=True)
class Part:
    """One agent's run folder. `lanes` is its lanes' memory, with timestamps of the agent's own clock."""

    folder: RunFolder
    share: Share
    started: Started
    document: RunDocument
    lanes: list[LaneMetrics]

    @property
    def name(self) -> str:
        """The name of the agent in messages."""
        return agent_name(self.share.agent, self.share.host)

    @property
    def shift_ns(self) -> int:
        """How much later than the common instant the agent's run began, by the coordinator's clock.

        It is negative if the run began earlier, and 0 if the share has no instant.
        """
        if not self.share.instant_ns:
            return 0
        started_ns = self.started.start.monotonic_ns + self.share.skew_ns
        return started_ns - self.share.clock.offset_ns - self.share.instant_ns

    @property
    def shift_s(self) -> float:
        """The value of `shift_ns` in seconds."""
        return self.shift_ns / SECOND_NS

    @property
    def planned(self) -> int:
        """The number of requests of its share that were due while it ran."""
        return self.document.accounts.planned

    @property
    def has_ended(self) -> bool:
        """Whether its run was completed or stopped: it was not killed, and did not fail."""
        return self.document.ending.how not in ("killed", "failed")

    def lanes_of(self, target: int) -> list[LaneMetrics]:
        """Return the part's lanes for one target."""
        counts = lanes_by_target(self.started, self.share)
        first = sum(counts[:target])
        return self.lanes[first : first + counts[target]]

    def lanes_at(self, start_ns: int, target: int) -> list[LaneMetrics]:
        """Return the part's lanes for one target, with timestamps as if the merged run had begun at `start_ns`."""
        move_ns = start_ns + self.shift_ns - self.started.start.monotonic_ns
        killed = self.document.ending.how == "killed"
        return [_moved(metrics, move_ns, killed=killed) for metrics in self.lanes_of(target)]


def lanes_by_target(started: Started, share: Share) -> list[int]:
    """Return how many lanes a share has for each target.

    It has those of its range, or one if the protocol divides the requests itself.
    """
    return [target.lanes for target in started.targets] or [share.after_lane - share.first_lane]


def _moved(metrics: LaneMetrics, move_ns: int, *, killed: bool) -> LaneMetrics:
    """Return a lane with shifted timestamps, and with settled counters if it was `killed` (`accounts.settled`).

    Arrays without timestamps are shared with the file.
    """
    counters = np.array(metrics.counters, np.int64)
    counters = settled(counters) if killed else counters
    for name in _INSTANTS:
        if counters[AT[name]] > 0:
            counters[AT[name]] += move_ns
    samples = {}
    for name in ("slowest", "failed", "mismatched"):
        copied = np.array(getattr(metrics, name))
        for stamp in _STAMPS:
            copied[stamp] += np.where(copied[stamp] > 0, move_ns, 0)
        samples[name] = copied
    return metrics._replace(counters=counters, **samples)


class Found(NamedTuple):
    """The folders of a run.

    `parts` can be merged. `not_begun` are shares whose agents died before they began to send. `unread` has the
    reasons why folders of other lost agents cannot be read, by the agents' numbers.
    """

    parts: list[Part]
    not_begun: list[Share]
    unread: dict[int, str]


def read_parts(folders: Sequence[Path], lost: Collection[int] = ()) -> Found:
    """Read the parts of one run, and return them in the order of their lanes.

    A part whose agent was killed is completed first. Raises InputError if a folder is not one of an agent, if it
    is damaged and its agent is not in `lost`, if the folders do not belong together, or if none can be merged.
    """
    found = Found([], [], {})
    for folder in folders:
        _add(folder, found, lost)
    parts = sorted(found.parts, key=lambda part: part.share.first_lane)
    if not parts:
        problems = "; ".join(found.unread.values()) or "no agent began to send"
        raise InputError(
            f"there is nothing to merge: {problems}", hint="give the folder of an agent that sent"
        )
    for part in parts[1:]:
        _check_same(parts[0], part)
    for share in found.not_begun:
        if (share.run_id, share.epoch) != (parts[0].share.run_id, parts[0].share.epoch):
            raise InputError(
                f"the folder of agent {share.agent} of run {share.run_id} is not part of this run"
            )
    for before, after in itertools.pairwise(parts):
        _check_apart(before, after)
    return found._replace(parts=parts)


def _add(path: Path, found: Found, lost: Collection[int]) -> None:
    """Read one folder, and add it to `found`."""
    share = read_share(path)
    folder = RunFolder(path)
    if not folder.run.exists() and not folder.started.exists():
        found.not_begun.append(share)
        return
    try:
        found.parts.append(_read(path, share))
    except InputError as error:
        if share.agent not in lost:
            raise
        found.unread[share.agent] = str(error)


def _read(path: Path, share: Share) -> Part:
    folder = RunFolder.open(path)
    document = load_run(path).document
    if document.source is not None:
        raise InputError(f"{path} is the run of a followed source, which cannot be merged")
    started = _started(folder)
    lanes = [_open(file, path) for file in folder.lane_files()]
    if any(metrics.slots.shape[0] != len(started.routes) + 1 for metrics in lanes):
        raise InputError(f"{path}: its lanes and {folder.started.name} belong to different runs")
    counts, expected = lanes_by_target(started, share), share.after_lane - share.first_lane
    if len(lanes) != sum(counts) or any(count not in (1, expected) for count in counts):
        raise InputError(
            f"{path}: share.json lists {expected} lanes, {folder.started.name} {sum(counts)} for all targets, and"
            f" {folder.lanes} has the memory of {len(lanes)}",
            hint="copy the agent's folder again, with its lanes",
        )
    return Part(folder, share, started, document, lanes)


def _started(folder: RunFolder) -> Started:
    try:
        return msgspec.json.decode(read_whole(folder.started, DOCUMENT_BYTES_MAX), type=examined(Started))
    except OSError as error:
        raise InputError(f"{folder.started} cannot be read: {reason_of(error)}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{folder.started} is damaged: {error}") from None


def _open(file: Path, folder: Path) -> LaneMetrics:
    try:
        return open_metrics(file)
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} cannot be merged: {error}") from None


def _check_same(one: Part, other: Part) -> None:
    """Raise InputError if two parts do not belong to one run."""
    for what, of in (
        ("run id", lambda part: part.share.run_id),
        ("epoch", lambda part: part.share.epoch),
        ("number of agents", lambda part: part.share.agents),
        ("total number of lanes", lambda part: part.share.of_lanes),
        ("instant", lambda part: part.share.instant_ns),
        ("trace (digest)", lambda part: part.started.trace.digest if part.started.trace else ""),
        ("targets", lambda part: [target.target for target in part.started.targets]),
        ("routes", lambda part: [route.name for route in part.started.routes]),
        ("objectives", lambda part: part.started.slo),
    ):
        if of(one) != of(other):
            raise InputError(
                f"{one.folder.path} and {other.folder.path} are not parts of one run: they differ in the {what} "
                f"({_short(of(one))} and {_short(of(other))})",
                hint="give the folders of one run only",
            )
    own, others = without_places(one.started.scenario), without_places(other.started.scenario)
    changed = [
        key
        for key in sorted(own.keys() | others.keys())
        if key not in OF_AN_AGENT and own.get(key) != others.get(key)
    ]
    if changed:
        raise InputError(
            f"{one.folder.path} and {other.folder.path} are not parts of one run: their scenarios differ in "
            f"{', '.join(changed)}",
            hint="give the folders of one run only",
        )


def without_places(scenario: Mapping[str, Any]) -> dict[str, Any]:
    """Return a saved scenario with the names of files in place of their paths, which differ between agents."""

    def named(table: Mapping[str, Any]) -> dict[str, Any]:
        return {key: Path(text).name if key in FILES and text else text for key, text in table.items()}

    found = dict(scenario)
    found |= {key: named(found[key]) for key in ("tls", "kafka") if key in found}
    found |= {key: [named(rule) for rule in found[key]] for key in ("body", "variable") if key in found}
    return found


def _short(value: Any) -> str:
    text = str(value) or "none"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _check_apart(before: Part, after: Part) -> None:
    """Raise InputError if two parts have the same folder, the same lanes or the same agent."""
    if before.folder.path.samefile(after.folder.path):
        raise InputError(f"{before.folder.path} is given twice")
    if after.share.first_lane < before.share.after_lane:
        raise InputError(
            f"{before.folder.path} and {after.folder.path} overlap: both have lane {after.share.first_lane} of "
            f"{after.share.of_lanes}",
            hint="give each share of a run only once",
        )
    if after.share.agent == before.share.agent:
        raise InputError(
            f"{before.folder.path} and {after.folder.path} both belong to agent {after.share.agent}"
        )
