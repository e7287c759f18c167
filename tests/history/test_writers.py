"""The database of runs with two processes that write and a third one that reads."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.synchronize
import os
import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from replay.history.database import database_of, opened, remember
from tests.support.compare_data import make_run

RUNS = 60


def record(model: Path, folder: Path, names: list[str]) -> None:
    """Make each run folder and leave its row, as a run that ends does."""
    for name in names:
        (folder / name).mkdir()
        os.link(model / "run.json", folder / name / "run.json")
        if problem := remember(folder, name):
            raise SystemExit(problem)


def read(
    folder: Path, has_ended: multiprocessing.synchronize.Event, is_reading: multiprocessing.synchronize.Event
) -> None:
    """Read all rows again and again, until after the writers have ended. Rows never become fewer, and none is doubled."""
    before: set[str] = set()
    while True:
        is_last = has_ended.is_set()
        with opened(folder) as history:
            names = [row.name for row in history.rows()]
            assert not history.problem, history.problem
        assert len(set(names)) == len(names) and before <= set(names), "a row is lost or doubled"
        before = set(names)
        is_reading.set()
        if is_last:
            assert len(names) == RUNS
            return


@pytest.mark.timing
def test_two_writers_and_a_reader_lose_and_double_no_row(tmp_path: Path) -> None:
    """A writer gives up after 5 s behind others, which a machine without time for them may reach."""
    model, folder = make_run(tmp_path / "model", seed=1), tmp_path / "runs"
    folder.mkdir()
    context = multiprocessing.get_context("spawn")
    has_ended, is_reading = context.Event(), context.Event()
    names = [f"r{number:03}" for number in range(RUNS)]
    reader = context.Process(target=read, args=(folder, has_ended, is_reading))
    writers = [context.Process(target=record, args=(model, folder, names[at::2])) for at in range(2)]
    reader.start()
    assert is_reading.wait(60), "the reader did not begin"
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    has_ended.set()
    reader.join(120)
    assert [process.exitcode for process in (*writers, reader)] == [0, 0, 0]
    with contextlib.closing(sqlite3.connect(database_of(folder))) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        stored = [os.fsdecode(name) for (name,) in connection.execute("SELECT name FROM runs ORDER BY name")]
        figures = Counter(os.fsdecode(name) for (name,) in connection.execute("SELECT name FROM figures"))
    assert stored == names
    assert set(figures) == set(names) and len(set(figures.values())) == 1, "each run has its figures once"
