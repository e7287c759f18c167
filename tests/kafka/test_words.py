"""What is wrong with a cluster, or with what was asked for, in words: before anything is sent or recorded."""

from __future__ import annotations

import contextlib
import datetime as dt
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Thread

import pytest

from replay.cli import invoke
from replay.errors import (
    InputError,
    ReplayError,
    TargetError,
    UsageError,
)
from replay.plan.safety import allowed_hosts
from replay.protocols.kafka.cluster import client_settings, look
from replay.protocols.kafka.target import parse as parse_target
from replay.settings.scenario import Kafka
from tests.support.certificates import Authority
from tests.support.kafka_broker import MockCluster
from tests.support.ports import free_port


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.create(tmp_path_factory.mktemp("ca"))


@contextmanager
def serving(handle: Callable[[BaseRequestHandler], None]) -> Iterator[int]:
    """A port of which each connection is handled so, and ended."""

    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            handle(self)

    with ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield int(server.server_address[1])
        server.shutdown()
        thread.join()


def refusal(port: int, **kafka: object) -> ReplayError:
    target = parse_target(f"kafka://127.0.0.1:{port}/t")
    with pytest.raises(TargetError) as caught:
        look(target, client_settings(target, Kafka(**kafka)), ["t"], allowed_hosts(()).check)  # type: ignore[arg-type]
    return caught.value


def test_a_port_that_nobody_listens_on() -> None:
    port = free_port()
    assert (
        str(refusal(port)) == f"the broker 127.0.0.1:{port} does not accept connections: connection refused"
    )


def test_a_port_that_does_not_speak_kafka() -> None:
    with serving(lambda handler: handler.request.recv(1)) as port:
        error = refusal(port)
    assert "it ended the connection at once" in str(error) and "kafka.security_protocol" in error.hint


@pytest.mark.parametrize(
    "names, days, trusted, words",
    [
        ((), -1, True, "its certificate has expired"),
        (("other.test",), 1, True, "its certificate cannot be verified: IP address mismatch, certificate is not valid for"),
        ((), 1, False, "its certificate was issued by an authority that is not trusted"),
    ],
)  # fmt: skip
def test_a_bad_certificate_is_named(
    authority: Authority, names: tuple[str, ...], days: int, trusted: bool, words: str
) -> None:
    identity = authority.issue(*names, expires=dt.datetime.now(dt.UTC) + dt.timedelta(days=days))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.cert, identity.key)

    def handle(handler: BaseRequestHandler) -> None:
        try:
            context.wrap_socket(handler.request, server_side=True).close()
        except OSError:
            return

    with serving(handle) as port:
        error = refusal(port, security_protocol="SSL", ssl_cafile=str(authority.path) if trusted else "")
    assert words in str(error) and "_ssl.c" not in str(error) and "kafka.ssl_cafile" in error.hint


def test_a_file_of_certificates_that_holds_none(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("nothing")
    target = parse_target("kafka://127.0.0.1:1/t")
    for name, words in (("empty.pem", "it holds no certificates"), ("none.pem", "no such file or directory")):
        with pytest.raises(InputError, match=words):
            client_settings(target, Kafka(security_protocol="SSL", ssl_cafile=str(tmp_path / name)))


def test_a_password_that_the_environment_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_PASSWORD", raising=False)
    kafka = Kafka(
        security_protocol="SASL_PLAINTEXT", sasl_plain_username="alice", sasl_plain_password="$NO_PASSWORD"
    )
    with pytest.raises(UsageError, match=r"^kafka.sasl_plain_password: the environment variable NO_PASSWORD"):
        client_settings(parse_target("kafka://127.0.0.1:1/t"), kafka)


@pytest.mark.parametrize(
    "given, words",
    [
        (["--from", "2026-01-05", "--until", "2026-01-04"], "--until 2026-01-04 (2026-01-04 00:00:00 UTC) is not after"),
        (["--from", "2026-01-05T10:00:00Z", "--until", "+0s"], "is not after --from"),
        (["--from", "+1h"], "which is in the future"),
        (["--from", "latest"], "--from: 'latest' is not a moment"),
        (["--until", "earliest"], "--until: 'earliest' is not a moment"),
    ],
)  # fmt: skip
def test_moments_between_which_nothing_can_be(
    given: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["record", "kafka://127.0.0.1:1/t", "-o", str(tmp_path / "t.trace"), *given]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("source", ["http://127.0.0.1:1/t", "t", "127.0.0.1:9092/t"])
def test_a_source_that_is_no_cluster(source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["record", source, "-o", str(tmp_path / "t.trace")]) == 2
    assert "is not a Kafka cluster" in capsys.readouterr().err


def test_a_listener_of_tls_is_named_to_a_plain_client(authority: Authority) -> None:
    identity = authority.issue("127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.cert, identity.key)

    def handle(handler: BaseRequestHandler) -> None:
        with contextlib.suppress(OSError), context.wrap_socket(handler.request, server_side=True) as secured:
            secured.recv(1)

    with serving(handle) as port:
        error = refusal(port)
        assert str(error) == (
            f"the broker 127.0.0.1:{port} speaks TLS on this port, but kafka.security_protocol is PLAINTEXT"
        )
        assert 'kafka.security_protocol = "SSL"' in str(error.hint)


@pytest.mark.parametrize("meant", ["PLAINTEXT", "SASL_PLAINTEXT"])
def test_a_listener_without_tls_is_named_to_a_client_that_speaks_it(meant: str) -> None:
    protocol = meant.replace("PLAINTEXT", "SSL")
    users = {"sasl_plain_username": "u", "sasl_plain_password": "p"} if "SASL" in meant else {}
    cluster = MockCluster()
    try:
        error = refusal(int(cluster.address.rpartition(":")[2]), security_protocol=protocol, **users)
    finally:
        cluster.close()
    assert "speaks Kafka without TLS on this port" in str(error)
    assert f'kafka.security_protocol = "{meant}"' in str(error.hint)
