"""Compiled kernels that are part of the package: an archive for each CPU baseline, which is never written to.

`packing.py` creates the archives, and `make wheel` puts them beside the sources. An archive is used only if it was
made with the same versions, for a baseline that this CPU meets, and if only users who can change the sources can
replace it. Each of its kernels is verified by a digest. If no archive fits, one line gives the reason, and the
kernels are compiled on this machine.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import stat
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import llvmlite.binding as llvm

from . import cpu, sources
from .cache_folder import say_once

FOLDER = Path(__file__).parents[1] / "compiled"
SUFFIX = ".kernels"
MAGIC = b"replay-kernels-1\n"
_LENGTH_BYTES = 8


class Unfit(Exception):
    """Raised when an archive cannot be used; the message gives the reason."""


class Archive(NamedTuple):
    """An archive that fits this machine."""

    path: Path
    cpu: tuple[str, ...]
    """Numba's description of the CPU that the kernels were compiled for."""
    kernels: dict[str, list[Any]]
    """By `folder/name`: the offset of a kernel after the index, its length, and its digest."""
    begin: int

    def has(self, folder: str, name: str) -> bool:
        """Return whether the archive contains a kernel."""
        return f"{folder}/{name}" in self.kernels

    def read(self, folder: str, name: str) -> bytes | None:
        """Return a kernel's content, or None if it is missing, damaged or unreadable."""
        place = self.kernels.get(f"{folder}/{name}")
        if place is None:
            return None
        at, length, digest = place
        with contextlib.suppress(OSError, zlib.error), self.path.open("rb") as file:
            file.seek(self.begin + at)
            packed = file.read(length)
            if digest_of(packed) == digest:
                return zlib.decompress(packed)
        say_once(
            f"{self.path} is damaged or unreadable: kernels are compiled for this machine (install the package again)"
        )
        return None


def digest_of(content: bytes) -> str:
    """Return the digest by which an archive's index and its kernels are verified."""
    return hashlib.blake2b(content, digest_size=32).hexdigest()


def pack(kernels: dict[str, bytes], target: tuple[str, ...]) -> bytes:
    """Return the bytes of an archive of `kernels`, which are given by `folder/name`."""
    places, blobs, at = {}, [], 0
    for name, content in sorted(kernels.items()):
        blobs.append(zlib.compress(content, 9))
        places[name] = [at, len(blobs[-1]), digest_of(blobs[-1])]
        at += len(blobs[-1])
    index = json.dumps({"versions": sources.versions(), "cpu": target, "kernels": places}).encode()
    head = digest_of(index).encode() + len(index).to_bytes(_LENGTH_BYTES, "little")
    return b"".join([MAGIC, head, index, *blobs])


def open_archive(path: Path) -> Archive:
    """Read an archive's index.

    Unfit if the archive is damaged, was made with other versions, or could have been replaced by an untrusted user.
    """
    _check_owner(path.parent)
    _check_owner(path)
    digest_bytes = len(digest_of(b""))
    with path.open("rb") as file:
        head = file.read(len(MAGIC) + digest_bytes + _LENGTH_BYTES)
        length = int.from_bytes(head[-_LENGTH_BYTES:], "little")
        index = file.read(min(length, path.stat().st_size))
    if not head.startswith(MAGIC) or digest_of(index).encode() != head[len(MAGIC) : -_LENGTH_BYTES]:
        raise Unfit(f"{path} is damaged (install the package again)")
    found = json.loads(index)
    for what, version in sources.versions().items():
        if found["versions"].get(what) != version:
            raise Unfit(
                f"the compiled kernels of this package are for {what} {found['versions'].get(what)},"
                f" but {what} {version} is installed"
            )
    return Archive(path, tuple(found["cpu"]), found["kernels"], len(head) + length)


def _check_owner(path: Path) -> None:
    """Raise Unfit if `path` is a link, or if a user can write to it who cannot write to the package's sources."""
    found, package = path.lstat(), Path(__file__).stat()
    if stat.S_ISLNK(found.st_mode):
        raise Unfit(f"{path} is a link")
    if found.st_uid not in (package.st_uid, os.geteuid(), 0):
        raise Unfit(f"{path} belongs to another user")
    shared_sources = package.st_mode & stat.S_IWGRP and package.st_gid == found.st_gid
    if found.st_mode & stat.S_IWOTH or (found.st_mode & stat.S_IWGRP and not shared_sources):
        raise Unfit(f"others can write to {path}")


@functools.cache
def found() -> Archive | None:
    """Return the archive for this machine, or None if none fits, after printing a line with the reason.

    No line is printed if the package has no archives, or if Numba's bounds checks are on.
    """
    if not FOLDER.is_dir() or os.environ.get("NUMBA_BOUNDSCHECK", "0") != "0":
        return None
    why = f"{FOLDER} has no compiled kernels for this CPU ({llvm.get_host_cpu_name()})"
    for baseline in cpu.baselines_met():
        try:
            return open_archive(FOLDER / f"{baseline}{SUFFIX}")
        except FileNotFoundError:
            continue
        except Unfit as unfit:
            why = str(unfit)
        except (OSError, ValueError, KeyError) as error:
            why = f"compiled kernels in {FOLDER} cannot be read ({error})"
    say_once(f"{why}: kernels are compiled for this machine")
    return None
