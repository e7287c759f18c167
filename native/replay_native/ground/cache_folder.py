"""Chooses the folder for compiled kernels, which nobody else can write to.

Numba executes the files in it as code. So a folder is used only if it is a real one (not a link), belongs to this user,
and is not writable by others. The permissions of existing folders are never changed. Only files that have the names of
compiled kernels are ever deleted.
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
"""Name of the folder of one version of a kernel module."""

_FILE = re.compile(r".+\.kernel(?:\.tmp\.\w+)?|.+\.(?:nbi|nbc)(?:\.\w+)*|.+\.tmp\.\w+")
"""Name of a file that is written there: a compiled kernel, or one that is not complete (`nbi`, `nbc`: older versions)."""

CHOSEN = "REPLAY_KERNELS"
"""Set for children where the folder is not the wanted one."""

_SAID = "REPLAY_SAID"
"""Names, to children, the lines that were printed already."""

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def say_once(text: str) -> None:
    """Print a line about compiled kernels on standard error, once for this command and its children."""
    mark = hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
    said = os.environ.get(_SAID, "").split()
    if mark not in said:
        os.environ[_SAID] = " ".join([*said, mark])
        with contextlib.suppress(OSError, ValueError, AttributeError):
            print(f"replay: {text}", file=sys.stderr, flush=True)


def _why_exchangeable(folder: Path) -> str:
    """Why others could exchange what lies in a folder, in words; nothing where they cannot."""
    found = folder.stat()
    if found.st_uid not in (os.geteuid(), 0, Path("/").stat().st_uid):
        return f"{folder} belongs to another user"
    if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
        return f"others can write to {folder}"
    return ""


class UnsafeFolder(Exception):
    """Others could put code into a folder; the message says how."""


def check_folder(folder: Path) -> None:
    """Create `folder` if it is missing. UnsafeFolder if others can write to it, OSError if it cannot be used."""
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    _check_safe(folder, {os.geteuid()})
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
        code = errno.EROFS if read_only else errno.EACCES
        raise PermissionError(code, os.strerror(code), str(folder))


def _check_safe(folder: Path, owners: set[int]) -> None:
    """UnsafeFolder if users other than `owners` could write to a folder, or replace it."""
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
    """The folders to try, the best one first."""
    if chosen := os.environ.get(CHOSEN):
        yield Path(chosen)
    base = os.environ.get("REPLAY_CACHE") or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    with contextlib.suppress(RuntimeError):
        yield Path(base).expanduser().absolute() / "replay" / "kernels"
    yield Path(tempfile.gettempdir()).absolute() / f"replay-kernels-{os.geteuid()}"


def cache_root() -> Path:
    """The user's own cache of compiled kernels, or one for this process and its children if there is no safe place.

    If a place is not safe or not writable, a line on standard error gives the reason and the folder that is used
    instead. Children use the same folder.
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
    return _chosen(_of_this_process(), refused, "kernels are compiled for this command alone")


def _chosen(folder: Path, refused: list[str], so: str) -> Path:
    if refused:
        os.environ[CHOSEN] = str(folder)
        say_once(f"{'; '.join(refused)}: {so} (set REPLAY_CACHE to a folder of your own)")
    return folder


root = functools.cache(cache_root)
"""Where kernels are kept that are compiled now: a subfolder for each version of each module."""


@functools.cache
def _readable() -> tuple[Path, ...]:
    """The safe folders that exist. They may be read-only, and root's: those of an image, filled when it was built."""
    safe = []
    for folder in _wanted():
        try:
            _check_safe(folder, {os.geteuid(), 0})
        except UnsafeFolder:
            # The error is reported, together with the folder that is used instead.
            root()
        except OSError:
            continue
        else:
            safe.append(folder)
    return tuple(safe)


def places() -> tuple[Path, ...]:
    """The folders to look for compiled kernels in."""
    chosen = (root(),) if root.cache_info().currsize else ()
    return tuple(dict.fromkeys((*chosen, *_readable())))


def _of_this_process() -> Path:
    """A folder that is removed with this process. PermissionError if no place is safe."""
    for place in (tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"):
        with contextlib.suppress(OSError):
            if _why_exchangeable(Path(place)):
                continue
            folder = Path(tempfile.mkdtemp(prefix="replay-kernels-", dir=place))
            atexit.register(_remove, folder, os.getpid())
            os.environ[CHOSEN] = str(folder)
            return folder
    what = "no folder for compiled kernels that others cannot write to; set REPLAY_CACHE to one"
    raise PermissionError(errno.EACCES, what, tempfile.gettempdir())


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


def prune(root: Path, kept: int) -> None:
    """Delete the oldest versions of each module but `kept`: only folders and files that have a cache's names."""
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
    """Delete one version's folder by its handle. Files with other names stay, and so does the folder then."""
    handle = os.open(root / name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        for inside in os.listdir(handle):  # noqa: PTH208 (of a handle)
            if _FILE.fullmatch(inside):
                os.unlink(inside, dir_fd=handle)
    finally:
        os.close(handle)
    (root / name).rmdir()
