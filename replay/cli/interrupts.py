"""Signals that end a command, whenever they arrive: Ctrl-C, SIGTERM and SIGHUP.

Imports little: `prepare` is called before anything else is imported.
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
"""How long to wait before a swallowed interrupt is sent again."""

INTERRUPTED = 130
"""`replay.errors.Exit.INTERRUPTED`, which is not imported yet."""


def prepare() -> None:
    """Make SIGINT, SIGTERM and SIGHUP end the command by KeyboardInterrupt. A second SIGTERM or SIGHUP kills it.

    A shell without job control starts background commands with SIGINT ignored; a SIGINT sent to this command still counts.
    SIGHUP stays ignored where it was, because that is how nohup works.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _interrupt)
    _send_again_where_swallowed()


def hush() -> None:
    """After an interrupt: suppress messages about objects that were destroyed while they were being made."""
    sys.unraisablehook = lambda _: None


def said() -> int:
    """The exit code of an interrupt that arrived before the command could handle it, or while it handled another one."""
    import contextlib

    hush()
    with contextlib.suppress(OSError, ValueError):
        print("replay: interrupted", file=sys.stderr, flush=True)
    return INTERRUPTED


def settle() -> None:
    """The command has ended: a signal can only kill the process while it leaves.

    Python remembers that a KeyboardInterrupt left an `exec`, which is how namedtuple and Numba make functions, and then
    `python -m` ends by SIGINT in place of our exit code. The next evaluated text makes it forget that.
    """
    eval("None")
    # At exit Python would search all of Numba's objects for garbage: a tenth of a short command's time.
    gc.freeze()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """End the command as Ctrl-C does: by SIGINT, which Trio delivers where it is safe."""
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
