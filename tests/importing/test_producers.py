"""Logs that real servers write in front of a slow service, imported as a user would."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest

from replay.trace import Manifest
from replay.trace.importing import Options, import_files
from tests.support.events import Event, events
from tests.support.ports import free_port

SLOW_S = 0.4
CLOSE_NS = 150_000_000
"""A start may be this far from when the client sent: less than half of what the service takes."""

TARGETS = [b"/a?b=%22c", b"/d/e\xc3\xa9", b'/quo"te\\back', b"/404/x"]


class Sent(NamedTuple):
    at_ns: int
    method: str
    target: bytes
    status: int


class _Slow(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # The response fits one segment: GoReplay loses some that arrive in two.

    def do_GET(self) -> None:
        time.sleep(SLOW_S)
        body = b"hello"
        self.send_response(404 if "404" in self.path else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """A proxy that hangs up is no news."""


@pytest.fixture
def service() -> Iterator[int]:
    """The port of a service that takes its time."""
    server = _Server(("127.0.0.1", 0), _Slow)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def needed(*names: str) -> str:
    """The path of a program. Where it is missing the test is skipped, except in CI."""
    for name in names:
        found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
        if found:
            return found
    assert os.environ.get("CI") != "true", f"CI installs {names[0]}"
    pytest.skip(f"{names[0]} is not installed")


def until_up(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        assert process.poll() is None, process.communicate()
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("the server did not come up")


def _until_written(log: Path, what: bytes, times: int) -> None:
    for _ in range(200):
        if log.read_bytes().count(what) >= times:
            return
        time.sleep(0.05)
    raise AssertionError(f"{what!r} is not there {times} times: {log.read_bytes()!r}")


def _ask(port: int, target: bytes, sent: list[Sent]) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        at_ns = time.time_ns()
        connection.sendall(b"GET %s HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n" % target)
        answer = b""
        while piece := connection.recv(4096):
            answer += piece
    sent.append(Sent(at_ns, "GET", target, int(answer[9:12])))


def burst(port: int, targets: list[bytes] = TARGETS) -> list[Sent]:
    """Requests all at once, twice, each waiting for the slow service."""
    sent: list[Sent] = []
    for _ in range(2):
        threads = [threading.Thread(target=_ask, args=(port, target, sent)) for target in targets]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return sorted(sent)


def encoded(target: bytes) -> bytes:
    return b"".join(bytes([byte]) if 33 <= byte <= 126 else b"%%%02X" % byte for byte in target)


def imported(log: Path, **options: str) -> tuple[list[Event], Manifest]:
    trace = import_files([log], log.with_suffix(".trace"), options=Options(**options))  # type: ignore[arg-type]
    return events(trace), trace.manifest


def judged(got: list[Event], sent: list[Sent], tolerance_ns: int) -> None:
    """Each request is there, and not shifted by what the service took."""
    assert sorted((e.target, e.status) for e in got) == sorted((encoded(s.target), s.status) for s in sent)
    for event in got:
        assert any(
            s.target and encoded(s.target) == event.target and abs(event.at_ns - s.at_ns) < tolerance_ns
            for s in sent
        )


def run(command: list[str], port: int) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until_up(port, process)
    return process


FORMATS = {
    "nginx": '$msec $remote_addr "$request" $status $body_bytes_sent $request_time',
    "nginx-json": '{"msec":"$msec","request":"$request","status":"$status","request_time":"$request_time",'
    '"body_bytes_sent":"$body_bytes_sent","remote_addr":"$remote_addr"}',
    "ingress-nginx": '$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer"'
    ' "$http_user_agent" $request_length $request_time [$host] [] $upstream_addr $upstream_response_length'
    " $upstream_response_time $upstream_status $request_id",
}


def test_nginx_stamps_the_end_and_a_burst_is_not_shifted_by_it(tmp_path: Path, service: int) -> None:
    nginx, port = needed("nginx"), free_port()
    formats = "".join(
        f"log_format {name.replace('-', '_')} {'escape=json' if 'json' in name else ''} '{text}';\n"
        f"access_log {tmp_path}/{name}.log {name.replace('-', '_')};\n"
        for name, text in FORMATS.items()
    )
    (tmp_path / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {tmp_path}/pid; error_log {tmp_path}/error.log;\n"
        "events { worker_connections 64; }\n"
        f"http {{ {formats} access_log {tmp_path}/combined.log combined;\n"
        f"client_body_temp_path {tmp_path}/b; proxy_temp_path {tmp_path}/p; fastcgi_temp_path {tmp_path}/f;\n"
        f"uwsgi_temp_path {tmp_path}/u; scgi_temp_path {tmp_path}/s;\n"
        f"server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://127.0.0.1:{service}; }} }} }}\n"
    )
    process = run([nginx, "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")], port)
    try:
        sent = burst(port)
    finally:
        process.terminate()
        process.communicate(timeout=20)
    for name, text in FORMATS.items():
        options = {"log_format": text} if name == "nginx" else {}
        got, manifest = imported(tmp_path / f"{name}.log", **options)
        assert (manifest.importer, manifest.stamp, manifest.duration_subtracted) == (name, "end", True)
        judged(got, sent, CLOSE_NS if name != "ingress-nginx" else 1_100_000_000)
        assert all(event.took_ns >= SLOW_S * 0.9e9 for event in got)
    got, manifest = imported(tmp_path / "combined.log")
    assert (manifest.importer, manifest.stamp, len(got)) == ("common", "unknown", len(sent))
    assert sorted(e.target for e in got) == sorted(encoded(s.target) for s in sent)


def test_apache_stamps_the_start(tmp_path: Path, service: int) -> None:
    apache, port = needed("apache2", "httpd"), free_port()
    log_format = '%h %l %u [%{usec}t] \\"%r\\" %>s %b %D'
    modules = Path("/usr/lib/apache2/modules")
    loaded = "".join(
        f"LoadModule {name}_module {modules}/mod_{name}.so\n"
        for name in ("mpm_event", "authz_core", "proxy", "proxy_http")
        if (modules / f"mod_{name}.so").exists()
    )
    (tmp_path / "httpd.conf").write_text(
        f"{loaded}ServerName x\nServerRoot {tmp_path}\nPidFile {tmp_path}/pid\nListen 127.0.0.1:{port}\n"
        f"ErrorLog {tmp_path}/error.log\nDefaultRuntimeDir {tmp_path}\nAllowEncodedSlashes NoDecode\n"
        f'LogFormat "{log_format}" timed\nCustomLog {tmp_path}/timed.log timed\n'
        f'LogFormat "%h %l %u %t \\"%r\\" %>s %b" common\nCustomLog {tmp_path}/plain.log common\n'
        f"ProxyPass / http://127.0.0.1:{service}/ nocanon\n"
    )
    process = run([apache, "-X", "-d", str(tmp_path), "-f", str(tmp_path / "httpd.conf")], port)
    try:
        sent = burst(port)
    finally:
        process.terminate()
        process.communicate(timeout=20)
    got, manifest = imported(tmp_path / "timed.log", log_format=f'LogFormat "{log_format}" timed')
    assert (manifest.importer, manifest.stamp) == ("apache", "start")
    judged(got, sent, CLOSE_NS)
    got, manifest = imported(tmp_path / "plain.log")
    assert manifest.importer == "common"
    assert sorted(e.target for e in got) == sorted(encoded(s.target) for s in sent)


def test_haproxy_stamps_the_start(tmp_path: Path, service: int) -> None:
    haproxy, port = needed("haproxy"), free_port()
    (tmp_path / "haproxy.cfg").write_text(
        "global\n nbthread 1\n log stdout format raw local0\n"
        "defaults\n mode http\n log global\n option httplog\n"
        " timeout connect 5s\n timeout client 30s\n timeout server 30s\n"
        f"frontend shop\n bind 127.0.0.1:{port}\n default_backend slow\n"
        f"frontend lax\n bind 127.0.0.1:{(lax := free_port())}\n option accept-invalid-http-request\n default_backend slow\n"
        f"backend slow\n server one 127.0.0.1:{service}\n"
    )
    log = tmp_path / "haproxy.log"
    with log.open("wb") as out:
        command = [haproxy, "-db", "-f", str(tmp_path / "haproxy.cfg")]
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.PIPE, env={**os.environ, "TZ": "UTC"}
        )
        try:
            until_up(port, process)
            good = burst(port, [TARGETS[0], TARGETS[3]])
            bad = burst(port, [b"/d/e\xc3\xa9"])
            good += burst(lax, [b'/d/e\xc3\xa9?q="#22"'])
            # GoReplay ends at once, and does not report what it has not written yet.
            _until_written(log, b'HTTP/1.1"', len(good))
        finally:
            process.terminate()
            process.communicate(timeout=20)
    got, manifest = imported(log)
    assert (manifest.importer, manifest.stamp, manifest.resolution_ns) == ("haproxy", "start", 1_000_000)
    judged(got, good, CLOSE_NS)
    assert all(event.took_ns >= SLOW_S * 0.9e9 for event in got)
    assert {answer.status for answer in bad} == {400}, "what HAProxy refuses was no request"
    assert manifest.rejected == {"no method": len(bad) + 1}, "and the connection that asked for nothing"


def test_caddy_stamps_the_end_and_a_burst_is_not_shifted_by_it(tmp_path: Path, service: int) -> None:
    caddy, port = needed("caddy"), free_port()
    (tmp_path / "Caddyfile").write_text(
        "{\n admin off\n auto_https off\n}\n"
        f":{port} {{\n bind 127.0.0.1\n log {{\n  output file {tmp_path}/caddy.log\n }}\n"
        f" reverse_proxy 127.0.0.1:{service}\n}}\n"
    )
    command = [caddy, "run", "--config", str(tmp_path / "Caddyfile"), "--adapter", "caddyfile"]
    environment = {**os.environ, "XDG_DATA_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    try:
        until_up(port, process)
        sent = burst(port)
    finally:
        process.terminate()
        process.communicate(timeout=20)
    got, manifest = imported(tmp_path / "caddy.log")
    assert (manifest.importer, manifest.stamp, manifest.duration_subtracted) == ("caddy", "end", True)
    judged(got, sent, CLOSE_NS)
    assert all(event.took_ns >= SLOW_S * 0.9e9 for event in got)


def goreplay() -> str:
    """The path of GoReplay, as .ci/run has Go build it where it can. Where it is missing the test is skipped."""
    built = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "replay" / "tools"
    found = shutil.which("goreplay", path=f"{os.environ.get('PATH', '')}:{built}")
    if found is None:
        pytest.skip("goreplay is not installed (go install github.com/buger/goreplay/...@v1.3.2)")
    return found


def _said(said: Path, what: bytes, times: int, recorder: subprocess.Popen[bytes]) -> bool:
    """Wait until GoReplay has said something so often; skip where it ends instead: it may not capture here."""
    for _ in range(100):
        if said.read_bytes().count(what) >= times:
            return True
        if recorder.poll() is not None:
            pytest.skip(f"goreplay cannot capture here: {said.read_bytes()[-200:]!r}")
        time.sleep(0.05)
    return False


def _recorded(folder: Path, service: int) -> tuple[Path, list[Sent]]:
    """What GoReplay recorded of a burst, and the burst; a busy machine's capture that lost an answer is made again."""
    for attempt in range(5):
        file, said = folder / f"{attempt}.gor", folder / f"{attempt}.said"
        command = [goreplay(), "--input-raw", f"127.0.0.1:{service}", "--input-raw-track-response"]
        command += ["--output-file", str(file), "--output-file-append", "--output-stdout"]
        with said.open("wb") as out:
            recorder = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        try:
            assert _said(said, b"Interface", 1, recorder), said.read_bytes()
            sent = burst(service, [TARGETS[0], TARGETS[3]])
            whole = [_said(said, what, len(sent), recorder) for what in (b" HTTP/1.1\r\n", b"HTTP/1.1 ")]
        finally:
            recorder.terminate()
            recorder.wait(timeout=20)
        if all(whole):
            return file, sent
    raise AssertionError(f"goreplay lost something five times: {said.read_bytes()!r}")


def test_goreplay_records_requests_and_how_long_their_answers_took(tmp_path: Path, service: int) -> None:
    file, sent = _recorded(tmp_path, service)
    got, manifest = imported(file)
    assert (manifest.importer, manifest.stamp, manifest.resolution_ns) == ("gor", "start", 1)
    assert manifest.rejected == {}
    judged(got, sent, CLOSE_NS)
    assert all(SLOW_S * 0.9e9 <= event.took_ns < SLOW_S * 1.9e9 and event.bytes == 5 for event in got)
