"""The connection of an agent to its coordinator.

It is TCP on loopback, mutual TLS beyond loopback, or standard input and output.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence
from pathlib import Path

import trio

from replay.errors import InputError, TargetError, UsageError, reason_of
from replay.lane.tls import Tls, python_context
from replay.settings.listening import is_loopback_host, parse_place

from .agent import Agent, AgentOptions
from .framing import Connection

CONNECT_S = 120.0
"""How long an agent tries to reach its coordinator over TLS.

The coordinator may still be planning, or compiling kernels in a new pod.
"""

CONNECT_HERE_S = 2.0
"""How long an agent with a token tries to reach its coordinator.

The token's file exists only while the coordinator listens, so that no long wait is needed.
"""

RETRY_S = 0.5

ANY_NAME = "any"
"""The server name that accepts every certificate of the authority: Dask's certificates contain no host names."""


def check_ways(connect: str | None, stdio: bool, token_file: Path | None, tls: Sequence[str | None]) -> None:
    """Raise UsageError if options contradict each other, give no coordinator, or leave the connection unsecured."""
    if stdio and connect is not None:
        raise UsageError("--stdio and --connect cannot be combined", hint="give only one")
    if stdio:
        return
    if connect is None:
        raise UsageError("no coordinator was given", hint="give --connect HOST:PORT")
    host, _ = parse_place(connect, "connect to")
    ca, cert, _ = tls
    if is_loopback_host(host) and not (ca or cert):
        if token_file is None:
            raise UsageError("on loopback an agent needs a token", hint="give --token-file FILE")
        return
    if (not ca or not cert) and is_loopback_host(host):
        raise UsageError("--ca and --cert belong together", hint="give both, or --token-file FILE instead")
    if not ca or not cert:
        raise UsageError(
            f"{host} is beyond this machine: agents and coordinators identify each other by certificates",
            hint="give --ca and --cert, and --key if the private key is in another file",
        )


async def serve(options: AgentOptions, connect: str | None, tls: tuple[str, str, str], name: str) -> int:
    """Serve one run, and return the exit code.

    `connect` is HOST:PORT, or None for standard input and output. `name` is the name that the coordinator's certificate
    must have: the host if it is empty, any name for ANY_NAME. Raises TargetError if the coordinator cannot be reached,
    otherwise the errors of `Agent.run`.
    """
    stream = _standard_streams() if connect is None else await _connected(connect, tls, name)
    return await Agent(Connection(stream), options).run()


def _standard_streams() -> trio.abc.Stream:
    """Return a stream over standard input and output, and redirect printed text to standard error."""
    reading, writing = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(2, 1)
    os.close(null)
    return trio.StapledStream(trio.lowlevel.FdStream(writing), trio.lowlevel.FdStream(reading))


async def _connected(place: str, tls: tuple[str, str, str], name: str) -> trio.abc.Stream:
    host, _ = parse_place(place, "connect to")
    stream = await _reached(place, CONNECT_S if any(tls) else CONNECT_HERE_S)
    if not any(tls):
        return stream
    context = client_context(*tls)
    context.check_hostname = name != ANY_NAME
    secured = trio.SSLStream(
        stream, context, server_hostname=host if name in ("", ANY_NAME) else name, https_compatible=True
    )
    try:
        await secured.do_handshake()
    except (trio.BrokenResourceError, ssl.SSLError) as error:
        why = error.__cause__ or error
        raise TargetError(
            f"the TLS handshake with the coordinator at {place} failed: {why}",
            hint="check whether it still runs; check --ca, --cert and --key here, and --cluster-ca, --cluster-cert"
            " and --cluster-key there",
        ) from None
    return secured


async def _reached(place: str, limit_s: float) -> trio.SocketStream:
    """Connect to the coordinator, and retry for up to `limit_s`, because it may start later than its agents."""
    host, port = parse_place(place, "connect to")
    failure = f"no answer within {limit_s:g} s"
    with trio.move_on_after(limit_s):
        while True:
            try:
                return await trio.open_tcp_stream(host, port)
            except OSError as error:
                failure = reason_of(error)
                await trio.sleep(RETRY_S)
    raise TargetError(
        f"no coordinator at {place}: {failure}", hint="check --connect, and whether the coordinator runs"
    )


def client_context(ca: str, cert: str, key: str) -> ssl.SSLContext:
    """Return the TLS context of an agent, which verifies the coordinator and presents its own certificate."""
    context = python_context(Tls(server_name="", ca=ca, cert=cert, key=key))
    context.set_alpn_protocols([])
    return context


def server_context(ca: str, cert: str, key: str) -> ssl.SSLContext:
    """Return the TLS context of a coordinator, which refuses agents without a certificate of `ca`."""
    # This call checks the files first, because its exceptions contain the name of the file that is wrong. Its hints
    # list an agent's flags, so they get the coordinator's prefix.
    try:
        python_context(Tls(server_name="", ca=ca, cert=cert, key=key))
    except InputError as error:
        raise InputError(str(error), hint=error.hint.replace("--", "--cluster-")) from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cafile=ca)
    context.load_cert_chain(cert, key or None)
    context.verify_mode = ssl.CERT_REQUIRED
    return context
