"""The auth header that a command prints.

The command runs before the load and at intervals during it. Its output is not saved.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable

import trio

from replay.errors import InputError, UsageError
from replay.results.document import Note
from replay.settings.headers import expand
from replay.settings.session_rules import Auth
from replay.units import SECOND_NS

TIMEOUT_S = 30.0
"""Time limit for the command in seconds."""

OUTPUT_BYTES_MAX = 1 << 16
"""Limit on the command's output, far above the length of any header."""


class Authoriser:
    """Refreshes the auth header with a command. Failures during the run become a note."""

    def __init__(self, auth: Auth) -> None:
        self._auth = auth
        self._failures = 0
        self._why = ""

    async def first(self) -> bytes:
        """Return the header line for the start of the run.

        InputError if the command fails; UsageError if its output cannot be sent.
        """
        return await header_line(self._auth)

    async def keep_fresh(self, put: Callable[[bytes], None]) -> None:
        """Run the command at each interval until cancelled, and call `put` with each new header line.

        Returns at once without an interval. After a failure the last good header stays, and the command runs again
        after the next interval.
        """
        if not self._auth.refresh_ns:
            return
        while True:
            await trio.sleep(self._auth.refresh_ns / SECOND_NS)
            try:
                put(await header_line(self._auth))
            except (InputError, UsageError) as error:
                self._failures += 1
                self._why = str(error)

    def notes(self) -> list[Note]:
        """Return a note about failed refreshes during the run, if there were any."""
        if not self._failures:
            return []
        times = f"{self._failures} times" if self._failures > 1 else "once"
        return [
            Note(
                "AUTH_STALE",
                f"refreshing the auth header failed {times}: {self._why}; the last good header was sent",
            )
        ]


async def header_line(auth: Auth) -> bytes:
    """Run the command and return its header line, with its line end: by default, `Authorization: Bearer ...`.

    InputError if the command fails or prints nothing; UsageError if it cannot be parsed, or its output cannot be sent.
    The message of an error may be saved in a run, so it does not contain the command or its output. The hint
    may contain them, because it is only printed.
    """
    words = [expand("auth.command", word, os.environ) for word in _split(auth.command)]
    program = words[0]
    try:
        with trio.fail_after(TIMEOUT_S):
            code, printed, complained = await _output_of(words)
    except OSError as error:
        raise InputError(
            f"auth.command: {(error.strerror or 'it cannot be run').lower()}",
            hint=f"give a program that prints the token; {program} cannot be run",
        ) from None
    except trio.TooSlowError:
        raise InputError(
            f"auth.command did not end within {TIMEOUT_S:g} s", hint=f"run {program} to see why"
        ) from None
    if max(len(printed), len(complained)) > OUTPUT_BYTES_MAX:
        raise InputError(
            f"auth.command printed more than {OUTPUT_BYTES_MAX:,} bytes",
            hint=f"only its first line is used; run {program} to see what it prints",
        )
    if code:
        complaint = complained.decode(errors="replace").strip().partition("\n")[0][:200]
        how = f"exit code {code}" if code > 0 else f"signal {-code}"
        raise InputError(
            f"auth.command ended with {how}",
            hint=f"{program} printed: {complaint}" if complaint else f"run {program} to see why",
        )
    output = printed.decode("latin-1").strip().partition("\n")[0].strip()
    if not output:
        raise InputError(
            "auth.command printed nothing", hint=f"the first line that {program} prints is the token"
        )
    value = auth.value.replace("{output}", output)
    if not all(" " <= character <= "~" for character in value):
        raise UsageError(
            "auth.command printed characters that a header cannot contain",
            hint=f"run {program} to see what it prints",
        )
    return f"{auth.header}: {value}\r\n".encode("latin-1")


async def _output_of(words: list[str]) -> tuple[int, bytes, bytes]:
    """Run a program, and return its exit code and what it wrote to standard output and error.

    The program is killed when it writes more than OUTPUT_BYTES_MAX.
    """
    process = await trio.lowlevel.open_process(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    written = bytearray(), bytearray()

    async def read(stream: trio.abc.ReceiveStream, into: bytearray) -> None:
        async for piece in stream:
            into += piece
            if len(into) > OUTPUT_BYTES_MAX:
                # Do not read to the end: a child of the program may keep the other stream open.
                process.kill()
                nursery.cancel_scope.cancel()

    try:
        assert process.stdout is not None and process.stderr is not None
        async with process.stdout, process.stderr, trio.open_nursery() as nursery:
            nursery.start_soon(read, process.stdout, written[0])
            nursery.start_soon(read, process.stderr, written[1])
        return await process.wait(), bytes(written[0]), bytes(written[1])
    finally:
        if process.returncode is None:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


def _split(command: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(
            f"auth.command: {error}", hint="close each quote, and do not end the command with a backslash"
        ) from None
    if not words:
        raise UsageError("auth.command: it is empty", hint="give a program that prints the token")
    return words
