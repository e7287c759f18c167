"""How long it takes to index run folders, as a ratio to reading their run.json, and with two processes that write at once.

    python benchmarks/runs_index.py RUN [--runs N] [--rounds N]

RUN is a real run folder, whose run.json is copied N times with other times and builds. Each round reads all documents
(bytes alone), makes the database from the folders, and brings it up to date when nothing has changed, in turns.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from replay.history.database import database_of, opened, remember


def make_runs(run: Path, folder: Path, count: int) -> None:
    """So many runs, an hour and a build apart."""
    document = json.loads((run / "run.json").read_bytes())
    begin_ns = document["start"]["wall_ns"]
    for number in range(count):
        place = folder / f"run-{number:05}"
        place.mkdir(parents=True)
        document["start"]["wall_ns"] = begin_ns + number * 3_600 * 10**9
        document["build"] = f"b{number}"
        (place / "run.json").write_text(json.dumps(document))


def read_all(folder: Path) -> int:
    return sum(len(path.read_bytes()) for path in folder.glob("*/run.json"))


def index(folder: Path) -> int:
    with opened(folder) as history:
        if history.problem:
            raise SystemExit(history.problem)
        return len(history.rows())


def forget(folder: Path) -> None:
    for path in folder.parent.glob(f"{database_of(folder).name}*"):
        path.unlink()


def timed(work: Callable[[Path], int], folder: Path) -> float:
    began = time.perf_counter()
    work(folder)
    return time.perf_counter() - began


def write_some(folder: Path, names: list[str]) -> None:
    """Leave a row for each run, as a run that has ended does."""
    for name in names:
        if problem := remember(folder, name):
            raise SystemExit(problem)


def write_with(processes: int, folder: Path) -> float:
    """Seconds in which so many processes leave a row for each run, one at a time."""
    names = sorted(path.name for path in folder.iterdir())
    forget(folder)
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=write_some, args=(folder, names[at::processes])) for at in range(processes)
    ]
    began = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers):
        raise SystemExit("a process could not write")
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--runs", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as area:
        folder = Path(area) / "runs"
        make_runs(given.run, folder, given.runs)
        made, again = [], []
        for _ in range(given.rounds):
            forget(folder)
            reading = timed(read_all, folder)
            first = timed(index, folder)
            made.append(first / reading)
            again.append(timed(index, folder) / reading)
            print(f"{given.runs:,} runs read, indexed: {reading:.2f} s, {first:.2f} s", flush=True)
        print(f"making the database, as a ratio to reading: {statistics.median(made):.1f}")
        print(f"bringing it up to date, nothing changed: {statistics.median(again):.1f}")
        one, two = write_with(1, folder), write_with(2, folder)
        count = index(folder)
        print(
            f"rows left one at a time, two processes against one: {two / one:.2f} of the time, {count:,} rows"
        )


if __name__ == "__main__":
    main()
