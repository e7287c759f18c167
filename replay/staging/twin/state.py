"""The running twins: one file for each in a private folder of the user, so that `replay twin set` finds them."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path

import msgspec

from replay.errors import InputError, UsageError
from replay.files import read_whole

FOLDER_VARIABLE = "REPLAY_TWIN_FOLDER"
FILE_BYTES_MAX = 1 << 16
_ATTEMPTS = 3


class Running(msgspec.Struct, kw_only=True):
    """A running twin. Its token is needed to change its settings."""

    name: str
    control: str
    token: str
    pid: int
    front: str = ""


def folder() -> Path:
    """Return the folder of this user's running twins, which is created if necessary.

    Raises InputError if it is not private.
    """
    given = os.environ.get(FOLDER_VARIABLE, "")
    base = os.environ.get("XDG_RUNTIME_DIR", "") or tempfile.gettempdir()
    place = Path(given) if given else Path(base) / f"replay-twins-{os.geteuid()}"
    with contextlib.suppress(FileExistsError):
        place.mkdir(mode=0o700)
    found = place.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise InputError(
            f"{place} is not a private folder of yours",
            hint=f"remove it, or set {FOLDER_VARIABLE} to another one",
        )
    return place


def write(running: Running) -> Path:
    """Write the file of a twin, and return its path. The twin's process removes the file at the end."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    for attempt in range(_ATTEMPTS):
        path = folder() / f"{running.pid}.json"
        try:
            descriptor = os.open(path, flags, 0o600)
        except FileNotFoundError:
            # A twin that ends may have removed the empty folder in the meantime.
            if attempt == _ATTEMPTS - 1:
                raise
            continue
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(running))
        break
    return path


def remove(path: Path) -> None:
    """Remove the file of a twin that ended, and the folder if it is empty."""
    with contextlib.suppress(OSError):
        path.unlink()
    with contextlib.suppress(OSError):
        path.parent.rmdir()


def all_running() -> list[Running]:
    """Return the running twins, and remove files of processes that have ended."""
    found: list[Running] = []
    place = folder()
    for path in sorted(place.glob("*.json")):
        try:
            running = msgspec.json.decode(read_whole(path, FILE_BYTES_MAX), type=Running)
        except (OSError, msgspec.MsgspecError, InputError):
            continue
        if _is_alive(running.pid):
            found.append(running)
        else:
            remove(path)
    with contextlib.suppress(OSError):
        place.rmdir()
    return found


def choose(control: str = "") -> Running:
    """Return the twin with this control address, or the only running twin.

    Raises UsageError if there is none, or if several run and no address is given.
    """
    twins = all_running()
    if control:
        wanted = control.removeprefix("http://").rstrip("/")
        for twin in twins:
            if twin.control.removeprefix("http://") == wanted:
                return twin
    listed = ", ".join(f"{twin.name} at {twin.control}" for twin in twins)
    if control:
        raise UsageError(
            f"--control: no twin of yours runs at {control}", hint=listed or "replay twin run FILE starts one"
        )
    if not twins:
        raise UsageError("no twin runs", hint="replay twin run FILE starts one")
    if len(twins) > 1:
        raise UsageError(f"{len(twins)} twins run: which one?", hint=f"give --control ADDRESS: {listed}")
    return twins[0]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
