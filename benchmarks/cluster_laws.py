"""What must hold of a run over agents: by the receiver's stamps, by its accounts, and by its histograms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from replay.results.hlog import read_hlog

LOGS = ("totals.hlog", "latency.hlog")


class Start(NamedTuple):
    """When an agent began, seen by the receiver: its earliest request, against when that was due by the coordinator's
    clock. The request's own latency is in it, which is at least 0 and in the fastest one at most `latency_ns`.
    """

    agent: int
    earliest_ns: int
    bound_ns: int
    latency_ns: int

    @property
    def holds(self) -> bool:
        """Whether the start was within the bound that the run states."""
        return -self.bound_ns <= self.earliest_ns <= self.bound_ns + self.latency_ns


def once(stamps: np.ndarray, rows: int) -> bool:
    """Whether the receiver got every sequence number exactly once."""
    return np.array_equal(np.sort(stamps["seq"]), np.arange(rows))


def in_order(stamps: np.ndarray, client: np.ndarray) -> bool:
    """Whether the requests of each client arrived in their order. `client` is that of each sequence number."""
    seqs = stamps[np.argsort(stamps["arrival_ns"], kind="stable")]["seq"]
    by_client = seqs[np.argsort(client[seqs], kind="stable")]
    is_same = np.diff(client[by_client].astype(np.int64)) == 0
    return bool(np.all(np.diff(by_client)[is_same] > 0))


def folders_of(run: Path) -> list[Path]:
    """The run folders of the agents of a run."""
    return sorted((run / "agents").glob("agent-*/"))


def counts_of(path: Path) -> dict[tuple[str, int], np.ndarray]:
    """The counts of every interval of a log, by tag and second of its start."""
    log = read_hlog(path)
    base_s = log.base_s or 0.0
    found: dict[tuple[str, int], np.ndarray] = {}
    for one in log.intervals:
        place = one.tag, max(round(one.start_s - base_s), 0)
        counts = one.histogram.counts
        found[place] = found[place] + counts if place in found else counts
    return found


def is_the_sum(run: Path, name: str) -> bool:
    """Whether the merged log has the intervals of the agents' logs, and their summed counts, bit for bit."""
    merged = counts_of(run / name)
    summed: dict[tuple[str, int], np.ndarray] = {}
    for folder in folders_of(run):
        for place, counts in counts_of(folder / name).items():
            summed[place] = summed[place] + counts if place in summed else counts
    return merged.keys() == summed.keys() and all(np.array_equal(merged[at], summed[at]) for at in merged)


def counters_are_the_sum(run: Path) -> bool:
    """Whether the accounts of the run are the sums of those of its agents' own folders."""
    own = [_document(folder)["accounts"] for folder in folders_of(run)]
    whole = _document(run)["accounts"]
    return all(whole[name] == sum(one[name] for one in own) for name in own[0])


def starts(run: Path, stamps: np.ndarray, due_ns: np.ndarray, client: np.ndarray) -> list[Start]:
    """When each agent began. `due_ns` is the offset of each sequence number from the first; the run is cut by client."""
    found = []
    for folder in folders_of(run):
        share = json.loads((folder / "share.json").read_text())
        lane = client[stamps["seq"]] % share["of_lanes"]
        own = stamps[(lane >= share["first_lane"]) & (lane < share["after_lane"])]
        after_ns = own["arrival_ns"] - share["instant_ns"] - due_ns[own["seq"]]
        latency_ns = read_hlog(folder / "totals.hlog").by_tag()["response.all"].percentiles((0.0,))[0]
        found.append(Start(share["agent"], int(after_ns.min()), share["clock"]["bound_ns"], latency_ns))
    return found


def _document(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "run.json").read_text())
    return found
