"""The error of a run that fails after it has begun: its true cause, what was saved, and how to recover it."""

from __future__ import annotations

import errno
import shlex

from replay.errors import EngineError, ReplayError, reason_of
from replay.results.folder import RunFolder

REMEDIES = {
    errno.ENOSPC: "free some disk space",
    errno.EDQUOT: "free some disk space",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f unlimited)",
    errno.EMFILE: "raise the limit on open files (ulimit -n 65536)",
    errno.ENFILE: "close programs that have many files open",
    errno.EACCES: "make the folder writable",
    errno.EROFS: "make the file system writable",
}


def failure_of(error: BaseException, folder: RunFolder, sent: int, *, saved: bool) -> BaseException:
    """Return the exception for a run that failed by `error` after `sent` requests.

    `saved` says whether its run.json was written. Any error other than a ReplayError or an OSError is a crash,
    and is returned unchanged.
    """
    if not isinstance(error, ReplayError | OSError):
        return error
    cause = str(error)
    if isinstance(error, OSError):
        cause = f"{error.filename}: {reason_of(error)}" if error.filename else reason_of(error)
    requests = "1 request" if sent == 1 else f"{sent:,} requests"
    return EngineError(
        f"the run failed after {requests}: {cause}", hint=_what_was_kept(error, folder, saved=saved)
    )


def _what_was_kept(error: BaseException, folder: RunFolder, *, saved: bool) -> str:
    report = f"replay report {shlex.quote(str(folder.path))}"
    if saved:
        return f"what was measured until then is kept: {report}"
    if not folder.path.is_dir():
        return "nothing was kept: the run folder was removed during the run"
    if not folder.started.exists() or not folder.lane(0).exists():
        return f"no results can be recovered: files of {folder.path} were removed during the run"
    remedy = REMEDIES.get(_errno_of(error), "")
    return f"{f'{remedy}, then ' if remedy else ''}recover what was measured: {report}"


def _errno_of(error: BaseException) -> int:
    """Return the errno of an error or of its causes; 0 if there is none."""
    known: BaseException | None = error
    while known is not None and not isinstance(known, OSError):
        known = known.__cause__
    return (known.errno if known is not None else 0) or 0
