"""Agents on hosts that are reached by ssh. Each communicates over the standard streams of its own ssh process.

ssh authenticates both sides and encrypts, so that no port is opened and no token is needed.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import trio

from replay.errors import InputError, TargetError, UsageError, reason_of
from replay.files import open_regular

from .framing import Connection
from .transports import Accept, Started, Transport, wait_for

SSH_VARIABLE = "REPLAY_SSH"
"""The environment variable with the command to run instead of `ssh`, including its options."""

SSH = "ssh -o BatchMode=yes -o ServerAliveInterval=5"
AGENT = "replay agent --stdio"
HOSTS_BYTES_MAX = 1 << 20
_FORM = "give --cluster ssh:FILE, where FILE lists the hosts, one per line"
_LINES = "write one host per line, as `ssh` accepts it"


def read_hosts(path: Path) -> list[tuple[str, str]]:
    """Read the hosts of a file, each with the command of its agent.

    A line is `HOST [COMMAND]`, and `#` begins a comment. Raises InputError if the file cannot be read, is not text or
    is too large, UsageError if no file is given, it lists no host, or a line begins with an option.
    """
    if path == Path():
        raise UsageError("--cluster ssh: needs a file", hint=_FORM)
    try:
        with open_regular(path, or_pipe=True) as file:
            data = file.read(HOSTS_BYTES_MAX + 1)
        text = data.decode()
    except UnicodeDecodeError:
        raise InputError(f"--cluster ssh:{path}: the file is not text", hint=_LINES) from None
    except OSError as error:
        raise InputError(f"--cluster ssh:{path}: {reason_of(error)}", hint=_FORM) from None
    if len(data) > HOSTS_BYTES_MAX:
        raise InputError(f"--cluster ssh:{path}: the file is larger than 1 MiB", hint=_LINES)
    hosts = []
    for number, line in enumerate(text.splitlines(), 1):
        host, _, command = line.partition("#")[0].strip().partition(" ")
        if host.startswith("-"):
            raise UsageError(f"{path}, line {number}: {host!r} is an option of ssh, and not a host")
        if host:
            hosts.append((host, command.strip() or AGENT))
    if not hosts:
        raise UsageError(f"--cluster ssh:{path}: the file contains no host", hint=_LINES)
    return hosts


class Ssh(Transport):
    """A transport with one agent on each host of a file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._hosts = read_hosts(path)
        self.agents = len(self._hosts)
        self._ssh = shlex.split(os.environ.get(SSH_VARIABLE, "") or SSH)

    async def serve(self, accept: Accept, folder: Path, allow: tuple[str, ...]) -> None:
        """Start an agent on each host, and serve their connections until cancelled (see `Transport`)."""
        async with trio.open_nursery() as nursery:
            for number, (host, command) in enumerate(self._hosts):
                words = [*self._ssh, host, f"{command} --order {number}"]
                nursery.start_soon(self._run, words, host, folder, str(number), accept)

    async def _run(self, words: list[str], host: str, folder: Path, order: str, accept: Accept) -> None:
        started = self.started[order] = Started(order)
        log_path = folder / f"agent-{order}.log"
        try:
            with log_path.open("wb") as log:
                process = await trio.lowlevel.open_process(
                    words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True
                )
        except OSError as error:
            raise TargetError(
                f"{words[0]}: {reason_of(error)}", hint=f"{SSH_VARIABLE} selects another command than ssh"
            ) from None
        assert process.stdin is not None and process.stdout is not None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_for, process, started)
            await accept(Connection(trio.StapledStream(process.stdin, process.stdout)))
