"""What it costs to keep responses: capacity by the kept part of 1 kB of JSON, and memory over many responses."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from . import peers

CONNECTIONS = 64
ROUNDS = 5
SECONDS = 6
RESPONSES = 5_000_000
LONGEST_S = 600
KEEPS = ("none", "digest", "sample", "all")

DOCUMENT = {
    "id": 123_456,
    "name": "Some product name",
    "price": {"amount": 1999, "currency": "EUR"},
    "tags": ["a", "bb", "ccc"],
    "items": [
        {"sku": f"ABC-{n}", "quantity": n, "description": f"a longer description of item {n}", "ok": True}
        for n in range(9)
    ],
}
"""About 1 kB of JSON with some fifty leaves."""

BODY = json.dumps(DOCUMENT)
NGINX = peers.NGINX.replace(
    '"hello world\\n"', "'" + BODY.replace("{", "{{").replace("}", "}}") + "'"
).replace("location /", "default_type application/json;\n        location /")


def _run(folder: Path, trace: Path, port: int, keep: str, *more: str) -> dict:
    return peers.replay(
        folder,
        [str(trace), "--target", f"http://127.0.0.1:{port}", "--rate", "max", "-c", str(CONNECTIONS), "-t", "1",
         "--keep-answers", keep, *more],
    )  # fmt: skip


def capacity(folder: Path, trace: Path, rounds: int = ROUNDS, seconds: int = SECONDS) -> dict[str, dict]:
    """Return medians over interleaved rounds, by the value of `--keep-answers`.

    `per_cpu_s` is requests per CPU second of the generator, `dropped_share` the share of the responses that were dropped,
    and `of_plain` the rate relative to `none`.
    """
    figures: dict[str, list[tuple[float, float]]] = {keep: [] for keep in KEEPS}
    with peers.nginx(template=NGINX) as port:
        for _ in range(rounds):
            for keep, found in figures.items():
                document = _run(folder, trace, port, keep, "-d", f"{seconds}s")
                ok, dropped = document["accounts"]["ok"], (document["answers"] or {}).get("dropped", {})
                found.append((ok / document["generator"]["cpu_s"], sum(dropped.values()) / ok))
    medians = {
        keep: {
            "per_cpu_s": statistics.median(rate for rate, _ in found),
            "dropped_share": statistics.median(share for _, share in found),
        }
        for keep, found in figures.items()
    }
    plain = medians["none"]["per_cpu_s"]
    return {keep: {**found, "of_plain": found["per_cpu_s"] / plain} for keep, found in medians.items()}


def memory(folder: Path, trace: Path, responses: int = RESPONSES) -> list[dict[str, float]]:
    """Return the peak memory of a run that keeps digests of about `responses` / 10 responses, and of one ten times as long.

    The rate of a run of 4 s determines their lengths, which are at most LONGEST_S.
    """
    found = []
    with peers.nginx(template=NGINX) as port:
        for count in (responses // 10, responses):
            trial = _run(folder, trace, port, "digest", "-d", "4s")
            seconds = min(1 + int(4.4 * count / trial["answers"]["kept"]), LONGEST_S)
            document = _run(folder, trace, port, "digest", "-d", f"{seconds}s")
            kept = document["answers"]["kept"]
            found.append({"kept": kept, "peak_rss_mib": peers.peak_rss_mib(document)})
    return found


def measure(folder: Path, trace: Path) -> dict[str, Any]:
    """Measure capacity and memory."""
    return {"capacity": capacity(folder, trace), "memory": memory(folder, trace)}
