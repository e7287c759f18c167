"""What a twin leaves: nothing after an interrupt at any moment, and nothing for long after kill -9."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from replay.staging.twin.folders import MARK, PREFIX, own_folder, sweep

LONG_S = 300.0

SHOP = """
processes = "each"
[services.shop.routes.all]
calls = ["payment"]
[services.shop.calls.payment]
[services.payment.routes.all]
time = "5ms"
"""


class Command:
    """`replay twin run` with folders of its own. Its processes are found by their environment."""

    def __init__(self, folder: Path) -> None:
        self.temporary, self.state = folder / "temporary", folder / "state"
        self.temporary.mkdir(exist_ok=True)
        file = folder / "shop.toml"
        file.write_text(SHOP)
        self._mark = f"REPLAY_TWIN_FOLDER={self.state}"
        environment = os.environ | {"TMPDIR": str(self.temporary), "REPLAY_TWIN_FOLDER": str(self.state)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "replay.cli", "twin", "run", str(file)],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def pids(self) -> list[int]:
        """Its processes that are alive, zombies apart."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    environment = (entry / "environ").read_bytes()
                except OSError:
                    continue
                if self._mark.encode() in environment.split(b"\0"):
                    found.append(int(entry.name))
        return found

    def folders(self) -> list[Path]:
        # The first call of Python's tempfile writes a file there and removes it, which an interrupt may prevent.
        return [path for path in self.temporary.iterdir() if path.is_dir()]

    def serves(self) -> bool:
        return self.state.exists() and any(self.state.iterdir())

    def until(self, condition: Callable[[], bool]) -> None:
        end_s = time.monotonic() + LONG_S
        while not condition():
            assert time.monotonic() < end_s, f"{self.pids()} {self.folders()}"
            time.sleep(0.002)


@contextmanager
def command(folder: Path) -> Iterator[Command]:
    made = Command(folder)
    try:
        yield made
    finally:
        for pid in made.pids():
            os.kill(pid, signal.SIGKILL)
        made.process.communicate()


MOMENTS: dict[str, Callable[[Command], bool]] = {
    "its process is there": lambda command: True,
    "its folder is there": lambda command: bool(command.folders()),
    "the first process is there": lambda command: len(command.pids()) >= 2,
    "a process of a service is there": lambda command: len(command.pids()) >= 3,
    "it serves": Command.serves,
}


@pytest.mark.whole
@pytest.mark.parametrize("interrupts", [1, 2])
@pytest.mark.parametrize("moment", MOMENTS)
def test_an_interrupt_at_any_moment_leaves_no_process_and_no_file(
    tmp_path: Path, moment: str, interrupts: int
) -> None:
    with command(tmp_path) as twin:
        twin.until(lambda: MOMENTS[moment](twin))
        for _ in range(interrupts):
            twin.process.send_signal(signal.SIGINT)
            time.sleep(0.05)
        twin.process.wait(LONG_S)
        twin.until(lambda: not twin.pids())
        assert twin.folders() == []
        assert not twin.serves()


@pytest.mark.whole
def test_a_twin_that_was_killed_is_cleared_away_by_the_next_one(tmp_path: Path) -> None:
    with command(tmp_path) as killed:
        killed.until(killed.serves)
        (left,) = killed.folders()
        killed.process.kill()
        killed.until(lambda: not killed.pids())
        assert killed.folders() == [left]
    with command(tmp_path) as following:
        following.until(following.serves)
        (own,) = following.folders()
        assert own != left
        following.process.send_signal(signal.SIGTERM)
        following.process.wait(LONG_S)
        following.until(lambda: not following.pids())
        assert following.folders() == []


def test_only_marked_folders_whose_owner_is_gone_are_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    left, unmarked, other, linked = (
        tmp_path / name for name in (f"{PREFIX}left", f"{PREFIX}unmarked", "other", f"{PREFIX}linked")
    )
    for place in (left, unmarked, other):
        place.mkdir()
        (place / "twin.ndjson").write_text("log")
    for place in (left, other):
        (place / MARK).touch()
    linked.symlink_to(other)
    with own_folder() as alive:
        assert not left.exists()
        sweep()
        assert alive.exists()
        assert (other / MARK).exists() and linked.is_symlink() and (unmarked / "twin.ndjson").exists()
    assert not alive.exists()


def test_a_folder_of_another_user_is_not_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    place = tmp_path / f"{PREFIX}left"
    place.mkdir()
    (place / MARK).touch()
    with monkeypatch.context() as other:
        other.setattr("os.geteuid", lambda: os.getuid() + 1)
        sweep()
    assert place.exists()
    sweep()
    assert not place.exists()
