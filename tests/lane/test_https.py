"""An https target: who it is, is looked at before any load, and what is wrong said in words; then a run, whole."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

import replay.engine
from replay.errors import InputError, TargetError, UsageError
from replay.lane.contract import Address
from replay.lane.tls import Tls, native_context, python_context
from replay.protocols.http1 import probe
from replay.protocols.http1.probe import shake_hands
from replay.results.document import TlsPeer
from replay.results.run import load_run
from replay.settings.file import load
from replay.staging.sink import Identity, Sink
from replay_native.lane import libssl
from tests.contract.test_tls import TLS_1_2, TLS_1_3, _accepting
from tests.engine.test_replay import balances, document, run
from tests.engine.test_run import schedule
from tests.support.certificates import Authority
from tests.support.there import there

DAY = dt.timedelta(days=1)
NOW = dt.datetime.now(dt.UTC)


async def look(port: int, tls: Tls | None) -> TlsPeer | None:
    return await shake_hands((Address("127.0.0.1", port),), tls, f"127.0.0.1:{port}")


async def refusal(identity: Identity, tls: Tls) -> str:
    """What is said of a target with this identity; nothing was asked of it."""
    with Sink(capacity=10, tls=identity) as sink:
        with pytest.raises(TargetError) as caught:
            await look(sink.port, tls)
        assert sink.arrivals == 0
    return f"{caught.value} ({caught.value.hint})"


def self_signed(folder: Path) -> Identity:
    key = ec.generate_private_key(ec.SECP256R1())
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sink.test")]))
        .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sink.test")]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + DAY)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("sink.test")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / "self.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + secret)
    return Identity(path, path)


async def test_a_certificate_that_has_expired(authority: Authority) -> None:
    said = await refusal(authority.issue(expires=NOW - 2 * DAY), authority.settings())
    assert f"its certificate expired on {NOW - 2 * DAY:%b}" in said
    assert "--insecure" in said


async def test_a_certificate_for_another_host(authority: Authority) -> None:
    said = await refusal(authority.issue("a.test", "b.test"), authority.settings("sink.test"))
    assert "its certificate is for a.test, b.test, not for sink.test" in said
    assert "--server-name" in said


async def test_a_certificate_of_nobody_that_is_trusted(authority: Authority, tmp_path: Path) -> None:
    said = await refusal(Authority.create(tmp_path).issue(), authority.settings())
    assert "issued by an authority that" in said
    assert str(authority.path) in said
    said = await refusal(authority.issue(), Tls("127.0.0.1"))
    assert "issued by an authority that this machine does not trust" in said
    assert "--ca FILE" in said


async def test_a_certificate_that_vouches_for_itself(authority: Authority, tmp_path: Path) -> None:
    identity = self_signed(tmp_path)
    said = await refusal(identity, authority.settings("sink.test"))
    assert "its certificate is self-signed" in said
    with Sink(capacity=10, tls=identity) as sink:
        trusted = await look(sink.port, Tls("sink.test", ca=str(identity.cert)))
    assert trusted is not None and trusted.certificate == "sink.test"


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
async def test_a_target_that_wants_to_know_its_client(authority: Authority, version: int) -> None:
    identity = dataclasses.replace(authority.issue(), client_ca=authority.path, version=version)
    said = await refusal(identity, authority.settings())
    assert "client certificate" in said and "--cert FILE" in said
    own = authority.issue()
    with Sink(capacity=10, tls=identity) as sink:
        peer = await look(sink.port, authority.settings(cert=str(own.cert), key=str(own.key)))
    assert peer is not None and peer.client_certificate == str(own.cert)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_target_that_asks_for_a_certificate_and_does_without_is_told_of(
    authority: Authority, version: ssl.TLSVersion
) -> None:
    identity, own = authority.issue(), authority.issue()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.cert, identity.key)
    context.load_verify_locations(authority.path)
    context.minimum_version = context.maximum_version = version

    def answer(client: socket.socket) -> None:
        with contextlib.suppress(OSError), context.wrap_socket(client, server_side=True) as secured:
            secured.recv(1)

    for asks in (ssl.CERT_OPTIONAL, ssl.CERT_NONE):
        context.verify_mode = asks
        with _accepting(answer) as port:
            peer = await look(port, authority.settings())
            known = await look(port, authority.settings(cert=str(own.cert), key=str(own.key)))
        assert peer is not None and peer.asks_certificate == (asks == ssl.CERT_OPTIONAL)
        assert known is not None and known.client_certificate


async def test_a_good_certificate_is_told_of(authority: Authority) -> None:
    with Sink(capacity=10, tls=authority.issue()) as sink:
        peer = await look(sink.port, authority.settings())
        unverified = await look(sink.port, Tls("127.0.0.1", verify=False))
    assert peer is not None and unverified is not None
    assert (peer.version, peer.verified) == ("TLS 1.3", True)
    assert peer.certificate == "127.0.0.1, localhost, sink.test"
    assert (unverified.verified, unverified.certificate) == (False, "")


async def test_plain_http_where_tls_was_asked_for(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(client: socket.socket) -> None:
        client.recv(65_536)
        client.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    with _accepting(answer) as port, pytest.raises(TargetError, match="speaks plain HTTP, not TLS") as caught:
        await look(port, authority.settings())
    assert caught.value.hint == f"--target http://127.0.0.1:{port}"
    # This server waits for the end of the line.
    monkeypatch.setattr(probe, "TIMEOUT_S", 0.5)
    with Sink(capacity=10) as sink, pytest.raises(TargetError, match="speaks plain HTTP, not TLS"):
        await look(sink.port, authority.settings())


async def test_tls_where_plain_http_was_asked_for(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "is_port_of_tls", lambda port: True)
    with Sink(capacity=10, tls=authority.issue()) as sink:
        with pytest.raises(TargetError, match="speaks TLS, not plain HTTP") as caught:
            await look(sink.port, None)
        assert caught.value.hint == f"--target https://127.0.0.1:{sink.port}"
    with Sink(capacity=10) as sink:
        monkeypatch.setattr(probe, "TIMEOUT_S", 0.3)
        assert await look(sink.port, None) is None
        assert sink.arrivals == 0


def test_ports_of_tls_are_known_by_their_numbers() -> None:
    assert [port for port in (80, 443, 8_080, 8_443, 10_443, 44_300) if probe.is_port_of_tls(port)] == [
        443,
        8_443,
        10_443,
    ]


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (b"", "ended the connection in the TLS handshake"),
        (b"220 mail.test ESMTP\r\n", "does not speak TLS on this port"),
        (b"\x15\x03\x03\x00\x02\x02\x46", "it speaks neither TLS 1.2 nor 1.3"),
    ],
)
async def test_what_answers_a_handshake_otherwise(authority: Authority, sent: bytes, words: str) -> None:
    def answer(client: socket.socket) -> None:
        client.recv(65_536)
        client.sendall(sent)

    with _accepting(answer) as port, pytest.raises(TargetError, match=words):
        await look(port, authority.settings())


@pytest.mark.timing
async def test_what_came_of_a_certificate_in_mid_run_is_said(authority: Authority, tmp_path: Path) -> None:
    contexts = []
    for identity in (authority.issue(), authority.issue(expires=NOW - DAY)):
        contexts.append(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        contexts[-1].load_cert_chain(identity.cert, identity.key)
    answers = iter([contexts[0]] * 8)

    def answer(client: socket.socket) -> None:
        with next(answers, contexts[1]).wrap_socket(client, server_side=True) as secured:
            if secured.recv(65_536):
                secured.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with _accepting(answer) as port:
        target: dict[str, Any] = {
            "target": f"https://127.0.0.1:{port}",
            "tls": {"ca": str(authority.path), "resume": False},
        }
        planned, scenario = schedule(tmp_path, port, rows=20, connect="per-request", **target)
        made = await replay.engine.run(planned, scenario, tmp_path / "run")
    failed = made.accounts_detail.error["tls"]
    assert failed and made.accounts.ok + failed == 20
    (note,) = [note for note in made.notes if note.code == "HANDSHAKES_FAILED"]
    assert note.message.startswith(f"{failed} handshakes failed; one more after the run failed: ")
    assert "its certificate expired" in note.message


def test_files_that_are_not_what_they_were_given_for(authority: Authority, tmp_path: Path) -> None:
    first, second = authority.issue(), authority.issue()
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing")
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"ca": "/no/such.pem"}, "/no/such.pem: no such file"),
        ({"ca": str(empty)}, "holds no certificates"),
        ({"cert": "/no/such.pem"}, "there is no such file"),
        ({"cert": str(first.cert), "key": str(second.key)}, "does not belong to the certificate"),
        ({"cert": str(first.cert), "key": str(empty)}, "no certificate with a key"),
    )
    for given, words in cases:
        with pytest.raises(InputError, match=words):
            python_context(Tls("sink.test", **given))


def test_a_lanes_context_reads_the_same_files(authority: Authority, tmp_path: Path) -> None:
    own = authority.issue()
    with native_context(authority.settings(cert=str(own.cert), key=str(own.key))) as context:
        assert context
    folder = tmp_path / "hashed"
    folder.mkdir()
    with native_context(Tls("sink.test", ca=str(folder))) as context:
        assert context


def test_settings_of_tls_in_a_scenario(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text('target = "https://staging.test/base"\n[tls]\nca = "ca.pem"\nserver_name = "api.test"\n')
    scenario = load(path, {"tls.cert": "mine.pem"})
    assert (scenario.tls.ca, scenario.tls.cert) == (str(tmp_path / "ca.pem"), "mine.pem")
    for text, words in (
        ('key = "k.pem"', "a key without its certificate"),
        ('insecure = true\nca = "ca.pem"', "no certificate is verified"),
        ('server_name = "two words"', "is not a host name"),
    ):
        path.write_text(f"[tls]\n{text}\n")
        with pytest.raises(UsageError, match=words) as caught:
            load(path)
        assert "line 2" in str(caught.value) or "line 3" in str(caught.value)


def test_without_openssl_to_call_the_portable_engine_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    from replay.protocols.http1.adapter import choose_engine, why_portable

    assert choose_engine("auto", secure=True)[0] == "native"
    monkeypatch.setattr(libssl, "_why_not", "OpenSSL is built into this Python")
    assert choose_engine("auto", secure=True)[0] == "portable"
    assert choose_engine("auto", secure=False)[0] == "native"
    assert "OpenSSL is built into this Python" in why_portable("auto", secure=True)
    with pytest.raises(UsageError, match="OpenSSL is built into this Python"):
        choose_engine("native", secure=True)


@pytest.mark.parametrize("engine", ["native", "portable"])
async def test_a_run_by_tls_says_how_it_was_secured(
    authority: Authority, tmp_path: Path, engine: str
) -> None:
    import replay

    with Sink(capacity=10_000, tls=authority.issue()) as sink:
        planned, scenario = schedule(
            tmp_path, sink.port, rows=100, path="/sink/close",
            target=f"https://127.0.0.1:{sink.port}", tls={"ca": str(authority.path)}, engine=engine,
        )  # fmt: skip
        result = await replay.engine.run(planned, scenario, tmp_path / "run")
        assert sink.arrivals == 100
    assert result.accounts.ok == 100
    assert result.tls is not None
    assert (result.tls.peer.verified, result.tls.peer.ca) == (True, str(authority.path))
    full, resumed = result.tls.handshakes_full, result.tls.handshakes_resumed
    assert full + resumed == result.connections.opened
    assert resumed > full >= 1
    assert there(result.latency.handshake_full).count == full
    assert there(result.latency.handshake_resumed).count == resumed
    saved = load_run(tmp_path / "run")
    assert sum(row.handshakes_full for row in saved.seconds()) == full
    totals = (tmp_path / "run" / "totals.hlog").read_text()
    assert "Tag=handshake.full," in totals and "Tag=handshake.resumed," in totals


async def test_a_run_without_tls_speaks_of_none(tmp_path: Path) -> None:
    import replay

    with Sink(capacity=10_000) as sink:
        planned, scenario = schedule(tmp_path, sink.port, rows=20)
        result = await replay.engine.run(planned, scenario, tmp_path / "run")
    assert result.tls is None
    assert "handshake" not in (tmp_path / "run" / "totals.hlog").read_text()


@pytest.mark.timing
@pytest.mark.whole
def test_the_command_replays_onto_an_https_target(authority: Authority, tmp_path: Path) -> None:
    log = tmp_path / "few.log"
    log.write_text(
        "".join(f'10.0.0.1 - - [01/Jan/2020:18:00:0{i} +0000] "GET /a HTTP/1.1" 200 5\n' for i in range(3))
    )
    with Sink(capacity=100, tls=authority.issue()) as sink:
        target = f"https://127.0.0.1:{sink.port}"
        refused = run("run", log, "--target", target, "-o", tmp_path / "refused", cwd=tmp_path)
        assert refused.returncode == 2
        assert "this machine does not trust" in refused.stderr
        assert sink.arrivals == 0
        done = run(
            "run", log, "--target", target, "--insecure", "-o", tmp_path / "run", "--plain", cwd=tmp_path
        )
        assert done.returncode in (0, 4), done.stderr
        assert done.stdout.count("NOT VERIFIED (--insecure)") == 2
        assert "INSECURE" in done.stdout
        assert sink.arrivals == 3
    result = document(tmp_path / "run")
    assert balances(result["accounts"])
    assert result["tls"]["peer"]["verified"] is False
