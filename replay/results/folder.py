"""The folder of a run: its files, and how they are written without overwriting earlier results."""

from __future__ import annotations

import errno
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import msgspec

from replay.decoding import examined
from replay.errors import InputError, OutputError, reason_of
from replay.files import (
    delete_named,
    open_regular,
    read_lines,
    replacing,
)

LANES = "lanes"

SHARE = "share.json"
"""In the folder of an agent: the agent's share of a run over several machines (`replay.cluster.share`)."""

DOCUMENT_BYTES_MAX = 256 << 20
"""Maximum size of a run.json that is read: a hundred times the size of one with a thousand routes."""

_LANE_FILE = re.compile(r"\d+\.lane")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The files of a run folder.

    `run.json` is written last, so a folder that has it is complete. A folder with only `started.json` belongs to a
    run in progress or to a killed run.
    """

    path: Path

    @classmethod
    def create(cls, path: str | os.PathLike[str]) -> RunFolder:
        """Create a new run folder. Raise OutputError if the path exists or cannot be created."""
        folder = cls(Path(path))
        try:
            folder.path.mkdir(parents=True)
            folder.lanes.mkdir()
        except FileExistsError:
            raise OutputError(
                f"{path} exists already",
                hint="choose another name with -o; an earlier result is never overwritten",
            ) from None
        except OSError as error:
            raise OutputError(f"{path} cannot be created: {reason_of(error)}") from None
        return folder

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> RunFolder:
        """Return the folder of a run: complete, in progress or killed. Raise InputError if `path` is not one."""
        folder = cls(Path(path))
        if not folder.path.is_dir():
            what = "is not a folder" if folder.path.exists() else "does not exist"
            raise InputError(f"{path} {what}", hint="give the folder that `replay run -o` wrote")
        if not folder.run.exists() and not folder.started.exists():
            raise InputError(
                f"{path} is not the folder of a run: there is no run.json in it",
                hint="give the folder that `replay run -o` wrote",
            )
        return folder

    @property
    def run(self) -> Path:
        """The document of the run; the file exists only if the run is complete."""
        return self.path / "run.json"

    @property
    def started(self) -> Path:
        """The facts known at the start; the file exists only until the run is complete."""
        return self.path / "started.json"

    @property
    def source(self) -> Path:
        """The account of a followed source, up to the last full second.

        The file exists only until the run is complete.
        """
        return self.path / "source.json"

    @property
    def totals(self) -> Path:
        """One histogram per tag over the whole run."""
        return self.path / "totals.hlog"

    @property
    def latency(self) -> Path:
        """Histograms by interval, written during the run."""
        return self.path / "latency.hlog"

    @property
    def timeline(self) -> Path:
        """One row per second, written during the run."""
        return self.path / "timeline.jsonl"

    @property
    def samples(self) -> Path:
        """The sampled requests of each route."""
        return self.path / "samples.jsonl"

    @property
    def lanes(self) -> Path:
        """The folder of the lanes' memory; it exists only until the run is complete."""
        return self.path / LANES

    def lane(self, number: int) -> Path:
        """Return the file that holds the memory of one lane."""
        return self.lanes / f"{number}.lane"

    def lane_files(self) -> list[Path]:
        """Return the existing files of the lanes' memory, in the order of the lanes' numbers."""
        return sorted(self.lanes.glob("*.lane"), key=lambda path: (len(path.name), path.name))

    @property
    def is_whole(self) -> bool:
        """Whether run.json exists: the run has ended and is saved, or was recovered after a kill."""
        return self.run.exists()

    def write(self, path: Path, data: bytes, *, durable: bool = True) -> None:
        """Write a file of the folder atomically, and flush it to the disk if `durable`.

        Raise OutputError if this fails.
        """
        try:
            with replacing(path, durable=durable) as file:
                file.write(data)
        except OSError as error:
            # Without started.json nothing was sent, so that there is nothing to report.
            then = "" if path == self.started else ", then run `replay report` on the folder"
            raise OutputError(
                f"{path} cannot be written: {reason_of(error)}",
                hint=f"remove the cause, such as a full disk{then}",
            ) from error

    def settle(self) -> None:
        """Remove the files of a run in progress, once everything else is on the disk.

        An agent's files stay, because merging adds up the lanes of all agents.
        """
        if (self.path / SHARE).exists():
            return
        delete_named(self.lanes, lambda name: _LANE_FILE.fullmatch(name) is not None)
        self.source.unlink(missing_ok=True)
        self.started.unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove the folder of a run that never began to send. A complete run stays."""
        if not self.is_whole:
            shutil.rmtree(self.path, ignore_errors=True)


class AppendFile:
    """A file that grows by complete records.

    Each `append` is one write call, and a failed one leaves nothing behind.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._size = 0
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise OutputError(f"{path} cannot be created: {reason_of(error)}") from None

    def append(self, data: bytes) -> None:
        """Write all of `data`.

        If the file was removed or replaced, or if writing fails, write nothing and raise OutputError.
        """
        self._refuse_if_removed()
        try:
            written = os.write(self._fd, data)
            if written != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            os.ftruncate(self._fd, self._size)
            raise OutputError(
                f"{self.path} cannot be written: {reason_of(error)}",
                hint="remove the cause, such as a full disk, then run `replay report` on the folder: it recovers what was"
                " measured before",
            ) from error
        self._size += written

    def _refuse_if_removed(self) -> None:
        """Raise OutputError if the file was removed or replaced.

        Writes to a removed file succeed, but their data is lost.
        """
        try:
            there = os.path.samestat(self.path.stat(), os.fstat(self._fd))
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                return
            there = False
        if not there:
            raise OutputError(f"{self.path} was removed or replaced while it was written")

    def close(self) -> None:
        """Flush the file to the disk and close it. A second call has no effect. Raise OutputError if flushing fails."""
        if self._fd < 0:
            return
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise OutputError(f"{self.path} cannot be written: {reason_of(error)}") from error
        finally:
            os.close(self._fd)
            self._fd = -1


def read_rows(path: Path, kind: type) -> list:
    """Return the rows of a `.jsonl` file of the folder, without an incomplete last row.

    The list is empty if the file cannot be read. Raise InputError if the file is damaged.
    """
    decoder: msgspec.json.Decoder = msgspec.json.Decoder(examined(kind))
    try:
        with open_regular(path) as file:
            return [decoder.decode(row) for row in read_lines(file, path) if row.endswith(b"\n")]
    except OSError:
        return []
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path} is damaged: {error}") from None
