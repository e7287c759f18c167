"""Standard streams that work even if they are closed, have a limited encoding, or have no reader."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from replay.errors import reason_of
from replay.shown import shown

_LIKENESS = str.maketrans("≥≤→×µμ·…●○✓✗–━“”▁▂▃▄▅▆▇█░▒▓²", '><>xuu-~*o+x-="".:-=+*%#.:+2')
"""Replacements for characters that an encoding may lack, one character each, so that columns stay aligned."""

_HANDLER = "replay.likeness"
_RAW_BYTE = 0xDC00
"""Python represents a file name's byte that is not UTF-8 as this code point plus the byte (surrogateescape)."""


class _Stderr(io.TextIOWrapper):
    """Standard error that ignores write errors, so that a failure to show progress never ends the command."""

    def write(self, text: str, /) -> int:
        with contextlib.suppress(OSError):
            return super().write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            super().flush()


def prepare() -> None:
    """Open closed standard streams on /dev/null, and make writing to the others safe.

    Characters that they cannot encode are replaced, and errors of stderr are ignored. It must be called once, before
    anything else is opened.
    """
    _open_closed()
    codecs.register_error(_HANDLER, likeness)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr = _Stderr(
            sys.stderr.buffer, encoding=sys.stderr.encoding, errors=_HANDLER, line_buffering=True
        )


def _open_closed() -> None:
    """Open closed streams on /dev/null.

    Otherwise the next opened file would get the descriptor of a closed stream, and that stream's output.
    """
    for number in (0, 1, 2):
        with contextlib.suppress(OSError):
            os.fstat(number)
            continue
        null = os.open(os.devnull, os.O_RDWR)
        if null != number:
            os.dup2(null, number)
            os.close(null)
        os.set_inheritable(number, True)
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:
            stream = os.fdopen(number, mode, encoding="utf-8", closefd=False)
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


def likeness(error: UnicodeError) -> tuple[str, int]:
    """Replace characters that a stream cannot encode: by a similar character, the bytes of a file name, or `?`.

    It is an error handler as `codecs.register_error` expects.
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    part = error.object[error.start : error.end].translate(_LIKENESS)
    return "".join(map(_shown, part)), error.end


def _shown(character: str) -> str:
    code = ord(character)
    if code < 128:
        return character
    return f"\\x{code - _RAW_BYTE:02x}" if _RAW_BYTE <= code < _RAW_BYTE + 256 else "?"


def say(message: str, hint: str = "") -> None:
    """Print one line on stderr: the problem, and the hint if there is one."""
    line = " ".join(f"replay: {message}".split())
    with contextlib.suppress(OSError, ValueError):
        print(shown(f"{line} ({hint})" if hint else line), file=sys.stderr, flush=True)


def tell(text: str, *, err: bool = False) -> None:
    """Print a line, with control characters escaped because the text may be untrusted."""
    click.echo(shown(text), err=err)


def forget_stdout() -> None:
    """Redirect stdout to /dev/null, so that flushing the remaining output at exit cannot fail."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


@contextlib.contextmanager
def shown_of(result: Path) -> Iterator[None]:
    """Guard the printing of a result that is already on disk.

    If printing fails, the exit code is still that of the result.
    """
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        forget_stdout()
        if not isinstance(error, BrokenPipeError):
            say(f"cannot print the report: {reason_of(error)}", f"the result is in {result}")
