"""Opens, writes and deletes files safely in folders to which others may write.

Reading: `open_regular` and `read_whole` accept only regular files, the latter up to a limit. Writing (`replacing`):
data is written under a random name and then renamed, so a link at the place is replaced and not followed. Changing in
place (`open_own`) accepts only files of this user, deleting (`delete_named`) only folders of this user; neither follows
links.
`native/replay_native/ground/cache_folder.py` does the same for compiled kernels.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from .errors import InputError, OutputError, reason_of

TEXT_BYTES_MAX = 100 << 20
"""The default limit of `read_whole`, which is above the size of any file that a person writes."""

LINE_BYTES_MAX = 64 << 20
"""The length of the longest line that is accepted."""

_NAME_KEPT = 100
"""Maximum number of characters of a file's name in its temporary name, which must not exceed the system's limit."""

_DEVICES = Path("/dev")
_LINKS_MAX = 40
_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}


def open_regular(path: str | os.PathLike[str], *, or_pipe: bool = False) -> BinaryIO:
    """Open a regular file for reading.

    Raises InputError if it is something else, which might never end, and OSError if the system refuses. With
    `or_pipe`, a pipe that the shell made, such as that of `<(zcat totals.hlog.gz)`, is accepted, too.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
    if or_pipe and kind == stat.S_IFIFO and os.fspath(path).startswith(("/dev/", "/proc/")):
        os.set_blocking(descriptor, True)
    elif kind != stat.S_IFREG:
        os.close(descriptor)
        raise InputError(
            f"{os.fspath(path)} is {_KINDS.get(kind, 'a device')}, not a file", hint="give a regular file"
        )
    return os.fdopen(descriptor, "rb")


def read_whole(path: str | os.PathLike[str], bytes_max: int = TEXT_BYTES_MAX) -> bytes:
    """Return the bytes of a regular file.

    Raises InputError if it is something else or larger than `bytes_max`, and OSError if the system refuses.
    """
    with open_regular(path) as file:
        data = file.read(bytes_max + 1)
    if len(data) > bytes_max:
        raise InputError(f"{os.fspath(path)} is larger than {_size_text(bytes_max)}, which is the limit")
    return data


def is_own_file(path: Path) -> bool:
    """Return whether there is a regular file at a path; a link to one does not count."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def read_lines(file: BinaryIO, name: str | os.PathLike[str]) -> Iterator[bytes]:
    """Yield the lines of a file. Raises InputError if one is longer than LINE_BYTES_MAX."""
    while line := file.readline(LINE_BYTES_MAX + 1):
        if len(line) > LINE_BYTES_MAX:
            raise InputError(
                f"{os.fspath(name)} has a line longer than {_size_text(LINE_BYTES_MAX)}, which is the limit"
            )
        yield line


def _size_text(size: int) -> str:
    for unit, bits in (("GiB", 30), ("MiB", 20)):
        if size >= 1 << bits:
            return f"{size >> bits:,} {unit}"
    return f"{size >> 10:,} KiB"


def open_own(path: Path) -> BinaryIO:
    """Open a file to change it in place.

    Raises InputError if it is a link, has a second name (a hard link), belongs to another user, or is not a regular
    file. Raises OSError if the system refuses.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise InputError(f"{path} is a link: it is not followed", hint="put the file itself there") from None
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1 or found.st_uid != os.geteuid():
        os.close(descriptor)
        what = "another user's file" if found.st_uid != os.geteuid() else "a hard link"
        what = what if stat.S_ISREG(found.st_mode) else "not a regular file"
        raise InputError(
            f"{path} is {what}: it is not changed", hint="copy the folder (cp -r), and use the copy"
        )
    return os.fdopen(descriptor, "rb+")


def refuse_foreign(folder: Path) -> None:
    """Raise InputError if a folder to be changed belongs to another user."""
    if folder.stat().st_uid != os.geteuid():
        raise InputError(
            f"{folder} belongs to another user: it is not changed", hint="copy it (cp -r), and use the copy"
        )


@contextlib.contextmanager
def replacing(place: Path, *, durable: bool = False) -> Iterator[BinaryIO]:
    """Open a temporary file, which replaces `place` when the block ends.

    If the block raises, the temporary file is removed and `place` is unchanged. With `durable` the new content is also
    flushed to the disk. Raises OSError if the system refuses.
    """
    folder = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    partial = f".{place.name[:_NAME_KEPT]}.{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(partial, flags, 0o666, dir_fd=folder), "wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(partial, place.name, src_dir_fd=folder, dst_dir_fd=folder)
        if durable:
            os.fsync(folder)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(partial, dir_fd=folder)
        os.close(folder)


def write_whole(path: Path, data: bytes) -> None:
    """Replace the content of `path` by `data`.

    `path` is a name that the user gave. Raises OutputError if that fails; the old content of a file is then unchanged.
    Devices and pipes (`/dev/null`, `/dev/stdout`) are written to directly. A link is kept and its file replaced. A link
    that belongs to neither this user nor root raises OutputError.
    """
    try:
        if path.parent == _DEVICES or (path.exists() and not path.is_file()):
            with path.open("wb") as file:
                file.write(data)
            return
        with replacing(followed(path)) as file:
            file.write(data)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {reason_of(error)}") from None


def append(path: Path, data: bytes) -> None:
    """Append `data` to the file at `path`, which the user gave; make it if needed. Raises OutputError if that fails."""
    try:
        with followed(path).open("ab") as file:
            file.write(data)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {reason_of(error)}") from None


def followed(path: Path) -> Path:
    """Resolve a name that the user gave, along links of this user and of root.

    Raises OutputError if a link belongs to another user, and OSError if links form a loop or the system refuses.
    """
    for _ in range(_LINKS_MAX):
        try:
            found = path.lstat()
        except FileNotFoundError:
            return path
        if not stat.S_ISLNK(found.st_mode):
            return path
        if found.st_uid not in (os.geteuid(), 0):
            raise OutputError(
                f"{path} is a link of another user: it is not followed", hint="give another name"
            )
        path = path.parent / path.readlink()
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def delete_named(folder: Path, is_ours: Callable[[str], bool]) -> bool:
    """Delete the files of a folder that `is_ours` accepts by name, and the folder if it is then empty.

    Returns whether the folder is gone. No file is deleted if the folder belongs to another user. A link is never
    followed: neither one at the folder's name nor one in it.
    """
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return not os.path.lexists(folder)
    try:
        if os.fstat(handle).st_uid == os.geteuid():
            for name in os.listdir(handle):  # noqa: PTH208 (of a handle)
                if is_ours(name):
                    with contextlib.suppress(OSError):
                        os.unlink(name, dir_fd=handle)
    finally:
        os.close(handle)
    with contextlib.suppress(OSError):
        folder.rmdir()
        return True
    return False
