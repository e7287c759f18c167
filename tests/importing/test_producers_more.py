"""Logs that real servers write, imported without options: those that are installed where the tests run."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.ports import free_port

from .test_producers import (
    CLOSE_NS,
    imported,
    service,
    until_up,
)

_ = service
S = 1_000_000_000


def _ask(port: int, request: bytes) -> int:
    """Send a request; when, in ns since the epoch."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        at_ns = time.time_ns()
        connection.sendall(request)
        while connection.recv(4096):
            pass
    return at_ns


def _stopped(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(20)


def _until_lines(log: Path, count: int) -> None:
    for _ in range(200):
        if log.exists() and log.read_bytes().count(b'" ') + log.read_bytes().count(b" HIER_") >= count:
            return
        time.sleep(0.05)
    raise AssertionError(f"the log has not {count} lines: {log.read_bytes() if log.exists() else None!r}")


def test_squid_s_start_is_its_stamp_less_the_duration(tmp_path: Path, service: int) -> None:
    squid = shutil.which("squid", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if squid is None:
        pytest.skip("squid is not installed")
    port, log = free_port(), tmp_path / "squid.log"
    tmp_path.chmod(0o777)
    for folder in tmp_path.parents[:3]:
        folder.chmod(0o755)
    (tmp_path / "squid.conf").write_text(
        f"http_port 127.0.0.1:{port}\nhttp_access allow all\naccess_log stdio:{log} squid\n"
        f"cache_log {tmp_path}/cache.log\npid_filename {tmp_path}/squid.pid\ncache deny all\ncoredump_dir {tmp_path}\n"
        "shutdown_lifetime 0 seconds\nstrip_query_terms off\n"
    )
    process = subprocess.Popen([squid, "-N", "-f", str(tmp_path / "squid.conf")])
    try:
        until_up(port, process)
        request = b"GET http://127.0.0.1:%d/a?x=1 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n" % service
        at_ns = _ask(port, request)
        _ask(port, b"CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: h\r\n\r\n")
        _until_lines(log, 2)
    finally:
        _stopped(process)
    got, manifest = imported(log)
    assert manifest.importer == "squid" and manifest.rejected.pop("no path") == 1
    assert manifest.rejected.keys() <= {"no method"}, "connections of a test that sent nothing"
    [event] = got
    assert (event.method, event.target, event.status) == ("GET", b"/a?x=1", 200)
    assert abs(event.at_ns - at_ns) < CLOSE_NS


_FLASK = "from flask import Flask\napp = Flask(__name__)\n@app.route('/a')\ndef a(): return 'x'\n"
_DJANGO = """
import sys
from django.conf import settings
settings.configure(DEBUG=True, ROOT_URLCONF=__name__, SECRET_KEY="x", ALLOWED_HOSTS=["*"])
from django.core.management import execute_from_command_line
from django.http import HttpResponse
from django.urls import path
urlpatterns = [path("a", lambda request: HttpResponse("x"))]
if __name__ == "__main__":
    execute_from_command_line(sys.argv)
"""
_COMMANDS = {
    "http.server": ("python-http", "", ["-m", "http.server", "--bind", "127.0.0.1", "{port}"]),
    "flask": ("python-http", _FLASK, ["-m", "flask", "--app", "server", "run", "--port", "{port}"]),
    "django": ("django", _DJANGO, ["server.py", "runserver", "--noreload", "{port}"]),
}


@pytest.mark.parametrize("module", _COMMANDS)
def test_python_s_servers(tmp_path: Path, module: str) -> None:
    if importlib.util.find_spec(module.partition(".")[0]) is None:
        pytest.skip(f"{module} is not installed")
    importer, text, words = _COMMANDS[module]
    (tmp_path / "server.py").write_text(text)
    (tmp_path / "a").write_text("x")
    port, log = free_port(), tmp_path / "server.log"
    command = [sys.executable, "-u", *(word.format(port=port) for word in words)]
    environment = {**os.environ, "TZ": "UTC", "PYTHONUNBUFFERED": "1"}
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=out, stderr=out, env=environment)
    try:
        until_up(port, process)
        at_ns = _ask(port, b'GET /a?q="%22 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n')
        _ask(port, b"GET /none HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        _until_lines(log, 2)
    finally:
        _stopped(process)
    got, manifest = imported(log)
    assert manifest.importer == importer and not manifest.rejected.get("not this format")
    first = next(event for event in got if event.target.startswith(b"/a"))
    assert first.target in (b'/a?q="%22', b'/a?q=""') and first.status == 200
    assert -S < first.at_ns - at_ns <= 2 * S
    assert [event.status for event in got if event.target == b"/none"] == [404]
