"""Two builds at once (`replay ab --together`) beside builds in turns: false alarms, slowdowns found, and their spread.

    python -m benchmarks.together --alike 100 --slower 30 [--seed 1] [--budget 8h] [--json FILE]

A session is a run of `replay ab`. `--alike` sessions compare a build with itself, each time in new processes. `--slower`
sessions have a new build whose service takes 5% longer. Each of these is made together, and then in turns with twelve
shorter runs that take about as long in all. The build is a process that works on the CPU for a partly exponential time, so
that it has noise of its own and slows down if it is disturbed. The tolerance is 2%, which is below the slowdown. The
benchmark stops before it exceeds the budget, and prints how many sessions it made.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from replay.units import parse_duration_ns

ROWS, LENGTH_S = 1_500, 6
RUNS_IN_TURNS, AROUND_S = 12, 1.4
"""The runs of three blocks, the fewest that can decide, and the seconds that a run needs besides its requests."""
MEAN_MS = 1.0
SERVICE = """
import http.server, random, sys, time
noise = random.Random()
mean_s = float(sys.argv[2]) / 1_000
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        until = time.perf_counter() + mean_s * (0.5 + 0.5 * noise.expovariate(1.0))
        while time.perf_counter() < until:
            pass
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def session(folder: Path, *, slower: float, together: bool, seed: int, limit_s: float) -> dict[str, Any]:
    """Run one session; return its verdict, the change of p50, the width of its interval, and the seconds it took.

    The verdict is FAILED if the command wrote no result. `limit_s` is the length of a session in turns.
    """
    out = folder / f"{'together' if together else 'turns'}-{seed}-{slower:g}"
    builds = [
        f"{sys.executable} {folder / 'service.py'} {{port}} {MEAN_MS * factor}" for factor in (1, slower)
    ]
    words = [
        sys.executable,
        "-m",
        "replay.cli",
        "ab",
        str(folder / "ab.toml"),
        "--base",
        builds[0],
        "--new",
        builds[1],
    ]
    words += ["-m", "p50", "--routes", "0", "--tolerance", "2%", "--cool-down", "0s", "--seed", str(seed)]
    words += ["--keep-answers", "none", "-o", str(out), "--json=" + str(out) + ".json"]
    if together:
        words += ["--together"]
    else:
        run_s = max(limit_s / RUNS_IN_TURNS - AROUND_S, 1.0)
        words += ["--duration", f"{run_s:.2f}s", "--time-limit", f"{limit_s * 1.1 + 1:.0f}s"]
    began = time.monotonic()
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=1_200, check=False)
    took_s = time.monotonic() - began
    path = Path(f"{out}.json")
    if not path.exists():
        return {"verdict": "FAILED", "why": done.stderr.strip().splitlines()[-1:], "took_s": took_s}
    found = json.loads(path.read_text())
    made: dict[str, Any] = {"verdict": found["verdict"], "change": None, "width": None, "took_s": took_s}
    for row in found["metrics"][:1]:
        low, high = row["interval"]
        made |= {"change": row["change"], "width": None if low is None or high is None else high - low}
    return made


def summary(made: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the number of sessions by verdict, and the spread of their estimates (None if there are too few)."""
    verdicts: dict[str, int] = {}
    for one in made:
        verdicts[one["verdict"]] = verdicts.get(one["verdict"], 0) + 1
    changes = [one["change"] for one in made if one.get("change") is not None]
    widths = [one["width"] for one in made if one.get("width") is not None]
    return {
        "sessions": len(made),
        "verdicts": verdicts,
        "mean_change": statistics.mean(changes) if changes else None,
        "sd_of_change": statistics.stdev(changes) if len(changes) > 1 else None,
        "median_width": statistics.median(widths) if widths else None,
        "median_s": statistics.median(one["took_s"] for one in made) if made else None,
    }


def measure(folder: Path, alike: int, slower: int, seed: int, budget_s: float) -> dict[str, Any]:
    """Make the sessions that fit into the budget, in random order, and return their summaries."""
    line = '192.0.2.1 - - [05/Jan/2026:18:00:{0:02} +0000] "GET /a HTTP/1.1" 200 2\n'
    rows = "".join(line.format(at) for at in range(LENGTH_S) for _ in range(ROWS // LENGTH_S))
    (folder / "access.log").write_text(rows)
    (folder / "ab.toml").write_text('trace = "access.log"\n')
    (folder / "service.py").write_text(SERVICE)
    made: dict[str, list[dict[str, Any]]] = {
        "alike together": [],
        "slower together": [],
        "slower in turns": [],
    }
    until, draw = time.monotonic() + budget_s, random.Random(seed)
    plan = [("alike", draw.getrandbits(31)) for _ in range(alike)]
    plan += [("slower", draw.getrandbits(31)) for _ in range(slower)]
    draw.shuffle(plan)
    last_s = 0.0
    for what, number in plan:
        if time.monotonic() + last_s * (1 if what == "alike" else 2) > until:
            break
        factor = 1.0 if what == "alike" else 1.05
        one = session(folder, slower=factor, together=True, seed=number, limit_s=0)
        last_s = one["took_s"]
        made[f"{what} together"].append(one)
        print(what, "together", one, flush=True)
        if what == "slower":
            one = session(folder, slower=factor, together=False, seed=number, limit_s=last_s)
            made["slower in turns"].append(one)
            print(what, "in turns", one, flush=True)
    return {name: summary(sessions) for name, sessions in made.items()} | {
        "asked": [alike, slower],
        "seed": seed,
    }


def main() -> None:
    """Measure and print; with --json also write the results into a file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--alike", type=int, default=100)
    parser.add_argument("--slower", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--budget", default="8h")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="replay-together-") as folder:
        budget_s = parse_duration_ns(given.budget) / 1e9
        found = measure(Path(folder), given.alike, given.slower, given.seed, budget_s)
    text = json.dumps(found, indent=2)
    print(text)
    if given.json is not None:
        given.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
