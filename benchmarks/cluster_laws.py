"""Laws that a run over agents must obey: by the receiver's stamps, by its accounts, and by its histograms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from replay.results.hlog import read_hlog

LOGS = ("totals.hlog", "latency.hlog")


class Start(NamedTuple):
    """When an agent began, by the receiver's stamps.

    `earliest_ns` is the least delay of a request's arrival after its due time on the coordinator's clock. It includes the
    time that the request took, which is at most `latency_ns` for the fastest response.
    """

    agent: int
    earliest_ns: int
    bound_ns: int
    latency_ns: int

    @property
    def holds(self) -> bool:
        """Whether the start is within the bound that the run states."""
        return -self.bound_ns <= self.earliest_ns <= self.bound_ns + self.latency_ns


def once(stamps: np.ndarray, rows: int) -> bool:
    """Return whether the receiver got every sequence number below `rows` exactly once."""
    return np.array_equal(np.sort(stamps["seq"]), np.arange(rows))


def in_order(stamps: np.ndarray, client: np.ndarray) -> bool:
    """Return whether the requests of each client arrived in order; `client` is indexed by sequence number."""
    seqs = stamps[np.argsort(stamps["arrival_ns"], kind="stable")]["seq"]
    by_client = seqs[np.argsort(client[seqs], kind="stable")]
    is_same = np.diff(client[by_client].astype(np.int64)) == 0
    return bool(np.all(np.diff(by_client)[is_same] > 0))


def folders_of(run: Path) -> list[Path]:
    """Return the folders of a run's agents."""
    return sorted((run / "agents").glob("agent-*/"))


def counts_of(path: Path) -> dict[tuple[str, int], np.ndarray]:
    """Return the counts of a log by tag and second; intervals that start in the same second are added up."""
    log = read_hlog(path)
    base_s = log.base_s or 0.0
    found: dict[tuple[str, int], np.ndarray] = {}
    for one in log.intervals:
        place = one.tag, max(round(one.start_s - base_s), 0)
        counts = one.histogram.counts
        found[place] = found[place] + counts if place in found else counts
    return found


def is_the_sum(run: Path, name: str) -> bool:
    """Return whether the merged log has exactly the intervals and the summed counts of the agents' logs."""
    merged = counts_of(run / name)
    summed: dict[tuple[str, int], np.ndarray] = {}
    for folder in folders_of(run):
        for place, counts in counts_of(folder / name).items():
            summed[place] = summed[place] + counts if place in summed else counts
    return merged.keys() == summed.keys() and all(np.array_equal(merged[at], summed[at]) for at in merged)


def counters_are_the_sum(run: Path) -> bool:
    """Return whether the accounts of the run are the sums of the accounts in its agents' folders."""
    own = [_document(folder)["accounts"] for folder in folders_of(run)]
    whole = _document(run)["accounts"]
    return all(whole[name] == sum(one[name] for one in own) for name in own[0])


def starts(run: Path, stamps: np.ndarray, due_ns: np.ndarray, client: np.ndarray) -> list[Start]:
    """Return when each agent began.

    `due_ns` is the due time of each sequence number after the first, `client` its client. Agents share the run by client.
    """
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
