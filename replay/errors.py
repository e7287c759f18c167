"""The project's exception tree.

The message of an error has the problem, its place, and advice; the command prints it as one line. The failure of
a request is data (an outcome), never one of these errors.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of the `replay` command."""

    PASSED = 0
    CRASHED = 1
    USAGE = 2
    INCONCLUSIVE = 3
    INVALID = 4
    FAILED = 99
    INTERRUPTED = 130


def reason_of(error: Exception) -> str:
    """Return the system's words for an error, or else the error's text, in lower case: `no such file or directory`."""
    return (getattr(error, "strerror", None) or str(error)).lower()


class ReplayError(Exception):
    """A problem that the user can fix. `str(error)` is the message, `hint` the advice."""

    exit_code = Exit.USAGE

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@contextlib.contextmanager
def damage_named(what: str, hint: str = "") -> Iterator[None]:
    """Raise InputError, with the name `what`, if the block fails because of the values in a document.

    A document from elsewhere may have the right types, and still any values. A UnicodeError is not converted.
    REPLAY_DEBUG=1 shows the original error.
    """
    try:
        yield
    except UnicodeError:
        raise
    except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise InputError(
            f"{what} is damaged or invalid: its values cannot be processed ({type(error).__name__}: {error})",
            hint=hint or "REPLAY_DEBUG=1 shows where",
        ) from error


class UsageError(ReplayError):
    """An option or setting that is wrong, contradicts another one, or cannot be used on this machine."""


class InputError(ReplayError):
    """An input that is missing, damaged, not allowed to be used, or of another kind than expected."""


class LimitError(ReplayError):
    """A plan or another request that exceeds a limit, or a host that is not allowed."""


class NotAllowedError(LimitError):
    """A host beyond this machine that is not allowed."""


class TargetError(ReplayError):
    """A host that cannot be resolved or reached, usually the target before the run starts."""


class RefusedError(ReplayError):
    """The target refuses most requests; what was measured until then is saved."""

    exit_code = Exit.FAILED


class OutputError(ReplayError):
    """A result that cannot be written, for example because it exists already."""


class EngineError(ReplayError):
    """A command failed after it had begun to send or to run. The hint, if any, says what was kept."""

    exit_code = Exit.CRASHED


class Sending:
    """Whether this command has sent anything. Exit code 2 promises that it has not."""

    began = False


def exit_code_now(code: int) -> int:
    """Return the exit code of an error: 1 instead of 2 if this command has already sent something."""
    return Exit.CRASHED if code == Exit.USAGE and Sending.began else code
