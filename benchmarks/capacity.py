"""Capacity against nginx: requests per CPU second of the generator, in a closed loop of 64 connections."""

from __future__ import annotations

import re
import shutil
import statistics
from pathlib import Path

from . import peers

CONNECTIONS = 64
ROUNDS = 5
SECONDS = 6


def _replay(folder: Path, trace: Path, port: int) -> float:
    document = peers.replay(
        folder,
        [str(trace), "--target", f"http://127.0.0.1:{port}", "--rate", "max", "-d", f"{SECONDS}s",
         "-c", str(CONNECTIONS), "-t", "1"],
    )  # fmt: skip
    return float(document["accounts"]["ok"] / document["generator"]["cpu_s"])


def _wrk(port: int) -> float:
    done = peers.finish(["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", f"http://127.0.0.1:{port}/"])
    requests = int(re.search(r"(\d+) requests in", done.out)[1])  # type: ignore[index]
    return requests / done.cpu_s


def _vegeta(program: str, folder: Path, port: int) -> float:
    target, out = folder / "target", folder / "vegeta.bin"
    target.write_text(f"GET http://127.0.0.1:{port}/\n")
    done = peers.finish(
        [program, "attack", "-rate=0", f"-max-workers={CONNECTIONS}", f"-connections={CONNECTIONS}",
         f"-duration={SECONDS}s", f"-targets={target}", f"-output={out}", "-http2=false"],
    )  # fmt: skip
    report = peers.finish([program, "report", "-type=json", str(out)])
    import json

    return float(json.loads(report.out)["requests"] / done.cpu_s)


def measure(folder: Path, trace: Path) -> dict[str, float]:
    """Return requests per CPU second of the generator by program, medians over interleaved rounds.

    wrk and vegeta are left out if they are missing.
    """
    vegeta = peers.vegeta()
    rounds: dict[str, list[float]] = {"replay": []}
    with peers.nginx() as port:
        for _ in range(ROUNDS):
            rounds["replay"].append(_replay(folder, trace, port))
            if shutil.which("wrk"):
                rounds.setdefault("wrk", []).append(_wrk(port))
            if vegeta:
                rounds.setdefault("vegeta", []).append(_vegeta(vegeta, folder, port))
    return {name: statistics.median(values) for name, values in rounds.items()}
