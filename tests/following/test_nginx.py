"""The log of a real nginx, with buffers, slow responses and rotation by its own signal."""

from __future__ import annotations

import http.client
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from replay.staging.sink import Sink
from replay.trace import Trace
from tests.support.followed import MS_FORMAT, Followed
from tests.support.ports import free_port

NGINX = shutil.which("nginx")
pytestmark = [
    pytest.mark.whole,
    pytest.mark.timing,
    pytest.mark.skipif(NGINX is None, reason="nginx is not installed"),
]

CONFIGURATION = """
daemon off; master_process on; worker_processes 2; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ }}
http {{
  log_format ms '{format}';
  access_log {folder}/access.log ms {buffer};
  server {{
    listen 127.0.0.1:{port};
    location / {{ return 200 "ok"; }}
    location /sink/ {{ proxy_pass http://127.0.0.1:{backend}; }}
  }}
}}
"""


@dataclass
class Nginx:
    """A running server, its log, and when each of its requests was sent."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def log(self) -> Path:
        return self.folder / "access.log"

    def get(self, target: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.request("GET", target)
        connection.getresponse().read()
        connection.close()

    def rotate(self) -> None:
        """As logrotate does it."""
        self.log.rename(self.folder / "access.log.1")
        subprocess.run(["kill", "-USR1", str(self.process.pid)], check=True)


@pytest.fixture
def nginx(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Nginx]:
    port = free_port()
    with Sink() as backend:
        (tmp_path / "nginx.conf").write_text(
            CONFIGURATION.format(
                folder=tmp_path,
                port=port,
                backend=backend.port,
                format=MS_FORMAT,
                buffer=getattr(request, "param", ""),
            )
        )
        assert NGINX is not None
        process = subprocess.Popen(
            [NGINX, "-c", str(tmp_path / "nginx.conf"), "-p", str(tmp_path)], stderr=subprocess.PIPE
        )
        found = Nginx(tmp_path, port, process)
        try:
            for _ in range(200):
                try:
                    found.get("/before")
                    break
                except OSError:
                    time.sleep(0.05)
            yield found
        finally:
            process.terminate()
            process.wait(10)


def test_rotation_by_nginx_itself_loses_no_request(tmp_path: Path, nginx: Nginx) -> None:
    with Sink() as target:
        follow = Followed(tmp_path, str(nginx.log), target.port, "--log-format", MS_FORMAT)
        follow.wait_for_plan()
        time.sleep(1)
        for number in range(150):
            nginx.get(f"/items/{number}")
            if number in (50, 100):
                nginx.rotate()
        time.sleep(3.5)
        ended = follow.end()
        assert ended.source["entries"] == ended.planned == target.arrivals == 150
        # A worker of nginx reopens its log after the master has created it, so an empty file may go unnoticed.
        assert ended.source["rotations"] in (1, 2) and ended.source["late_at_source"] == 0


@pytest.mark.parametrize("nginx", ["buffer=64k flush=5s"], indirect=True)
def test_buffered_lines_and_slow_responses_are_sent_by_their_starts(tmp_path: Path, nginx: Nginx) -> None:
    """A line comes 5 s after the end of its request, whose response took up to 6 s."""
    time.sleep(5.5)  # nginx has written the line of the first request.
    sent_ns: dict[bytes, int] = {}

    def one(target: str) -> None:
        sent_ns[target.encode()] = time.time_ns()
        nginx.get(target)

    with Sink() as target:
        follow = Followed(
            tmp_path, str(nginx.log), target.port, "--log-format", MS_FORMAT, "--delay", "14s", "--keep", "kept.trace"
        )  # fmt: skip
        follow.wait_for_plan()
        time.sleep(1)
        threads = []
        for number in range(60):
            slow = f"/sink/delay_ms={6_000 if number % 3 == 0 else 300}/{number}"
            threads.append(threading.Thread(target=one, args=(slow if number % 2 else f"/quick/{number}",)))
            threads[-1].start()
            time.sleep(0.05)
        for thread in threads:
            thread.join()
        time.sleep(14)
        ended = follow.end(timeout_s=30)
    assert ended.source["entries"] == ended.planned == 60 and ended.source["late_at_source"] == 0
    trace = Trace.open(tmp_path / "kept.trace")
    starts = {
        trace.requests.get(int(request)).target: int(at_ns)
        for batch in trace.batches()
        for request, at_ns in zip(batch.request, batch.at_ns, strict=True)
    }
    assert starts.keys() == sent_ns.keys()
    assert max(abs(starts[name] - sent_ns[name]) for name in starts) < 100_000_000
    needed = ended.source["needed_delay_ns"]
    assert 6_000_000_000 < needed < 14_000_000_000
