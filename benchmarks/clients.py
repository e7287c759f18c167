"""Up to 20,000 clients, each on its own connection with its requests in order: accounts, memory, and the sink's stamps."""

from __future__ import annotations

import contextlib
import resource
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from replay.trace import TraceWriter

from . import peers

CLIENTS = (1_000, 20_000)
REQUESTS = 120_000
COMING_S, STAYING_S = 8, 8
PATHS = (b"/sink/delay_ms=20", b"/")
"""The first response of a pair takes longer than the 1 ms until the second request is due, which therefore has to wait."""

SPARE_FILES, SPARE_PLACES = 200, 200
"""Open files besides connections, and spare connections of the sink, which may see a new one before an old one ends."""


@dataclass(frozen=True)
class Clients:
    """The figures of one run.

    By the sink's stamps, `out_of_order` counts requests that arrived after a later one of their client, and `strangers`
    counts further clients on a connection. `wait_order_p50_ms` is the median wait for the client's previous request.
    """

    clients: int
    requests: int
    arrived_once: int
    unsent: int
    failed: int
    connections: int
    at_once: int
    cap_bound: int
    out_of_order: int
    strangers: int
    wait_order_p50_ms: float
    peak_rss_mib: float


def _files(wanted: int) -> int:
    """Raise the limit of open files to `wanted`, if that is permitted, and return the limit in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in (max(hard, wanted), hard):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(wanted, soft), limit), limit))
            break
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _trace(path: Path, clients: int) -> tuple[Path, np.ndarray]:
    """Write a trace, and return it with the client of each request.

    Clients arrive within COMING_S. Each sends pairs of requests for up to STAYING_S; those of a pair are 1 ms apart.
    """
    random = np.random.default_rng(clients)
    first_ns = random.integers(0, COMING_S * 10**9, clients)
    pair_ns = np.sort(random.integers(0, STAYING_S * 10**9, (clients, REQUESTS // clients // 2)), axis=1)
    pair_ns[:, 0] = 0
    at_ns = first_ns[:, None, None] + pair_ns[:, :, None] + np.array([0, 10**6])
    client = np.broadcast_to(np.arange(clients, dtype=np.uint32)[:, None, None], at_ns.shape).ravel()
    order = np.argsort(at_ns.ravel(), kind="stable")
    with TraceWriter(path) as writer:
        ids = np.array([writer.add_request("GET", target) for target in PATHS], np.uint32)
        asked = np.broadcast_to(ids, at_ns.shape).ravel()
        writer.add_events(at_ns.ravel()[order], asked[order], client[order])
    return path, client[order]


def _run(folder: Path, clients: int) -> Clients:
    trace, client_of = _trace(folder / f"clients-{clients}.trace", clients)
    at_once = min(clients, _files(clients + SPARE_FILES + SPARE_PLACES) - SPARE_FILES - SPARE_PLACES)
    scenario = folder / "clients.toml"
    scenario.write_text(
        f'trace = "{trace}"\nconnect = "per-client"\norder = "client"\nidle_timeout = "60s"\n'
        f'connections = {at_once}\nthreads = 1\nengine = "native"\n'
    )
    with peers.sink(client_of.size + 1_000, connections=at_once + SPARE_PLACES, spin=False) as (port, memory):
        document = peers.replay(folder, [str(scenario), "--target", f"http://127.0.0.1:{port}"])
        stamps = memory.stamps()
    accounts, opened = document["accounts"], document["connections"]
    if accounts["planned"] != client_of.size or accounts["planned"] != accounts["sent"] + accounts["unsent"]:
        raise RuntimeError(f"the accounts do not fit the {client_of.size} requests of the trace: {accounts}")
    stamps = stamps[stamps["seq"] >= 0]
    counts = np.bincount(stamps["seq"], minlength=client_of.size)
    owner = client_of[stamps["seq"]]
    by_client = np.argsort(owner, kind="stable")
    same = np.diff(owner[by_client].astype(np.int64)) == 0
    pairs = np.unique(stamps["connection"] * clients + owner)
    return Clients(
        clients=clients,
        requests=int(client_of.size),
        arrived_once=int((counts == 1).sum()),
        unsent=accounts["unsent"],
        failed=accounts["error"] + accounts["timeout"],
        connections=int(np.unique(stamps["connection"]).size),
        at_once=opened["open_max"],
        cap_bound=opened["cap_bound"],
        out_of_order=int((same & (np.diff(stamps["seq"][by_client]) <= 0)).sum()),
        strangers=int(pairs.size - np.unique(stamps["connection"]).size),
        wait_order_p50_ms=document["latency"]["wait_order"]["p50_ns"] / 1e6,
        peak_rss_mib=peers.peak_rss_mib(document),
    )


def measure(folder: Path) -> list[Clients]:
    """Measure a run of few clients and one of many with the same number of requests; they differ only by the clients."""
    return [_run(folder, clients) for clients in CLIENTS]
