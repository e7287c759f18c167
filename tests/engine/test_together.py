"""Two runs at the same instants: each request leaves together with its twin, and the order of the two alternates."""

from __future__ import annotations

import selectors
import socket
import threading
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from replay.engine import prepare
from replay.engine.together import run_together
from replay.errors import OutputError, UsageError
from replay.protocols.scenario import load_scenario
from replay.results.document import RunDocument
from replay.staging.sink import Sink
from replay.trace import Trace
from tests.support.certificates import Authority
from tests.support.trace_data import Row, write_trace

ROWS = 300
GAP_NS = 4_000_000
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Arrivals:
    """Two services in one thread, which notes the order in which requests arrive: (service, path)."""

    def __init__(self, fails: int = -1) -> None:
        self.seen: list[tuple[int, str]] = []
        self.fails = fails
        self._selector = selectors.EpollSelector()
        self.ports = []
        for number in range(2):
            server = socket.create_server(("127.0.0.1", 0), backlog=64)
            server.setblocking(False)
            self.ports.append(server.getsockname()[1])
            self._selector.register(server, selectors.EVENT_READ, (number, True))
        self._stop, self._wake = socket.socketpair()
        self._selector.register(self._stop, selectors.EVENT_READ, None)
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Arrivals:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._wake.send(b"x")
        self._thread.join(5)
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._wake.close()
        self._selector.close()

    def _serve(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    return
                number, is_server = key.data
                one: socket.socket = key.fileobj  # type: ignore[assignment]
                if is_server:
                    peer, _ = one.accept()
                    peer.setblocking(False)
                    self._selector.register(peer, selectors.EVENT_READ, (number, False))
                    continue
                got = one.recv(65_536)
                if not got or number == self.fails:
                    self._selector.unregister(one)
                    one.close()
                    continue
                self.seen.append((number, got.split(b" ")[1].decode()))
                one.send(OK)

    def urls(self) -> tuple[str, str]:
        one, two = self.ports
        return f"http://127.0.0.1:{one}", f"http://127.0.0.1:{two}"


def a_trace(path: Path, rows: int = ROWS) -> Trace:
    return write_trace(path, [Row(n * GAP_NS, target=b"/%d" % n, client=n % 50) for n in range(rows)])


def both(trace: Trace, urls: tuple[str, str], out: Path, text: str = "") -> tuple[RunDocument, RunDocument]:
    out.mkdir(exist_ok=True)
    (out / "s.toml").write_text(f'target = "http://127.0.0.1:1"\n{text}')
    scenarios = [replace(load_scenario(out / "s.toml"), target=url) for url in urls]
    with prepare(trace, scenarios[0]) as one, prepare(trace, scenarios[1]) as two:
        return run_together((one, two), (out / "base", out / "new"))


@pytest.mark.timing
@pytest.mark.parametrize(
    "text", ["", 'order = "client"\n', 'connect = "per-client"\n', 'connect = "per-request"\n']
)
def test_each_request_and_its_twin_leave_together_in_alternating_order(tmp_path, text):
    trace = a_trace(tmp_path / "t.trace")
    with Arrivals() as service:
        documents = both(trace, service.urls(), tmp_path / "out", text)
    for document in documents:
        assert document.accounts.planned == document.accounts.sent == document.accounts.ok == ROWS
        assert document.ending.how == "whole"
    assert documents[0].start.monotonic_ns == documents[1].start.monotonic_ns
    at = {(number, path): place for place, (number, path) in enumerate(service.seen)}
    first = np.array([at[0, f"/{n}"] < at[1, f"/{n}"] for n in range(ROWS)])
    alternates = first[1:] != first[:-1]
    assert alternates.mean() > 0.8 and 0.4 < first.mean() < 0.6
    apart = np.array([abs(at[0, f"/{n}"] - at[1, f"/{n}"]) for n in range(ROWS)])
    assert (apart == 1).mean() > 0.8


def test_both_end_when_one_build_dies(tmp_path):
    trace = a_trace(tmp_path / "t.trace", 4 * ROWS)
    with Arrivals(fails=1) as service:
        base, new = both(trace, service.urls(), tmp_path / "out", '[breaker]\nshare = "20%"\nover = "1s"\n')
    assert new.ending.how == "circuit_breaker"
    assert base.ending.how == "interrupted" and "the other build ended" in base.ending.detail
    for document in (base, new):
        accounts = document.accounts
        assert accounts.planned == accounts.sent + accounts.unsent < 4 * ROWS


def test_a_failure_of_one_before_the_start_ends_both(tmp_path):
    trace = a_trace(tmp_path / "t.trace")
    with Arrivals() as service:
        (tmp_path / "out" / "new").mkdir(parents=True)
        with pytest.raises(OutputError, match="new"):
            both(trace, service.urls(), tmp_path / "out")
        assert not (tmp_path / "out" / "base").exists()


def test_what_has_no_lanes_to_pair_is_refused(tmp_path):
    trace = a_trace(tmp_path / "t.trace")
    with pytest.raises(UsageError, match="the portable engine was chosen"):
        both(trace, ("http://127.0.0.1:1", "http://127.0.0.1:2"), tmp_path / "a", 'engine = "portable"\n')
    with pytest.raises(UsageError, match="closed loop"):
        both(trace, ("http://127.0.0.1:1", "http://127.0.0.1:2"), tmp_path / "b", 'rate = "max"\n')


def test_lanes_with_tls_share_a_thread(tmp_path):
    trace = a_trace(tmp_path / "t.trace")
    (tmp_path / "certificates").mkdir()
    authority = Authority.create(tmp_path / "certificates")
    identity = authority.issue()
    with Sink(tls=identity) as one, Sink(tls=identity) as two:
        urls = f"https://127.0.0.1:{one.port}", f"https://127.0.0.1:{two.port}"
        documents = both(trace, urls, tmp_path / "out", f'[tls]\nca = "{authority.path}"\n')
        assert one.arrivals == two.arrivals == ROWS
    for document in documents:
        assert document.accounts.ok == ROWS and document.tls is not None
