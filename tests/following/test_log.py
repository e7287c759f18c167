"""The stream of a growing log: every line once, over rotation, truncation and replacement."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from replay.errors import InputError
from replay.following import log as log_module
from replay.following.log import GrowingLog


class _Reader:
    """Collects the lines of a log in a thread."""

    def __init__(self, log: GrowingLog) -> None:
        self.log, self.lines, self.history = log, list[bytes](), list[bytes]()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        for block, end in self.log.blocks():
            found = block[:end].tobytes().splitlines()
            (self.history if self.log.in_history else self.lines).extend(found)

    def wait_for(self, count: int) -> list[bytes]:
        for _ in range(500):
            if len(self.lines) >= count:
                break
            time.sleep(0.01)
        return self.lines

    def stop(self) -> None:
        self.log.stopped.set()
        self._thread.join(timeout=5)


@contextmanager
def _reading(path: Path, *, from_beginning: bool = False) -> Iterator[_Reader]:
    log = GrowingLog(path, from_beginning=from_beginning)
    if path.exists() and path.stat().st_size:
        assert log.wait_for_head(lambda: False, lambda why: None)
    reader = _Reader(log)
    try:
        yield reader
    finally:
        reader.stop()
        log.close()


def _append(path: Path, *lines: str) -> None:
    with path.open("a") as file:
        file.writelines(f"{line}\n" for line in lines)


def test_only_lines_from_now_on_are_new(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    _append(path, "old 1", "old 2")
    with _reading(path) as reader:
        _append(path, "new 1", "new 2")
        assert reader.wait_for(2) == [b"new 1", b"new 2"]
        assert reader.history == [b"old 1", b"old 2"]


def test_from_its_beginning_all_lines_are_new(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    _append(path, "old 1")
    with _reading(path, from_beginning=True) as reader:
        _append(path, "new 1")
        assert reader.wait_for(2) == [b"old 1", b"new 1"]


def test_a_line_is_read_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("old\nhalf of ")
    with _reading(path) as reader:
        time.sleep(0.1)
        assert reader.lines == []
        with path.open("a") as file:
            file.write("a line\n")
        assert reader.wait_for(1) == [b"half of a line"]


def test_rotation_by_rename_loses_no_line_of_either_file(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    _append(path, "old")
    with _reading(path) as reader, path.open("a") as server:
        server.write("before\n")
        server.flush()
        path.rename(tmp_path / "a.log.1")
        server.write("after the rename\n")
        server.flush()
        _append(path, "in the new file")
        reader.wait_for(3)
        server.write("by a worker that has not reopened it\n")
        server.flush()
        expected = {
            b"before", b"after the rename", b"in the new file", b"by a worker that has not reopened it",
        }  # fmt: skip
        assert set(reader.wait_for(4)) == expected
        assert reader.log.rotations == 1


def test_a_rotated_file_is_given_up_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "DRAIN_S", 0.1)
    path = tmp_path / "a.log"
    _append(path, "old")
    with _reading(path) as reader:
        with path.open("a") as file:
            file.write("its last line has no end")
        path.rename(tmp_path / "a.log.1")
        _append(path, "new")
        assert set(reader.wait_for(2)) == {b"new", b"its last line has no end"}


def test_copy_and_truncate_is_counted_and_read_from_the_beginning(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    _append(path, "old " * 10)
    with _reading(path) as reader:
        _append(path, "before")
        reader.wait_for(1)
        os.truncate(path, 0)
        _append(path, "after")
        assert reader.wait_for(2) == [b"before", b"after"]
        assert reader.log.truncations == 1


@pytest.mark.parametrize("longer", [False, True], ids=["by a shorter one", "by a longer one"])
def test_a_log_that_is_replaced_in_place_is_read_from_the_beginning(tmp_path: Path, longer: bool) -> None:
    path = tmp_path / "a.log"
    _append(path, *(f"old line {number}" for number in range(10)))
    with _reading(path) as reader:
        _append(path, "before")
        reader.wait_for(1)
        lines = [f"other line {number}" for number in range(40 if longer else 2)]
        with path.open("r+") as file:
            file.write("".join(f"{line}\n" for line in lines))
            file.truncate()
        assert reader.wait_for(1 + len(lines))[1:] == [line.encode() for line in lines]
        assert reader.log.truncations == 1


def test_a_log_that_does_not_exist_yet_is_waited_for(tmp_path: Path) -> None:
    path, said = tmp_path / "later.log", list[str]()
    log = GrowingLog(path)

    def appear(why: str) -> None:
        said.append(why)
        _append(path, "first")

    assert log.wait_for_head(lambda: False, appear)
    assert said == [f"{path} does not exist"]
    assert log.head == b"first\n"
    reader = _Reader(log)
    assert reader.wait_for(1) == [b"first"]
    reader.stop()


def test_the_header_of_a_table_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    _append(path, "at,path", "1,/old")
    with _reading(path) as reader:
        reader.log.has_header = True
        path.rename(tmp_path / "a.csv.1")
        _append(path, "at,path", "2,/new")
        assert reader.wait_for(1) == [b"2,/new"]
        assert reader.history[0] == b"at,path"


def test_what_cannot_grow_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder"):
        GrowingLog(tmp_path)
    with pytest.raises(InputError, match="there is no folder"):
        GrowingLog(tmp_path / "nowhere" / "a.log")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="not a regular file"):
        GrowingLog(tmp_path / "pipe")
