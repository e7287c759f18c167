"""The folder for compiled kernels: it is chosen so that no other user can write to it.

Numba executes the files in this folder as code. So a folder is used only if it is not a symbolic link, belongs to
this user (or to root, if kernels are only read from it), and is not writable by others. The permissions of existing
folders are never changed. Only files whose names are those of compiled kernels are ever deleted.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import functools
import hashlib
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

_VERSION = re.compile(r"([\w.]+)-[0-9a-f]{16}")
"""The name of a folder that holds one version of a kernel module."""

_FILE = re.compile(r".+\.kernel(?:\.tmp\.\w+)?|.+\.(?:nbi|nbc)(?:\.\w+)*|.+\.tmp\.\w+")
"""The name of a file in the cache: a compiled kernel, complete or being written (`nbi` and `nbc`: older releases)."""

CHOSEN = "REPLAY_KERNELS"
"""Environment variable that sets the folder for child processes."""

_REPORTED = "REPLAY_SAID"
"""Environment variable with digests of the lines already printed, so that child processes do not repeat them."""

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def say_once(text: str) -> None:
    """Print a line about compiled kernels on standard error, once for this command and its child processes."""
    mark = hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
    reported = os.environ.get(_REPORTED, "").split()
    if mark not in reported:
        os.environ[_REPORTED] = " ".join([*reported, mark])
        with contextlib.suppress(OSError, ValueError, AttributeError):
            print(f"replay: {text}", file=sys.stderr, flush=True)


def _why_exchangeable(folder: Path) -> str:
    """Return why other users could replace what is in a folder, or an empty text if they cannot."""
    found = folder.stat()
    if found.st_uid not in (os.geteuid(), 0, Path("/").stat().st_uid):
        return f"{folder} belongs to another user"
    if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
        return f"others can write to {folder}"
    return ""


class UnsafeFolder(Exception):
    """Raised when other users could put code into a folder; the message says how."""


def check_folder(folder: Path) -> None:
    """Create `folder` if it is missing, and check that it is safe and writable.

    UnsafeFolder if others can write to it or replace it; OSError if it cannot be created or written to.
    """
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    _check_safe(folder, {os.geteuid()})
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
        code = errno.EROFS if read_only else errno.EACCES
        raise PermissionError(code, os.strerror(code), str(folder))


def _check_safe(folder: Path, owners: set[int]) -> None:
    """Raise UnsafeFolder if users other than `owners` could write to a folder, or replace it."""
    found = folder.lstat()
    if stat.S_ISLNK(found.st_mode):
        raise UnsafeFolder(f"{folder} is a link")
    if found.st_uid not in owners:
        raise UnsafeFolder(f"{folder} belongs to another user")
    if found.st_mode & _OTHERS_WRITE:
        raise UnsafeFolder(f"others can write to {folder}")
    if why := _why_exchangeable(folder.parent):
        raise UnsafeFolder(why)


def _wanted() -> Iterator[Path]:
    """Yield the folders to try, in the order of preference."""
    if chosen := os.environ.get(CHOSEN):
        yield Path(chosen)
    base = os.environ.get("REPLAY_CACHE") or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    with contextlib.suppress(RuntimeError):
        yield Path(base).expanduser().absolute() / "replay" / "kernels"
    yield Path(tempfile.gettempdir()).absolute() / f"replay-kernels-{os.geteuid()}"


def cache_root() -> Path:
    """Return the folder for compiled kernels: the first that is safe and writable.

    If none is, this is a temporary folder that is removed when the process ends; PermissionError if there is no safe
    place for that either. If a folder was refused, a line on standard error gives the reason and the folder that is
    used instead, which child processes then use, too.
    """
    refused: list[str] = []
    for folder in _wanted():
        try:
            check_folder(folder)
        except UnsafeFolder as error:
            refused.append(str(error))
        except OSError as error:
            refused.append(f"{folder} cannot be used ({error.strerror})")
        else:
            return _chosen(folder, refused, f"compiled kernels are kept in {folder}")
    return _chosen(_of_this_process(), refused, "kernels are compiled for this command only")


def _chosen(folder: Path, refused: list[str], so: str) -> Path:
    if refused:
        os.environ[CHOSEN] = str(folder)
        say_once(f"{'; '.join(refused)}: {so} (set REPLAY_CACHE to a folder of your own)")
    return folder


root = functools.cache(cache_root)
"""The folder to which newly compiled kernels are written. It has a subfolder for each version of each module."""


@functools.cache
def _readable() -> tuple[Path, ...]:
    """Return the safe folders that exist.

    They may be read-only and belong to root, such as the folder that was filled when a container image was built.
    """
    safe = []
    for folder in _wanted():
        try:
            _check_safe(folder, {os.geteuid(), 0})
        except UnsafeFolder:
            # `root` reports the reason, together with the folder that is used instead.
            root()
        except OSError:
            continue
        else:
            safe.append(folder)
    return tuple(safe)


def places() -> tuple[Path, ...]:
    """Return the folders to search for compiled kernels."""
    chosen = (root(),) if root.cache_info().currsize else ()
    return tuple(dict.fromkeys((*chosen, *_readable())))


def _of_this_process() -> Path:
    """Create a temporary folder, which is removed when this process ends. PermissionError if no place is safe."""
    for place in (tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"):
        with contextlib.suppress(OSError):
            if _why_exchangeable(Path(place)):
                continue
            folder = Path(tempfile.mkdtemp(prefix="replay-kernels-", dir=place))
            atexit.register(_remove, folder, os.getpid())
            os.environ[CHOSEN] = str(folder)
            return folder
    what = "there is no safe folder for compiled kernels; set REPLAY_CACHE to one that only you can write to"
    raise PermissionError(errno.EACCES, what, tempfile.gettempdir())


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


def prune(root: Path, kept: int) -> None:
    """Delete all but the newest `kept` versions of each module.

    It deletes only folders of this user that are named like a version, and only the kernel files in them.
    """
    versions: dict[str, list[tuple[float, str]]] = {}
    with contextlib.suppress(OSError), os.scandir(root) as entries:
        for entry in entries:
            if (named := _VERSION.fullmatch(entry.name)) and entry.is_dir(follow_symlinks=False):
                found = entry.stat(follow_symlinks=False)
                if found.st_uid == os.geteuid():
                    versions.setdefault(named[1], []).append((found.st_mtime, entry.name))
    for found_versions in versions.values():
        for _, name in sorted(found_versions)[:-kept]:
            with contextlib.suppress(OSError):
                _delete(root, name)


def _delete(root: Path, name: str) -> None:
    """Delete the kernel files in the folder of one version, and then the folder.

    The folder is opened without following links, and files are deleted relative to its descriptor. If it contains
    files with other names, these remain, and removing the folder raises OSError.
    """
    handle = os.open(root / name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        for inside in os.listdir(handle):  # noqa: PTH208 (of a handle)
            if _FILE.fullmatch(inside):
                os.unlink(inside, dir_fd=handle)
    finally:
        os.close(handle)
    (root / name).rmdir()
