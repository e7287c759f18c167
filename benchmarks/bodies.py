"""Memory and time of a trace with many distinct bodies: to write it, and to read it in order and at random.

python -m benchmarks.bodies --requests 5000000 --bodies 500000 --bytes 1000

Each phase runs in a process of its own, so that its peak memory (RSS) does not include that of another phase. Of eight
requests, three have the newest body, two have one of the newest thousand, and three have any body so far, chosen by the
seed. At most 200,000 requests are read at random.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from replay.trace import Trace, TraceWriter, with_requests

ROWS_AT_ONCE = 1 << 14
RATE_PER_S = 10_000


def body(number: int, size: int) -> bytes:
    """Return about `size` bytes that resemble JSON, half of them random."""
    text = hashlib.shake_128(b"%d" % number).hexdigest(size // 4)
    items = '", "'.join(text[at : at + 16] for at in range(0, len(text), 16))
    return (
        f'{{"id": {number}, "kind": "order", "items": ["{items}"], "note": "{"as usual, " * (size // 24)}"}}'[
            :size
        ].encode()
    )


def write(path: Path, requests: int, bodies: int, size: int, seed: int) -> None:
    rng, known = np.random.default_rng(seed), 0
    with TraceWriter(path) as writer:
        method, headers = (
            writer.method_id("POST"),
            writer.add_headers(((b"Content-Type", b"application/json"),)),
        )
        for first in range(0, requests, ROWS_AT_ONCE):
            rows = min(ROWS_AT_ONCE, requests - first)
            numbers = np.arange(first, first + rows)
            newest = np.minimum(numbers * bodies // requests + 1, bodies)
            drawn = np.where(rng.random(rows) < 0.5, newest - 1, rng.integers(0, newest))
            drawn = np.where(
                rng.random(rows) < 0.25, np.maximum(newest - 1 - rng.integers(0, 1_000, rows), 0), drawn
            )
            ids = {number: writer.add_body(body(number, size)) for number in np.unique(drawn).tolist()}
            known = max(known, *ids.values())
            target = b"/orders"
            request = writer.add_requests(
                np.frombuffer(bytearray(target * rows), np.uint8), np.arange(rows + 1, dtype=np.int64) * len(target),
                np.full(rows, method), np.full(rows, -1), np.full(rows, headers),
                np.array([ids[number] for number in drawn.tolist()], np.int64),
            )  # fmt: skip
            at_ns = numbers * (1_000_000_000 // RATE_PER_S)
            writer.add_events(at_ns, request, (numbers % 1_000).astype(np.uint32), in_order=True)
    print(json.dumps({"distinct_bodies": known + 1}))


def read(path: Path, order: str, requests: int, seed: int) -> None:
    trace = Trace.open(path)
    began = time.perf_counter()
    table, _, _ = trace.requests.body_batches()
    opened_s = time.perf_counter() - began
    total, rows = 0, 0
    began = time.perf_counter()
    if order == "order":
        for batch in with_requests(trace.batches(), trace.requests):
            ids = trace.requests.column("body", batch.request)
            total += looked_at(table, ids)
            rows += len(batch)
    else:
        asked = np.random.default_rng(seed).integers(0, trace.manifest.requests, requests).astype(np.uint32)
        for part in trace.requests.loaded(asked):
            ids = trace.requests.column("body", asked[part])
            total += looked_at(table, ids)
            rows += len(ids)
    took_s = time.perf_counter() - began
    print(
        json.dumps(
            {
                "open_s": round(opened_s, 2),
                "rows": rows,
                "rows_per_s": round(rows / took_s),
                "seen": total > 0,
            }
        )
    )


def looked_at(table: npt.NDArray[np.int64], ids: npt.NDArray[np.int32]) -> int:
    """Return the size of every hundredth body, read by address as kernels read it."""
    total = 0
    for number in ids[::100].tolist():
        row = int(np.searchsorted(table[:, 0], number, side="right")) - 1
        first, offsets, data = table[row].tolist()
        begin, end = (ctypes.c_int64 * 2).from_address(offsets + 8 * (number - first))
        total += len(ctypes.string_at(data + begin, end - begin))
    return total


def phase(words: list[str], name: str) -> None:
    """Run one phase in a process of its own, and print its time and output."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bodies", *words], capture_output=True, text=True, check=True
    )
    print(f"{name:22} {time.perf_counter() - began:7.1f} s  {done.stdout.strip()}", flush=True)


def main() -> None:
    """Run all phases, or one of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--bodies", type=int, default=100_000)
    parser.add_argument("--bytes", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--folder",
        type=Path,
        help="create the temporary folder of the trace here; with --phase, the trace itself",
    )
    parser.add_argument("--phase", choices=["write", "order", "random"], help="run only this phase")
    options = parser.parse_args()
    if options.phase is not None:
        if options.phase == "write":
            write(options.folder, options.requests, options.bodies, options.bytes, options.seed)
        else:
            read(options.folder, options.phase, min(options.requests, 200_000), options.seed)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        print(f"peak RSS {peak:,} MiB")
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "bodies.trace"
        same = [
            "--requests",
            str(options.requests),
            "--bodies",
            str(options.bodies),
            "--bytes",
            str(options.bytes),
        ]
        for name, title in (("write", "written"), ("order", "read in order"), ("random", "read at random")):
            phase([*same, "--folder", str(path), "--seed", str(options.seed), "--phase", name], title)
        for each in sorted(path.iterdir()):
            print(f"{each.name:22} {each.stat().st_size / 1e6:9,.1f} MB")


if __name__ == "__main__":
    main()
