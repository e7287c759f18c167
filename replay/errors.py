"""The project's exception tree. The message of an error has the problem, its place, and advice; the command prints it
as one line.

The failure of a request is data (an outcome), never one of these errors.
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
    """Why the system refused, in its own words: `no such file or directory`."""
    return (getattr(error, "strerror", None) or str(error)).lower()


class ReplayError(Exception):
    """A problem that the user can fix. `str(error)` is the message, `hint` the advice."""

    exit_code = Exit.USAGE

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@contextlib.contextmanager
def damage_named(what: str, hint: str = "") -> Iterator[None]:
    """Raise InputError, with the document's name, if processing a document from elsewhere fails because its figures
    contradict each other.

    Such a document has the right types, but may have any values. REPLAY_DEBUG=1 shows the original error.
    """
    try:
        yield
    except UnicodeError:
        raise
    except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise InputError(
            f"{what} is damaged or made up: its figures contradict each other ({type(error).__name__}: {error})",
            hint=hint or "REPLAY_DEBUG=1 shows where",
        ) from error


class UsageError(ReplayError):
    """A wrong option, key, unit or combination."""


class InputError(ReplayError):
    """A file that cannot be read as what it was given for."""


class LimitError(ReplayError):
    """A plan over a safety limit, or a target that is not allowed."""


class NotAllowedError(LimitError):
    """A host beyond this machine that is not allowed."""


class TargetError(ReplayError):
    """The target cannot be reached or resolved before the run starts."""


class RefusedError(ReplayError):
    """The target refuses most of what it is sent; what was measured until then is saved."""

    exit_code = Exit.FAILED


class OutputError(ReplayError):
    """A result that cannot be written."""


class EngineError(ReplayError):
    """A run failed after it had begun. The hint tells what was kept, and how to recover it."""

    exit_code = Exit.CRASHED


class Sending:
    """Whether this command has sent anything. Exit code 2 promises that it has not."""

    began = False


def exit_code_now(code: int) -> int:
    """The exit code of an error: not 2 once something was sent, whatever the error would be before that."""
    return Exit.CRASHED if code == Exit.USAGE and Sending.began else code
