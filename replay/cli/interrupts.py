"""Signals that end a command at any time: Ctrl-C, SIGTERM and SIGHUP.

This module imports little, because `prepare` is called before anything else is imported.
"""

from __future__ import annotations

import gc
import os
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

AGAIN_S = 0.05
"""The delay after which an interrupt that Python turned into a warning is sent again."""

INTERRUPTED = 130
"""Equal to `replay.errors.Exit.INTERRUPTED`, which is not imported yet."""


def prepare() -> None:
    """Make SIGINT, SIGTERM and SIGHUP end the command with KeyboardInterrupt.

    The second SIGTERM, or the second SIGHUP, kills the process. A shell without job control starts background commands
    with SIGINT ignored; this command handles SIGINT even then. SIGHUP stays ignored if it was ignored at the start,
    because nohup relies on that.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _interrupt)
    _send_again_where_swallowed()


def hush() -> None:
    """Suppress Python's warnings about exceptions in destructors, which an interrupt can cause."""
    sys.unraisablehook = lambda _: None


def exit_code() -> int:
    """Report an interrupt that `invoke` did not handle, and return the exit code.

    Such an interrupt arrives before `invoke` begins, or while it reports an earlier one.
    """
    import contextlib

    hush()
    with contextlib.suppress(OSError, ValueError):
        print("replay: interrupted", file=sys.stderr, flush=True)
    return INTERRUPTED


def settle() -> None:
    """Restore default signal handling at the end of the command, so that a signal kills the process while it exits.

    If a KeyboardInterrupt leaves an `exec` (which namedtuple and Numba use to make functions), Python remembers it,
    and `python -m` then ends by SIGINT instead of with our exit code. Evaluating another text clears that.
    """
    eval("None")
    # At exit Python would search all of Numba's objects for garbage, which takes a tenth of a short command's time.
    gc.freeze()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise SIGINT, so that the command ends as it does after Ctrl-C; the same signal again kills the process.

    Trio delivers SIGINT at a safe point.
    """
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(signal.SIGINT)


def _send_again_where_swallowed() -> None:
    """Send an interrupt again if Python turned it into a warning because an object was being destroyed."""
    hook = sys.unraisablehook

    def unraisable(what: sys.UnraisableHookArgs) -> None:
        if not issubclass(what.exc_type, KeyboardInterrupt):
            hook(what)
            return
        import threading

        timer = threading.Timer(AGAIN_S, os.kill, (os.getpid(), signal.SIGINT))
        timer.daemon = True
        timer.start()

    sys.unraisablehook = unraisable
