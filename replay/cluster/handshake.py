"""The authentication of coordinator and agent.

With TLS both sides show certificates. On loopback without TLS both prove that they know the same token, which is in a
file that only its owner can read. Each side answers the other's random nonce with a keyed hash, so the token is never
sent. Over standard input and output neither is needed, because ssh authenticates both sides.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import hmac
import os
import platform
import resource
import secrets
import socket
import stat
from pathlib import Path
from typing import TypeVar

import trio

from replay._version import __version__
from replay.errors import InputError, UsageError, reason_of

from .framing import Broken, Connection, Ended
from .messages import PROTOCOL, Challenge, Hello, Refusal, Welcome

First = TypeVar("First", Challenge, Welcome)

NONCE_BYTES = 32
HANDSHAKE_S = 20.0
"""A peer that has not introduced itself within this time is disconnected."""


def make_token(path: Path) -> bytes:
    """Write a new token into a file that only this user can read, and return it."""
    token = secrets.token_hex(32).encode()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(token)
    return token


def read_token(path: Path) -> bytes:
    """Return the token in a file.

    Raises InputError if the file cannot be read, UsageError if other users can read it or the token is too short.
    """
    try:
        found = path.stat()
        token = path.read_bytes().strip()
    except OSError as error:
        raise InputError(f"--token-file {path}: {reason_of(error)}") from None
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise UsageError(f"--token-file {path}: other users can read it", hint=f"chmod 600 {path}")
    if len(token) < NONCE_BYTES:
        raise UsageError(f"--token-file {path}: a token needs at least {NONCE_BYTES} characters")
    return token


def proof(token: bytes, side: str, nonce: bytes) -> bytes:
    """Return the keyed hash with which `side` answers a nonce; empty without a token.

    The hash includes the name of the side, so that one side's proof cannot serve as the other's.
    """
    return hmac.digest(token, side.encode() + b"\0" + nonce, "sha256") if token else b""


@functools.cache
def kernels_digest() -> str:
    """Return the digest of the sources of all kernels.

    Agents whose kernels differ would count differently, so they are refused.
    """
    from replay_native.ground import sources

    names = [sources.digest(name) for name in sources.with_entries()]
    return hashlib.sha256(" ".join(names).encode()).hexdigest()[:16]


def engine_here() -> str:
    """Return the engine that this machine can run: `native` or `portable`."""
    from replay_native.ground.libc import lanes_supported

    return "portable" if lanes_supported() else "native"


def make_hello(challenge: Challenge, token: bytes, nonce: bytes, order: str, clock: str) -> Hello:
    """Return an agent's description of itself and its machine, with its proof for the challenge."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Hello(
        version=__version__,
        kernels=kernels_digest(),
        host=socket.gethostname() or platform.node(),
        pid=os.getpid(),
        cpus=len(os.sched_getaffinity(0)),
        memory_bytes=memory,
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        engine=engine_here(),
        clock=clock,
        order=order,
        nonce=nonce,
        proof=proof(token, "agent", challenge.nonce),
    )


async def introduce(connection: Connection, token: bytes, order: str, clock: str = "") -> Welcome:
    """Introduce the agent to the coordinator, and return the coordinator's welcome.

    Raises UsageError if the coordinator refuses the agent, does not know the token, has another version of the
    protocol, or does not answer as a coordinator. Raises Broken if the connection fails while the agent sends.
    """
    challenge = await _first(connection, Challenge)
    if challenge.protocol != PROTOCOL:
        raise UsageError(
            f"the coordinator uses version {challenge.protocol} of the protocol, this agent version {PROTOCOL}",
            hint="install the same version of replay on both machines",
        )
    nonce = secrets.token_bytes(NONCE_BYTES)
    await connection.send(make_hello(challenge, token, nonce, order, clock))
    welcome = await _first(connection, Welcome)
    if not hmac.compare_digest(welcome.proof, proof(token, "coordinator", nonce)):
        raise UsageError("the coordinator does not know the token", hint="give the --token-file of this run")
    return welcome


async def _first(connection: Connection, kind: type[First]) -> First:
    """Return the next message, which must be of this kind; raise UsageError otherwise, or if none arrives in time."""
    message = None
    with trio.move_on_after(HANDSHAKE_S), contextlib.suppress(Broken):
        message = await connection.receive()
    if isinstance(message, Refusal):
        raise UsageError(f"the coordinator refuses this agent: {message.why}", hint=message.hint)
    if not isinstance(message, kind):
        raise UsageError(
            "the other side did not answer as a coordinator does",
            hint="check the address given to the agent, and whether the coordinator still runs",
        )
    return message


async def receive_hello(connection: Connection, token: bytes) -> Hello:
    """Challenge a new connection, and return the agent's description of itself.

    Raises Broken if the peer is not an agent of this run, uses another version of the protocol, or sends no message
    within HANDSHAKE_S, Ended if it disconnects.
    """
    nonce = secrets.token_bytes(NONCE_BYTES)
    await connection.send(Challenge(nonce=nonce))
    message = None
    with trio.move_on_after(HANDSHAKE_S) as limit:
        message = await connection.receive()
    if limit.cancelled_caught:
        raise Broken(f"it sent no message within {HANDSHAKE_S:g} s")
    if message is None:
        raise Ended("it disconnected before it introduced itself")
    if not isinstance(message, Hello):
        raise Broken("it is not an agent")
    if message.protocol != PROTOCOL:
        await connection.send(Refusal(why=f"its protocol is version {message.protocol}, not {PROTOCOL}"))
        raise Broken(
            f"an agent on {message.host} uses version {message.protocol} of the protocol, not {PROTOCOL}"
        )
    if not hmac.compare_digest(message.proof, proof(token, "agent", nonce)):
        await connection.send(
            Refusal(why="it does not know the token", hint="give the --token-file of this run")
        )
        raise Broken(f"an agent on {message.host} does not know the token")
    return message
