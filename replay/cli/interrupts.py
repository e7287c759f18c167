"""What ends a command from outside: Ctrl-C, SIGTERM and SIGHUP, wherever in it they come."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType

AGAIN_S = 0.05
"""Until an interrupt that was swallowed is sent again."""


def prepare() -> None:
    """SIGTERM and SIGHUP end a command as Ctrl-C does: what is half written is taken away. The second one is final."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _interrupt)
    _send_again_where_swallowed()


def hush() -> None:
    """After an interrupt: objects that never became whole are destroyed, and what they say of it helps nobody."""
    sys.unraisablehook = lambda _: None


def _interrupt(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, signal.SIG_DFL, None):
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGINT)


def _send_again_where_swallowed() -> None:
    """An interrupt that comes while an object is destroyed is no more than a warning to Python, and the command goes on."""
    hook = sys.unraisablehook

    def unraisable(what: sys.UnraisableHookArgs) -> None:
        if not issubclass(what.exc_type, KeyboardInterrupt):
            hook(what)
            return
        number = signal.SIGINT
        if signal.getsignal(number) is signal.SIG_IGN:  # a job in the background
            number = signal.SIGTERM
            signal.signal(number, _interrupt)
        timer = threading.Timer(AGAIN_S, os.kill, (os.getpid(), number))
        timer.daemon = True
        timer.start()

    sys.unraisablehook = unraisable
