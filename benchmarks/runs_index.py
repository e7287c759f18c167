"""How long it takes to index run folders, relative to reading their run.json, and with two writers and a reader at once.

    python benchmarks/runs_index.py RUN [--runs N] [--rounds N]

RUN is a real run folder. Its run.json is copied N times with other times and builds. Each round reads the bytes of all
documents, makes the database from the folders, and updates it without changes. The benchmark fails if a row is lost or
doubled, or if the reader misses a row that it has seen before.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path

from replay.history.database import database_of, opened, remember


def make_runs(run: Path, folder: Path, count: int) -> None:
    """Write `count` run folders with one run.json each, an hour and a build apart."""
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
    """Write a row for each run, as a run does when it ends."""
    for name in names:
        if problem := remember(folder, name):
            raise SystemExit(problem)


def read_while(path: Path, has_ended: Event, reads: Synchronized[int]) -> None:
    """Read the names of all runs until the writers have ended; exit if one is missing that was there, or one is doubled."""
    before: set[bytes] = set()
    while not has_ended.is_set():
        if not path.exists():
            continue
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            try:
                names = [name for (name,) in connection.execute("SELECT name FROM runs")]
            except sqlite3.OperationalError as error:
                if before or "no such table" not in str(error):
                    raise
                continue
        if not before <= set(names) or len(set(names)) < len(names):
            raise SystemExit("a row was lost or doubled")
        before = set(names)
        reads.value += 1


def write_with(processes: int, folder: Path) -> tuple[float, int]:
    """Write a row for each run, one at a time, with `processes` processes; return the seconds.

    Another process reads meanwhile, and the number of its reads is returned as well. Exits if the rows are not complete.
    """
    names = sorted(path.name for path in folder.iterdir())
    forget(folder)
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=write_some, args=(folder, names[at::processes])) for at in range(processes)
    ]
    has_ended, reads = context.Event(), context.Value("q", 0)
    reader = context.Process(target=read_while, args=(database_of(folder), has_ended, reads))
    reader.start()
    began = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    taken_s = time.perf_counter() - began
    has_ended.set()
    reader.join()
    if any(process.exitcode for process in (*workers, reader)):
        raise SystemExit("a writer or the reader failed")
    with contextlib.closing(sqlite3.connect(database_of(folder))) as connection:
        stored = [os.fsdecode(name) for (name,) in connection.execute("SELECT name FROM runs ORDER BY name")]
    if stored != names:
        raise SystemExit(f"the {len(stored):,} rows are not those of the {len(names):,} runs")
    return taken_s, int(reads.value)


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
            print(f"{given.runs:,} runs: read in {reading:.2f} s, indexed in {first:.2f} s", flush=True)
        print(f"time to make the database, relative to reading: {statistics.median(made):.1f}")
        print(f"time to update it without changes, relative to reading: {statistics.median(again):.1f}")
        (one_s, _), (two_s, reads) = write_with(1, folder), write_with(2, folder)
        print(
            f"time to write rows one at a time with two processes, relative to one: {two_s / one_s:.2f}"
            f" ({given.runs:,} rows, none lost or doubled, read {reads:,} times meanwhile)"
        )


if __name__ == "__main__":
    main()
