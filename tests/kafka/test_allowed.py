"""A cluster that leads elsewhere: nothing connects to a host that is not allowed, and no credentials go there."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from replay.errors import LimitError
from replay.plan.safety import allowed_hosts
from replay.protocols.kafka.gate import Gate, GatedLoop, HostRefusedError
from replay.results.document import RunDocument
from replay.results.run import load_run
from tests.support.network_namespace import (
    FAR,
    FAR_6,
    NetworkNamespace,
    Trap,
)
from tests.support.scripted_broker import Cluster, ScriptedBroker

from .test_mock import kafka_trace

SENT = (0, 4)
"""Exit codes of a run that was sent: on a crowded machine it may be INVALID."""

SECURED = """
[kafka]
security_protocol = "SASL_PLAINTEXT"
sasl_plain_username = "alice"
sasl_plain_password = "wonderland"
"""


@pytest.fixture(scope="module")
def network() -> Iterator[NetworkNamespace]:
    with NetworkNamespace() as made:
        yield made


@pytest.fixture
def cluster(network: NetworkNamespace) -> Iterator[tuple[Cluster, ScriptedBroker]]:
    """A cluster of one broker on loopback inside the network."""
    made = Cluster()
    broker = ScriptedBroker(made, network.listen("127.0.0.1"))
    made.advertised[1] = broker.place
    yield made, broker
    broker.close()


@pytest.fixture
def secured(tmp_path: Path) -> Path:
    path = tmp_path / "secured.toml"
    path.write_text(SECURED)
    return path


def trap_at(network: NetworkNamespace, host: str) -> Trap:
    return Trap(network.listen(host))


def trace(tmp_path: Path, count: int = 40, gap_ns: int = 5_000_000) -> Path:
    path = tmp_path / "t.trace"
    kafka_trace(path, [(0, b"%d" % number, b"v", ()) for number in range(count)], gap_ns)
    return path


def document(tmp_path: Path) -> RunDocument:
    return load_run(tmp_path / "run").document


@pytest.mark.parametrize(
    ("command", "advertised"),
    [
        ("run", FAR),
        ("run", FAR_6),
        ("run --consume", f"::ffff:{FAR}"),
        ("record", FAR),
        ("record", f"::ffff:{FAR}"),
    ],
)
def test_a_broker_that_is_advertised_elsewhere_gets_nothing(
    network, cluster, tmp_path, secured, command, advertised
) -> None:
    trap = trap_at(network, FAR_6 if advertised == FAR_6 else FAR)
    cluster[0].advertised[1] = (advertised, trap.place[1])
    place = f"kafka://{cluster[1].address}/t"
    if command == "record":
        done = network.replay("record", place, "-o", tmp_path / "out.trace", "--scenario", secured)
    else:
        more = command.split()[1:]
        done = network.replay("run", trace(tmp_path), "--target", place, "--methods", "all", "--scenario", secured,
                              "-o", tmp_path / "run", *more)  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert f"advertises at {advertised} " in done.stderr and f"--allow {advertised}" in done.stderr
    assert "Traceback" not in done.stderr
    time.sleep(0.2)
    assert (trap.connections, trap.data) == (0, b"")
    assert not (tmp_path / "run").exists() and not (tmp_path / "out.trace").exists()


@pytest.mark.parametrize("pattern", [f"::ffff:{FAR}", "10.0.0.0/8"])
def test_a_broker_elsewhere_is_written_to_once_it_is_allowed(
    network, cluster, tmp_path, secured, pattern
) -> None:
    """Beside the test above: the listener elsewhere can be reached, and the hint of the refusal is enough."""
    far = ScriptedBroker(cluster[0], network.listen(FAR))
    cluster[0].advertised[1] = far.place
    place = f"kafka://{cluster[1].address}/t"
    done = network.replay("run", trace(tmp_path), "--target", place, "--methods", "all", "--scenario", secured,
                          "-o", tmp_path / "run", "--allow", pattern)  # fmt: skip
    assert done.returncode in SENT, done.stderr + done.stdout
    assert document(tmp_path).accounts.ok == 40
    assert far.connections and b"alice\0alice\0wonderland" in cluster[0].credentials
    far.close()


def test_records_elsewhere_are_read_once_that_is_allowed(network, cluster, tmp_path, secured) -> None:
    far = ScriptedBroker(cluster[0], network.listen(FAR))
    place = f"kafka://{cluster[1].address}/t"
    wrote = network.replay(
        "run", trace(tmp_path), "--target", place, "--methods", "all", "-o", tmp_path / "run"
    )
    assert wrote.returncode in SENT, wrote.stderr
    cluster[0].advertised[1] = far.place
    done = network.replay(
        "record", place, "-o", tmp_path / "out.trace", "--scenario", secured, "--allow", FAR
    )
    assert done.returncode == 0, done.stderr
    assert "40 records of t" in done.stdout
    far.close()


def test_a_host_that_the_source_of_a_recording_names_needs_no_flag(network, tmp_path) -> None:
    cluster = Cluster()
    far = ScriptedBroker(cluster, network.listen(FAR))
    cluster.advertised[1] = far.place
    done = network.replay("record", f"kafka://{far.address}/t", "-o", tmp_path / "out.trace")
    assert done.returncode == 2 and "nothing to record" in done.stderr
    far.close()


def test_a_target_beyond_this_machine_needs_one(network, tmp_path) -> None:
    trap = trap_at(network, FAR)
    place = f"kafka://127.0.0.1:1,{FAR}:{trap.place[1]}/t"
    done = network.replay(
        "run", trace(tmp_path), "--target", place, "--methods", "all", "-o", tmp_path / "run"
    )
    assert done.returncode == 2 and f"the target {FAR} is beyond this machine" in done.stderr
    assert trap.connections == 0


def test_a_port_that_is_asked_what_it_speaks_is_on_an_allowed_host() -> None:
    """The probe that explains a failure connects as well."""
    gate = Gate(allowed_hosts(()).check)
    with pytest.raises(HostRefusedError):
        gate.dial(FAR, 9, 1.0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        gate.dial("localhost", listener.getsockname()[1], 1.0).close()


@pytest.mark.parametrize("consume", [(), ("--consume",)])
def test_a_broker_that_moves_in_mid_run_gets_nothing_and_is_named(
    network, cluster, tmp_path, secured, consume
) -> None:
    trap = trap_at(network, FAR)
    lies, broker = cluster

    def refuse(count: int, size: int) -> int:
        if len(lies.log[0]) == 5:
            lies.advertised = {1: trap.place}
            for connection in broker.connections:
                connection.shutdown(socket.SHUT_RDWR)
        return 0

    lies.refuse = refuse
    done = network.replay("run", trace(tmp_path, 400), "--target", f"kafka://{broker.address}/t", "--methods", "all",
                          "--scenario", secured, "-o", tmp_path / "run", "--max-wait", "500ms", "--timeout", "1s",
                          *consume)  # fmt: skip
    assert (trap.connections, trap.data) == (0, b"")
    kafka = document(tmp_path).kafka
    assert kafka is not None and kafka.hosts_refused == [FAR]
    assert f"nothing was sent to {FAR}" in " ".join(done.stdout.split())


def test_a_coordinator_elsewhere_gets_nothing(network, cluster, tmp_path, secured) -> None:
    """The consumer's group has a coordinator: a broker that only turns up in the metadata once it is asked for."""
    trap = trap_at(network, FAR)
    lies = cluster[0]
    asked = ScriptedBroker._answer_10

    class Coordinating(ScriptedBroker):
        def _answer_10(self, request: object) -> tuple[object, ...]:
            lies.advertised[2], lies.coordinator = trap.place, 2
            return asked(self, request)

    lying = Coordinating(lies, network.listen("127.0.0.1"))
    lies.advertised = {1: lying.place}
    done = network.replay("run", trace(tmp_path, 200), "--target", f"kafka://{lying.address}/t", "--methods", "all",
                          "--scenario", secured, "-o", tmp_path / "run", "--consume", "--timeout", "1s")  # fmt: skip
    assert lies.coordinator == 2, "the consumer asked for no coordinator"
    time.sleep(0.2)
    assert (trap.connections, trap.data) == (0, b"")
    assert FAR in done.stderr + done.stdout
    lying.close()


class Rebinding(GatedLoop):
    """A loop whose resolver answers differently each time."""

    answers: Sequence[str] = ()

    async def getaddrinfo(self, host: object, port: object, **more: object) -> list[tuple]:  # type: ignore[override]
        first, *self.answers = self.answers
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (first, port))]


def test_a_name_is_checked_by_the_address_that_is_connected_to() -> None:
    """A name that had a loopback address when it was looked up has another when it is connected to."""
    gate = Gate(allowed_hosts(()).check)
    loop = Rebinding(gate)
    try:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            loop.answers = ["127.0.0.1", "192.0.2.7"]
            transport, _ = loop.run_until_complete(
                loop.create_connection(asyncio.Protocol, "broker.example", port)
            )
            transport.close()
            with pytest.raises(HostRefusedError, match=r"broker\.example \(192\.0\.2\.7\)"):
                loop.run_until_complete(loop.create_connection(asyncio.Protocol, "broker.example", port))
    finally:
        loop.close()
    assert list(gate.refused) == ["broker.example"]


def test_any_connection_of_the_loop_passes_the_gate() -> None:
    refused: list[str] = []

    def check(host: str, addresses: Sequence[str]) -> None:
        refused.append(f"{host} {addresses}")
        raise LimitError("no")

    loop = GatedLoop(Gate(check))
    try:
        with socket.socket() as plain:
            plain.setblocking(False)
            with pytest.raises(HostRefusedError):
                loop.run_until_complete(loop.sock_connect(plain, ("127.0.0.1", 9)))
    finally:
        loop.close()
    assert refused == ["127.0.0.1 ['127.0.0.1']"]
