"""Garbage collection delays neither the start of a command nor a lane that runs in Python."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from replay import garbage

_COUNTED = """
import gc, sys
collected = []
gc.callbacks.append(lambda phase, info: collected.append(info["generation"]) if phase == "stop" else None)
from replay.cli import interrupts, main
gc.collect()
collected.clear()
settle = interrupts.settle
interrupts.settle = lambda: (print(f"collections: {len(collected)}", file=sys.stderr), settle())
sys.argv = ["replay", *sys.argv[1:]]
main()
"""


def test_a_dry_run_of_a_small_log_starts_without_a_collection(tmp_path: Path) -> None:
    line = '10.0.0.1 - - [10/Oct/2025:13:55:{:02d} +0000] "GET /users/7 HTTP/1.1" 200 512\n'
    (tmp_path / "access.log").write_text("".join(line.format(second) for second in range(60)))
    command = ["run", "access.log", "--target", "http://127.0.0.1:9", "--dry-run"]
    done = subprocess.run(
        [sys.executable, "-c", _COUNTED, *command],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert "collections: 0" in done.stderr


@pytest.fixture
def usual() -> Iterator[tuple[int, int, int]]:
    thresholds = gc.get_threshold()
    yield thresholds
    gc.set_threshold(*thresholds)
    gc.unfreeze()


def test_a_lane_in_python_collects_as_often_as_python_does(usual: tuple[int, int, int]) -> None:
    garbage.collect_rarely()
    assert gc.get_threshold()[0] > 100 * usual[0]
    garbage.shorten_pauses()
    assert gc.get_threshold() == usual
    assert gc.get_freeze_count() > 0


def test_thresholds_that_a_program_has_chosen_stay(usual: tuple[int, int, int]) -> None:
    gc.set_threshold(1_234, 5, 6)
    garbage.shorten_pauses()
    assert gc.get_threshold() == (1_234, 5, 6)
