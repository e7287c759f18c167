"""By TLS and SASL, onto a real Apache Kafka: every client of a run gets in, and who does not is told why."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from replay.cli import invoke
from replay.errors import TargetError
from replay.results.document import Consumed
from tests.support.certificates import Authority
from tests.support.kafka_broker import (
    PASSWORD,
    USER,
    Broker,
    jars,
)

from .test_mock import kafka_trace, replay

pytestmark = pytest.mark.kafka


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.create(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Broker]:
    folder = tmp_path_factory.mktemp("broker")
    broker = Broker(folder, jars(tmp_path_factory.mktemp("jars")), identity=authority.issue("127.0.0.1"))
    broker.start()

    async def made() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=broker.address)
        await admin.start()
        await admin.create_topics([NewTopic("secured", 2, 1)])
        await admin.close()

    asyncio.run(made())
    yield broker
    broker.stop()


def target(broker: Broker, protocol: str) -> str:
    return f"kafka://127.0.0.1:{broker.secured[protocol]}/secured"


@pytest.mark.parametrize(
    ("protocol", "mechanism"),
    [("SSL", ""), ("SASL_PLAINTEXT", "PLAIN"), ("SASL_SSL", "SCRAM-SHA-256"), ("SASL_SSL", "SCRAM-SHA-512")],
)
def test_every_client_of_a_run_gets_in(broker, authority, tmp_path, monkeypatch, protocol, mechanism):
    monkeypatch.setenv("KAFKA_PASSWORD", PASSWORD)
    settings = {"security_protocol": protocol, "ssl_cafile": str(authority.path), "consume": True}
    if mechanism:
        settings |= {
            "sasl_mechanism": mechanism, "sasl_plain_username": USER, "sasl_plain_password": "$KAFKA_PASSWORD",
        }  # fmt: skip
    trace = kafka_trace(tmp_path / "t", [(n % 2, b"%d" % n, b"v", ()) for n in range(60)], gap_ns=2_000_000)
    document = replay(trace, target(broker, protocol), tmp_path / "run", kafka=settings)
    assert document.accounts.ok == 60 and document.kafka is not None and document.kafka.offsets_agree
    assert document.kafka.consumed == {"end_to_end": Consumed(count=60)}
    written = (tmp_path / "run" / "run.json").read_text()
    assert PASSWORD not in written and "KAFKA_PASSWORD" not in written


def test_a_secured_topic_is_recorded(broker, authority, tmp_path):
    trace = kafka_trace(tmp_path / "t", [(0, b"k", b"v", ())] * 5)
    replay(trace, f"kafka://{broker.address}/secured", tmp_path / "run")
    (tmp_path / "s.toml").write_text(f'[kafka]\nsecurity_protocol = "SSL"\nssl_cafile = "{authority.path}"\n')
    command = ["record", target(broker, "SSL"), "-o", str(tmp_path / "back.trace")]
    assert invoke([*command, "--scenario", str(tmp_path / "s.toml")]) == 0


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
def test_wrong_credentials_are_refused_in_words(broker, tmp_path, mechanism):
    settings = {
        "security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": mechanism, "sasl_plain_username": USER,
        "sasl_plain_password": "wrong",
    }  # fmt: skip
    with pytest.raises(TargetError, match="refused the credentials"):
        replay(kafka_trace(tmp_path / "t", [(0, b"k", b"v", ())]), target(broker, "SASL_PLAINTEXT"),
               tmp_path / "run", kafka=settings)  # fmt: skip
    assert not (tmp_path / "run").exists()


def test_a_certificate_that_is_not_trusted_is_named(broker, tmp_path):
    stranger = Authority.create(tmp_path)
    with pytest.raises(TargetError, match="certificate"):
        replay(kafka_trace(tmp_path / "t", [(0, b"k", b"v", ())]), target(broker, "SSL"), tmp_path / "run",
               kafka={"security_protocol": "SSL", "ssl_cafile": str(stranger.path)})  # fmt: skip


@pytest.mark.parametrize(
    ("spoken", "listens", "says"),
    [("PLAINTEXT", "SSL", "speaks TLS"), ("SSL", "SASL_PLAINTEXT", "speaks Kafka without TLS")],
)
def test_a_listener_that_speaks_otherwise_is_named(broker, authority, tmp_path, spoken, listens, says):
    with pytest.raises(TargetError, match=f"{says} on this port, but kafka.security_protocol is {spoken}"):
        replay(kafka_trace(tmp_path / "t", [(0, b"k", b"v", ())]), target(broker, listens), tmp_path / "run",
               kafka={"security_protocol": spoken, "ssl_cafile": str(authority.path)})  # fmt: skip
    assert not (tmp_path / "run").exists()
