"""Mirrored requests as a source: requests from a proxy are answered at once, and followed."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from functools import partial

import trio

from replay.errors import ReplayError
from replay.recording.exchange import Accounts, Budget, Exchange
from replay.recording.listening import Server
from replay.recording.receiver import BAD_BODY, BUDGET_BYTES, MirrorReceiver, MirrorSettings, serve_mirror
from replay.trace.importing.readers.records import Record, RecordReader, end_to_end
from replay.trace.importing.registry import Importer, Probe, Rows
from replay.trace.importing.sources import SourceFile

from .stream import POLL_S, Stream

TOGETHER = 1_024
LAST_PART_S = 1.0
"""How long, in seconds, `close` waits for requests that have arrived only in part, and then for the thread."""

CUT_BODY = "body over the limit"


class MirrorStream(Stream):
    """Requests that a proxy mirrors to HOST:PORT.

    A separate thread receives them as soon as the object is made. Raises UsageError if it cannot listen there.
    """

    kind = "mirror"
    is_recorded = False

    def __init__(self, place: str, say: Callable[[str], None] = lambda line: None) -> None:
        super().__init__(f"mirrored requests at {place}")
        self.place = place
        self.accounts = Accounts()
        self._budget = Budget(BUDGET_BYTES)
        self._say = say
        self._exchanges: deque[Exchange] = deque()
        self._receiver: MirrorReceiver | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._failure: BaseException | None = None
        self._listens = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="replay-mirror", daemon=True)
        self._thread.start()
        self._listens.wait()
        if self._failure is not None:
            raise self._failure

    def _serve(self) -> None:
        async def main() -> None:
            settings = MirrorSettings(budget=self._budget, holds_bodies=True)
            async with trio.open_nursery() as nursery:
                serve = partial(serve_mirror, accounts=self.accounts, say=self._say)
                self._receiver = await nursery.start(serve, self.place, self._exchanges.append, settings)
                self._token = trio.lowlevel.current_trio_token()
                self._listens.set()

        try:
            trio.run(main)
        except BaseException as error:
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            self._failure = error
        finally:
            self._listens.set()

    def wait_for_head(self, is_stopped: Callable[[], bool], waiting: Callable[[str], None]) -> bool:
        """Return True at once, because requests need no detection of a format."""
        return True

    def _new(self) -> list[bytes]:
        return []

    def requests(self) -> Iterator[list[Exchange]]:
        """Yield the requests as they arrive, until the receiver has ended.

        The receiver reported success for each request, so none is left out at the end. Raises the ReplayError with
        which the receiver failed, or RuntimeError for any other failure.
        """
        self.in_history = False
        self.on_live()
        while True:
            all_came = not self._thread.is_alive()
            found = [self._exchanges.popleft() for _ in range(min(len(self._exchanges), TOGETHER))]
            if found:
                yield found
            elif all_came and self._failure is None:
                return
            else:
                self.caught_up_ns = time.monotonic_ns()
                time.sleep(POLL_S)
            if self._failure is not None:
                raise (
                    self._failure
                    if isinstance(self._failure, ReplayError)
                    else RuntimeError(str(self._failure))
                )

    def taken(self, exchange: Exchange) -> None:
        """Release the memory that the receiver reserved for the body of a request."""
        if exchange.body and self._token is not None:
            with_size = len(exchange.body)
            try:
                self._token.run_sync_soon(self._budget.give_back, with_size)
            except trio.RunFinishedError:
                return

    def lost(self) -> dict[str, int]:
        """Return how many requests arrived but were not passed on, by reason."""
        lost = Counter(self.accounts.lost)
        lost.pop(BAD_BODY, None)  # `refused` has these requests with the exact reason.
        return dict(lost + Counter(self.accounts.refused))

    def finish(self) -> None:
        """Accept no more requests, except for those that are being received."""
        self._tell(lambda server: server.drain())

    def close(self) -> None:
        """Accept no more requests, and wait for those that are being received.

        Requests that are still incomplete after LAST_PART_S are cut off and counted as lost.
        """
        self._tell(lambda server: server.drain())
        self._thread.join(timeout=LAST_PART_S)
        self._tell(lambda server: server.abort())
        self._thread.join(timeout=LAST_PART_S)

    def _tell(self, what: Callable[[Server], None]) -> None:
        """Call a function in the receiver's thread, unless that thread has ended."""
        if self._token is not None and self._receiver is not None:
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(what, self._receiver.server)


class MirrorReader(RecordReader):
    """Converts mirrored requests to rows, without secrets unless these are to be kept."""

    def probe(self, head: bytes) -> Probe:
        """Return a resolution of 1 ns, because the timestamps are exact."""
        return Probe(None, 1)

    def read(self, file: SourceFile) -> Iterator[Rows]:
        """Yield the rows of the requests as they arrive."""
        assert isinstance(file, MirrorStream)
        self.rows_at_once, self.follows = TOGETHER, False  # Each list of requests is converted at once.
        for exchanges in file.requests():
            yield from self.rows(iter(self._records(file, exchanges)))

    def _records(self, file: MirrorStream, exchanges: list[Exchange]) -> list[Record]:
        rejects, records = self._found.rejects, []
        for exchange in exchanges:
            rejects.lines += 1
            file.taken(exchange)
            pairs = [(name, value or b"") for name, value in exchange.headers]
            record = Record(
                at_ns=exchange.at_ns,
                method=exchange.method,
                target=exchange.target,
                host=exchange.host,
                client=exchange.client.encode(),
                headers=self.kept(pair for pair in end_to_end(pairs)),
                body=exchange.body or b"",
            )
            why = self.wrong(record) or (CUT_BODY if exchange.body is None else "")
            if why:
                rejects.add(why, file.name, rejects.lines, exchange.target[:200])
            else:
                records.append(record)
        return records


MIRROR = Importer(
    name="mirror", title="requests that a proxy mirrors", sniff=lambda head, options: 0.0, reader=MirrorReader
)
"""The importer of mirrored requests. It is not in the registry, because no file has this format."""

MirrorStream.own_format = MIRROR
