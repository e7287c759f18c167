"""The CPU time of short commands with compiled kernels, relative to the imports that they need."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

ROUNDS = 5
LINES = 500
FLOOR = ["-c", "import numba, pyarrow, trio"]
LINE = '10.0.0.{n} - - [10/Oct/2025:13:55:{second:02d} +0000] "GET /users/{n} HTTP/1.1" 200 512\n'
COMMANDS = {
    "import": ["import", "access.log", "-o", "a.trace", "--force"],
    "inspect": ["inspect", "access.log"],
    "dry run": ["run", "access.log", "--target", "http://127.0.0.1:9", "--dry-run"],
}


def cpu_s(arguments: list[str], folder: Path) -> float:
    """Return the CPU seconds of a Python process that may write the byte code of its imports."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environ, check=True, capture_output=True, timeout=120
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(folder: Path) -> dict[str, float]:
    """Return the CPU time of each command relative to the imports, both the best of ROUNDS in turns; the aim is 1.5."""
    log = "".join(LINE.format(n=n % 250, second=n % 60) for n in range(LINES))
    (folder / "access.log").write_text(log)
    commands = {"floor": FLOOR} | {name: ["-m", "replay.cli", *words] for name, words in COMMANDS.items()}
    best = dict.fromkeys(commands, float("inf"))
    for _ in range(ROUNDS):
        for name, arguments in commands.items():
            best[name] = min(best[name], cpu_s(arguments, folder))
    return {name: best[name] / best["floor"] for name in COMMANDS}


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as area:
        print(measure(Path(area)))
