"""The console that everything is printed on."""

from __future__ import annotations

import errno
import os

import rich.console


class Console(rich.console.Console):
    """Rich's, but for its own end of a command whose reader went away: who prints decides."""

    def on_broken_pipe(self) -> None:
        """Raise BrokenPipeError; rich would end the process, with exit code 1."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
