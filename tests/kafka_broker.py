"""Brokers for tests: a real Apache Kafka in a process of its own, and librdkafka's mock cluster in this one."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from .conftest import IN_CI

BUILD_TIMEOUT_S, START_TIMEOUT_S, STOP_TIMEOUT_S = 600, 60, 20
POM = Path(__file__).parent / "kafka" / "pom.xml"

CONFIG = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
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


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


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

    def __init__(self, folder: Path, classpath: Path, *, more: str = "") -> None:
        self.folder, self._classpath = folder, f"{classpath}/*"
        self.port = free_port()
        self._config = folder / "server.properties"
        self._config.write_text(CONFIG.format(port=self.port, controller=free_port(), folder=folder) + more)
        self._process: subprocess.Popen[bytes] | None = None
        self.java("kafka.tools.StorageTool", "format", "--cluster-id", "8Dm6nMVsS5mDyJxTRTyHWA", "--config",
                  str(self._config))  # fmt: skip

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def java(self, *arguments: str, stdin: bytes | None = None) -> str:
        """Run one of Kafka's own tools to its end; what it printed."""
        command = ["java", "-Xmx256m", "-cp", self._classpath, *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr.decode()[-2_000:] + done.stdout.decode()[-2_000:]
        return done.stdout.decode()

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        command = ["java", "-Xms256m", "-Xmx512m", "-cp", self._classpath, "kafka.Kafka", str(self._config)]
        with (self.folder / "broker.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
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
