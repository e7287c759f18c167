"""Brokers for tests: a real Apache Kafka in a process of its own, and librdkafka's mock cluster in this one."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from replay.staging.sink import Identity
from tests.conftest import IN_CI
from tests.support.places import DATA

from .ports import free_port

BUILD_TIMEOUT_S, START_TIMEOUT_S, STOP_TIMEOUT_S = 600, 60, 20
POM = DATA / "kafka" / "pom.xml"

CONFIG = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}{listeners}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}{listeners}
controller.listener.names=CONTROLLER
log.dirs={folder}/data
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
"""


USER, PASSWORD = "alice", "wonderland"
SECURED = ("SSL", "SASL_PLAINTEXT", "SASL_SSL")
SECURED_CONFIG = """\
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL
inter.broker.listener.name=PLAINTEXT
ssl.keystore.type=PEM
ssl.keystore.location={keystore}
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
""" + "".join(
    f"listener.name.{listener}.{mechanism}.sasl.jaas.config="
    f"org.apache.kafka.common.security.{module} required{more};\n"
    for listener in ("sasl_plaintext", "sasl_ssl")
    for mechanism, module, more in (
        ("plain", "plain.PlainLoginModule", ' user_{user}="{password}"'),
        ("scram-sha-256", "scram.ScramLoginModule", ""),
        ("scram-sha-512", "scram.ScramLoginModule", ""),
    )
)


def _keystore(folder: Path, identity: Identity) -> Path:
    """Key and certificates in one file, as Kafka reads PEM: the key as PKCS 8."""
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(identity.key.read_bytes(), None)
    pkcs8 = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / "keystore.pem"
    path.write_bytes(pkcs8 + identity.cert.read_bytes())
    return path


def jars(folder: Path) -> Path:
    """The folder with Kafka's jars, brought by Maven. Where that cannot be the test is skipped, but never in CI."""
    given = os.environ.get("REPLAY_KAFKA_JARS")
    if given:
        return Path(given)
    missing = [tool for tool in ("java", "mvn") if shutil.which(tool) is None]
    reason = f"{' and '.join(missing)} not found: needed for a real Apache Kafka"
    if not missing:
        shutil.copy(POM, folder / "pom.xml")
        for offline in (["-o"], []):
            built = subprocess.run(
                ["mvn", "-q", "-B", *offline, "package"],
                cwd=folder, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, check=False,
            )  # fmt: skip
            if built.returncode == 0:
                return folder / "target" / "dependency"
        reason = "Maven could not bring Apache Kafka: " + built.stdout[-500:]
    if IN_CI:
        pytest.fail(reason)
    pytest.skip(reason)


class Broker:
    """Apache Kafka, one KRaft node on loopback; its log is `folder`/broker.log."""

    def __init__(
        self, folder: Path, classpath: Path, *, core: int | None = None, identity: Identity | None = None
    ) -> None:
        """Its files; with an identity it listens by TLS and SASL as well, for the user USER. On one core, if asked for."""
        self.folder, self._classpath = folder, f"{classpath}/*"
        self._pinned = [] if core is None else ["taskset", "-c", str(core)]
        self.port = free_port()
        self._config = folder / "server.properties"
        self.secured = {name: free_port() for name in SECURED} if identity is not None else {}
        listeners = "".join(f",{name}://127.0.0.1:{port}" for name, port in self.secured.items())
        config = CONFIG.format(port=self.port, controller=free_port(), folder=folder, listeners=listeners)
        if identity is not None:
            config += SECURED_CONFIG.format(
                keystore=_keystore(folder, identity), user=USER, password=PASSWORD
            )
        self._config.write_text(config)
        self._process: subprocess.Popen[bytes] | None = None
        users = [
            argument
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
            for argument in ("--add-scram", f"{mechanism}=[name={USER},password={PASSWORD}]")
        ]
        self.java("kafka.tools.StorageTool", "format", "--cluster-id", "8Dm6nMVsS5mDyJxTRTyHWA", "--config",
                  str(self._config), *(users if identity is not None else []))  # fmt: skip

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def command(self, *arguments: str) -> list[str]:
        """How one of Kafka's own tools is run."""
        return ["java", "-Xmx256m", "-cp", self._classpath, *arguments]

    def java(self, *arguments: str, stdin: bytes | None = None) -> str:
        """Run one of Kafka's own tools to its end; what it printed."""
        done = subprocess.run(
            self.command(*arguments), input=stdin, capture_output=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr.decode()[-2_000:] + done.stdout.decode()[-2_000:]
        return done.stdout.decode()

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        command = ["java", "-Xms256m", "-Xmx512m", "-cp", self._classpath, "kafka.Kafka", str(self._config)]
        with (self.folder / "broker.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._pinned, *command], stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            with socket.socket() as client:
                client.settimeout(1)
                if client.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.1)
        self.kill()
        pytest.fail("the broker did not start:\n" + (self.folder / "broker.log").read_text()[-3_000:])

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(STOP_TIMEOUT_S)
            self._process = None

    def stop(self) -> None:
        """An end in order, if it takes no longer than is bearable."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None


class MockCluster:
    """librdkafka's mock cluster by its C interface (rdkafka_mock.h): confluent-kafka does not pass its faults on."""

    def __init__(self, brokers: int = 1) -> None:
        confluent_kafka = pytest.importorskip(
            "confluent_kafka", reason="the mock cluster is in the confluent-kafka wheel"
        )
        found = sorted(
            Path(confluent_kafka.__file__).parent.parent.glob("confluent_kafka.libs/librdkafka*.so*")
        )
        if not found:
            pytest.skip("this confluent-kafka has its librdkafka elsewhere")
        self._library = library = ctypes.CDLL(str(found[0]))
        for name in ("rd_kafka_conf_new", "rd_kafka_new", "rd_kafka_mock_cluster_new"):
            getattr(library, name).restype = ctypes.c_void_p
        library.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
        error = ctypes.create_string_buffer(512)
        self._client = ctypes.c_void_p(
            library.rd_kafka_new(0, ctypes.c_void_p(library.rd_kafka_conf_new()), error, len(error))
        )
        self._cluster = ctypes.c_void_p(library.rd_kafka_mock_cluster_new(self._client, brokers))
        self.address = str(library.rd_kafka_mock_cluster_bootstraps(self._cluster), "ascii").split(",")[0]

    def make(self, topic: str, partitions: int) -> None:
        """Make a topic of one replica."""
        assert self._library.rd_kafka_mock_topic_create(self._cluster, topic.encode(), partitions, 1) == 0

    def lead(self, topic: str, partition: int, broker: int) -> None:
        """Make a broker, from 1 on, the leader of a partition; -1: none."""
        name = topic.encode()
        assert self._library.rd_kafka_mock_partition_set_leader(self._cluster, name, partition, broker) == 0

    def fail_produce(self, *codes: int) -> None:
        """The next Produce requests get these errors (0: none)."""
        self._library.rd_kafka_mock_push_request_errors_array(
            self._cluster, ctypes.c_int16(0), ctypes.c_size_t(len(codes)), (ctypes.c_int * len(codes))(*codes)
        )

    def close(self) -> None:
        """End it."""
        self._library.rd_kafka_mock_cluster_destroy(self._cluster)
        self._library.rd_kafka_destroy(self._client)
