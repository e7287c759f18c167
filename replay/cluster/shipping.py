"""The transfer of traces to agents: addressed by content, in pieces, and resumed after an interruption.

A trace is identified by the digest of its manifest, which has the checksums of all its files. An agent keeps the
trace in a folder of that name, so that each machine gets a trace only once.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from pathlib import Path
from typing import Protocol

import trio

from replay.errors import InputError, reason_of
from replay.trace import Trace
from replay.trace.manifest import MANIFEST

from .messages import PIECE_BYTES, FileOffer, Piece

PARTIAL = ".partial"


def trace_digest(path: Path) -> str:
    """Return the digest that identifies a trace's content. Raises InputError if it has no manifest."""
    try:
        return hashlib.sha256((path / MANIFEST).read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{path / MANIFEST}: {reason_of(error)}") from None


def trace_offers(path: Path) -> list[FileOffer]:
    """List the files of a trace, the manifest last, so that a folder that has the manifest is complete."""
    manifest = Trace.open(path).manifest
    names = sorted(manifest.files) or sorted(file.name for file in path.iterdir() if file.name != MANIFEST)
    return [FileOffer(name, (path / name).stat().st_size) for name in [*names, MANIFEST]]


def offers(folder: Path) -> list[FileOffer]:
    """List every file below a folder, except symbolic links."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return [FileOffer(str(path.relative_to(folder)), path.stat().st_size) for path in files]


def read_piece(folder: Path, offers_of: dict[str, int], name: str, offset: int) -> Piece:
    """Read a piece of an offered file.

    Raises InputError for any other file, or for a file that cannot be read.
    """
    if name not in offers_of:
        raise InputError(f"{name!r} is not a file that was offered")
    try:
        with (folder / name).open("rb") as file:
            file.seek(offset)
            data = file.read(PIECE_BYTES)
    except OSError as error:
        raise InputError(f"{folder / name}: {reason_of(error)}") from None
    return Piece(file=name, offset=offset, data=data, last=offset + len(data) >= offers_of[name] or not data)


class AskPiece(Protocol):
    """Requests a piece of a file from the other side."""

    async def __call__(self, name: str, offset: int) -> Piece:
        """Return the piece of the file that begins at `offset`."""


async def receive_files(folder: Path, files: list[FileOffer], ask: AskPiece) -> int:
    """Receive the parts of these files that `folder` does not have yet, and return the number of bytes received.

    Raises InputError if a file is not as offered.
    """
    came = 0
    for offer in files:
        path = inside(folder, offer.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        size = path.stat().st_size if path.exists() else 0
        if size > offer.size:
            path.unlink()
            size = 0
        with path.open("ab") as file:
            while size < offer.size:
                piece = await ask(offer.name, size)
                if piece.file != offer.name or piece.offset != size or not piece.data:
                    raise InputError(f"{offer.name} ended after {size:,} of {offer.size:,} bytes")
                await trio.to_thread.run_sync(file.write, piece.data)
                size += len(piece.data)
                came += len(piece.data)
    return came


def inside(folder: Path, name: str) -> Path:
    """Return the path of a file below `folder`. Raises InputError for a name that points outside of it."""
    path = Path(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise InputError(f"a file {name!r} was offered, which is outside of its folder")
    return folder / path


def _lock(path: Path) -> int:
    """Wait for other agents on this machine that receive the same trace, and return the lock's descriptor."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


async def obtain_trace(
    digest: str, shared: str, files: list[FileOffer], store: Path, ask: AskPiece
) -> tuple[Trace, int]:
    """Return the trace with this digest, and the number of bytes transferred.

    The trace is used at the coordinator's path, or in the store, if it is there on this machine. If it is at neither
    place, it is transferred into the store. Raises InputError if the received trace is not the announced one.
    """
    if shared and (Path(shared) / MANIFEST).is_file():
        if trace_digest(Path(shared)) == digest:
            return Trace.open(shared), 0
        if not files:
            raise InputError(
                f"the trace {shared} differs from the coordinator's: its checksums differ",
                hint="copy it again, or remove it so that it is transferred",
            )
    place = store / digest
    if (place / MANIFEST).is_file() and trace_digest(place) == digest:
        return Trace.open(place), 0
    lock = await trio.to_thread.run_sync(_lock, store / f"{digest}.lock")
    try:
        if (place / MANIFEST).is_file() and trace_digest(place) == digest:
            return Trace.open(place), 0
        partial = store / (digest + PARTIAL)
        partial.mkdir(parents=True, exist_ok=True)
        came = await receive_files(partial, files, ask)
        if trace_digest(partial) != digest:
            shutil.rmtree(partial, ignore_errors=True)
            raise InputError("the received trace is not the announced one: its checksum differs")
        if place.exists():
            shutil.rmtree(place)
        partial.rename(place)
        return Trace.open(place), came
    finally:
        os.close(lock)
