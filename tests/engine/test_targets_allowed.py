"""Onto HTTP nothing reaches a host that is not allowed: by a proxy, a redirect, a name that moves, a second target."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from replay.results.run import load_run
from replay.staging.dns_server import DnsServer
from tests.support.network_namespace import FAR, NetworkNamespace, Trap
from tests.support.trace_data import Row, write_trace

ENGINES = ("native", "portable")


@pytest.fixture(scope="module")
def network() -> Iterator[NetworkNamespace]:
    with NetworkNamespace() as made:
        yield made


@pytest.fixture
def trap(network: NetworkNamespace) -> Iterator[Trap]:
    made = Trap(network.listen(FAR))
    yield made
    made.listener.close()


class Server:
    """An HTTP server inside the network, on loopback, that answers with one status and headers."""

    def __init__(self, network: NetworkNamespace, status: int = 200, port: int = 0, **headers: str) -> None:
        self.requests = 0
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                owner.requests += 1
                self.send_response(status)
                for name, value in {**headers, "Content-Length": "0"}.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = network.inside(lambda: ThreadingHTTPServer(("127.0.0.1", port), Handler))
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])


@contextmanager
def name_server(network: NetworkNamespace) -> Iterator[DnsServer]:
    made = DnsServer()
    network.inside(made.__enter__)
    with ExitStack() as stack:
        stack.push(made)
        yield made


def trace(tmp_path: Path, count: int = 20, gap_ns: int = 10_000_000) -> Path:
    path = tmp_path / "t.trace"
    write_trace(path, [Row(gap_ns * number) for number in range(count)])
    return path


@pytest.mark.parametrize("engine", ENGINES)
def test_a_proxy_of_the_environment_is_not_used(network, trap, tmp_path, engine) -> None:
    server = Server(network)
    proxy = "http://{}:{}".format(*trap.place)
    names = ("http_proxy", "https_proxy", "all_proxy")
    environ = {**os.environ, **dict.fromkeys((*names, *map(str.upper, names)), proxy)}
    done = network.replay("run", trace(tmp_path), "--target", f"http://127.0.0.1:{server.port}",
                          "--engine", engine, "-o", tmp_path / "run", env=environ)  # fmt: skip
    assert server.requests == 20, done.stderr
    assert trap.connections == 0


@pytest.mark.parametrize(("engine", "status"), [("native", 302), ("native", 308), ("portable", 307)])
def test_a_redirect_is_not_followed(network, trap, tmp_path, engine, status) -> None:
    server = Server(network, status, Location="http://{}:{}/".format(*trap.place))
    done = network.replay("run", trace(tmp_path), "--target", f"http://127.0.0.1:{server.port}",
                          "--engine", engine, "-o", tmp_path / "run")  # fmt: skip
    assert server.requests == 20, done.stderr
    assert trap.connections == 0


@pytest.mark.parametrize("resolve", ["ttl", "per-connection"])
def test_a_name_that_moves_elsewhere_in_mid_run_is_not_followed(network, trap, tmp_path, resolve) -> None:
    """DNS rebinding: the name has a loopback address when it is checked, and the trap's behind that."""
    server = Server(network, port=trap.place[1])
    with name_server(network) as names:
        names.set("staging.example", "127.0.0.1", ttl_s=1)

        def move() -> None:
            while server.requests < 20:
                time.sleep(0.01)
            names.set("staging.example", FAR, ttl_s=1)

        mover = threading.Thread(target=move, daemon=True)
        mover.start()
        done = network.replay(
            "run", trace(tmp_path, 400), "--target", f"http://staging.example:{server.port}", "-o", tmp_path / "run",
            "--resolver", names.address, "--resolve", resolve, "--connect", "per-request",
        )  # fmt: skip
    document = load_run(tmp_path / "run").document
    assert trap.connections == 0
    assert document.ending.how == "not_allowed" and done.returncode == 1
    assert FAR in str(document.names)


def test_a_name_that_moved_before_the_start_is_refused(network, trap, tmp_path) -> None:
    with name_server(network) as names:
        names.set("staging.example", "127.0.0.1", FAR, ttl_s=1)
        done = network.replay("run", trace(tmp_path), "--target", f"http://staging.example:{trap.place[1]}",
                              "--resolver", names.address, "-o", tmp_path / "run")  # fmt: skip
    assert done.returncode == 2 and f"staging.example ({FAR}) is beyond this machine" in done.stderr
    assert trap.connections == 0


def test_an_allowed_name_is_allowed_with_every_address(network, tmp_path) -> None:
    """As docs/names.md says: who allows a name trusts what it resolves to."""
    trap = Trap(network.listen(FAR))
    with name_server(network) as names:
        names.set("staging.example", FAR, ttl_s=1)
        network.replay("run", trace(tmp_path), "--target", f"http://staging.example:{trap.place[1]}", "--resolver",
                       names.address, "-o", tmp_path / "run", "--allow", "staging.example", "--timeout", "1s")  # fmt: skip
    assert trap.wait(0.5)


@pytest.mark.parametrize("scheme", ["http", "kafka"])
def test_a_further_target_elsewhere_stops_all_of_them(network, trap, tmp_path, scheme) -> None:
    server = Server(network)
    topic = "/t" if scheme == "kafka" else ""
    scenario = tmp_path / "both.toml"
    scenario.write_text(
        f"""
        target = "http://127.0.0.1:{server.port}"
        [[also]]
        target = "{scheme}://{trap.place[0]}:{trap.place[1]}{topic}"
        methods = "all"
        only = ["/b"]
        """
    )
    done = network.replay("run", trace(tmp_path), "--scenario", scenario, "-o", tmp_path / "run")
    assert done.returncode == 2 and f"the target {FAR} is beyond this machine" in done.stderr
    assert trap.connections == 0 and server.requests == 0


def test_doctor_connects_to_no_target_that_is_not_allowed(network, trap, tmp_path) -> None:
    network.replay("doctor", "{}:{}".format(*trap.place))
    network.replay("doctor", "http://{}:{}".format(*trap.place))
    assert trap.connections == 0
