"""The folder of a twin without `--log`.

It is removed when the twin ends, or by the next twin if the twin was killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

PREFIX = "replay-twin-"
MARK = "owner.lock"
"""The name of a file in each of these folders.

The process that owns the folder holds a lock on the file, which the system releases when the process ends.
"""


@contextlib.contextmanager
def own_folder() -> Iterator[Path]:
    """Create a folder, which is removed at the end of the block.

    Folders that killed twins of this user left are removed first.
    """
    sweep()
    # The name is chosen before the folder is created, so that an interrupt at any time leaves nothing.
    place = Path(tempfile.gettempdir()) / f"{PREFIX}{secrets.token_hex(8)}"
    descriptor = -1
    try:
        place.mkdir(mode=0o700)
        descriptor = os.open(place / f"{MARK}.new", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        # The mark gets its name when it is locked. Without the lock another twin that starts now would remove the
        # folder as a leftover.
        (place / f"{MARK}.new").rename(place / MARK)
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        if descriptor >= 0:
            os.close(descriptor)


def sweep() -> None:
    """Remove the folders of this user whose owners have ended.

    A folder without the mark stays, because it belongs to another program, or is just being created.
    """
    for place in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            found = place.lstat()
            if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid():
                _remove_if_left(place)


def _remove_if_left(place: Path) -> None:
    """Remove a folder unless its mark belongs to another user or is not a regular file.

    Raises OSError if the folder has no mark, or its owner holds the lock.
    """
    descriptor = os.open(place / MARK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        mark = os.fstat(descriptor)
        if not stat.S_ISREG(mark.st_mode) or mark.st_uid != os.geteuid():
            return
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(place, ignore_errors=True)
    finally:
        os.close(descriptor)
