"""A recording from start to trace: listens, records until a signal, and converts the journal."""

from __future__ import annotations

import contextlib
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from replay.errors import OutputError, ReplayError
from replay.trace import Trace, TraceWriter
from replay.trace.importing import Options, import_files
from replay.trace.importing.pipeline import Progress
from replay.trace.importing.scrub_rules import ScrubRules
from replay.trace.journal import Notes, journal_of, read_notes

from .body_limits import BodyLimits
from .exchange import Accounts, Clock
from .listening import Limits, Server, listen, parse_place
from .proxy import Proxy
from .receiver import MirrorReceiver, MirrorSettings, answers
from .recorder import Recorder
from .setup import Setup
from .turns import ProxySettings
from .upstream import Upstream

if TYPE_CHECKING:
    from .ring import MirrorRing

CLOCK_SET_NS = 1_000_000_000
"""A change of the system's clock during a recording is reported if it is at least this large."""


@dataclass(frozen=True, slots=True)
class Recording:
    """The settings of a recording. Without an `upstream`, it is a mirror, otherwise a proxy."""

    place: str
    out: Path
    upstream: Upstream | None = None
    answer: int = 204
    bodies: BodyLimits = field(default_factory=BodyLimits)
    keep_responses: bool = False
    keep_secrets: bool = False
    scrub: ScrubRules = field(default_factory=ScrubRules)
    scrub_key: bytes = field(default=b"", repr=False)
    headers: str = "all"
    tls: ssl.SSLContext | None = None
    overwrite: bool = False
    limits: Limits = field(default_factory=Limits)


@dataclass(slots=True)
class Recorded:
    """The result of a recording.

    `trace` is None if no request was recorded, or if it could not be written. In the second case, `failure` says why.
    """

    accounts: Accounts
    notes: Notes
    journal: Path
    trace: Trace | None = None
    failure: ReplayError | None = None
    clock_set_ns: int = 0


def record(
    recording: Recording, say: Callable[[str], None], *, listening: Callable[[str], None],
    progress: Progress | None = None,
) -> Recorded:  # fmt: skip
    """Record until SIGINT, SIGTERM or SIGHUP, then make the trace.

    `say` receives messages for the user, and `listening` the address once requests are accepted. Raises
    ReplayError if the recording cannot begin.
    """
    TraceWriter(recording.out, overwrite=recording.overwrite).refuse_existing()
    recorded = trio.run(_serve, recording, say, listening)
    if recorded.notes.records:
        try:
            recorded.trace = _trace_of(recording, recorded.journal, progress)
        except (OutputError, OSError) as error:
            recorded.failure = error if isinstance(error, ReplayError) else OutputError(str(error))
    else:
        recorded.journal.unlink(missing_ok=True)
    return recorded


def _trace_of(recording: Recording, journal: Path, progress: Progress | None) -> Trace:
    options = Options(
        keep_secrets=recording.keep_secrets, scrub=recording.scrub, scrub_key=recording.scrub_key
    )
    trace = import_files(
        [journal],
        recording.out,
        format="journal",
        options=options,
        overwrite=recording.overwrite,
        progress=progress,
    )
    journal.unlink(missing_ok=True)
    return trace


async def _serve(
    recording: Recording, say: Callable[[str], None], listening: Callable[[str], None]
) -> Recorded:
    accounts, clock = Accounts(), Clock()
    host, port = parse_place(recording.place)
    if recording.upstream is not None:
        await recording.upstream.check()
    journal = journal_of(recording.out)
    with contextlib.closing(listen(host, port)) as listener:
        setup = Setup(
            journal=str(journal),
            source="mirror" if recording.upstream is None else recording.upstream.url,
            started_ns=clock.now_ns(),
            keep_secrets=recording.keep_secrets,
            keep_responses=recording.keep_responses,
            headers=recording.headers,
            scrub=recording.scrub.as_list(),
            scrub_key=recording.scrub_key,
            body_limit=recording.bodies.bytes_max,
            body_limits=list(recording.bodies.by_route),
        )
        ring = _ring(recording)
        recorder = Recorder(setup, accounts, say, ring)
        await recorder.start()
        server = (
            _server(recording, listener, recorder, accounts, say)
            if ring is None
            else _native_server(recording, listener, recorder, ring, clock, say)
        )
        async with trio.open_nursery() as nursery, _signals() as signals:
            nursery.start_soon(recorder.run)
            nursery.start_soon(_drain_at_signal, server, signals)
            listening(f"[{host}]:{server.port}" if ":" in host else f"{host}:{server.port}")
            await server.serve()
            ended = await recorder.close()
            nursery.cancel_scope.cancel()
    notes = ended.notes if ended is not None else read_notes(journal)
    if ended is None:
        notes.lost = {**notes.lost, **accounts.lost}
    return Recorded(accounts, notes, journal, clock_set_ns=clock.set_by_ns())


def _ring(recording: Recording) -> MirrorRing | None:
    """Return the ring for a native receiver, or None if Python receives all requests."""
    if recording.upstream is not None or recording.tls is not None:
        return None
    # The import is here because a proxy does not need the mirror's kernels, and should not wait for their import.
    from .native import native_unsupported
    from .ring import MirrorRing

    return None if native_unsupported() else MirrorRing.create()


def _server(
    recording: Recording, listener: Any, recorder: Recorder, accounts: Accounts, say: Callable[[str], None]
) -> Server:
    if recording.upstream is None:
        mirror = _mirror_settings(recording)
        return MirrorReceiver(listener, recorder.put, mirror, accounts=accounts, say=say).server
    proxy = ProxySettings(
        limits=recording.limits, body_limit=recording.bodies.of, tls=recording.tls,
        response_limit=recording.bodies.bytes_max if recording.keep_responses else 0,
    )  # fmt: skip
    return Proxy(listener, recording.upstream, recorder.put, proxy, accounts=accounts, say=say).server


def _mirror_settings(recording: Recording) -> MirrorSettings:
    return MirrorSettings(
        answer=recording.answer, limits=recording.limits, body_limit=recording.bodies.of, tls=recording.tls
    )


def _native_server(
    recording: Recording, listener: socket.socket, recorder: Recorder, ring: MirrorRing, clock: Clock,
    say: Callable[[str], None],
) -> Server:  # fmt: skip
    """Return a mirror receiver in which a native thread receives and answers ordinary requests."""
    from .native import NativeAcceptor

    settings, accounts = _mirror_settings(recording), recorder.accounts
    texts = answers(settings.answer)
    acceptor = NativeAcceptor(
        listener, ring, (texts[True, 1], texts[True, 0], texts[False, 1]), settings.limits,
        accounts=accounts, lose=recorder.lose, clock=clock,
    )  # fmt: skip
    server = MirrorReceiver(
        listener, recorder.put, settings, accounts=accounts, say=say, acceptor=acceptor, clock=clock
    ).server
    acceptor.connections_max, acceptor.waits = server.connections_max, server.say_waits
    return server


@contextlib.asynccontextmanager
async def _signals() -> AsyncIterator[Any]:
    heard = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        heard.append(signal.SIGHUP)
    with trio.open_signal_receiver(*heard) as received:
        yield received


async def _drain_at_signal(server: Server, signals: Any) -> None:
    """Drain at the first signal, and cut off requests in flight at the second one."""
    is_second = False
    async for _ in signals:
        if is_second:
            server.abort()
        server.drain()
        is_second = True
