"""The proxy and the receiver between programs of others: curl, nginx, uvicorn, Node and a browser; TLS on both sides."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.certificates import Authority
from tests.support.ports import free_port
from tests.support.recording import Recorder, recording

pytestmark = pytest.mark.whole

NODE = """
const http = require('http'), crypto = require('crypto');
http.createServer((request, response) => {
  const hash = crypto.createHash('sha256'); let raw = request.method + ' ' + request.url;
  request.on('data', data => hash.update(data));
  request.on('end', () => {
    const body = hash.digest('hex');
    console.log(JSON.stringify({asked: raw, headers: request.rawHeaders, body}));
    response.setHeader('X-Body', body);
    if (request.url.startsWith('/page')) {
      response.setHeader('Content-Type', 'text/html');
      return response.end(PAGE);
    }
    response.write('part one,'); response.end('part two');
  });
}).listen(PORT, '127.0.0.1', () => console.log('ready'));
"""
PAGE = """<form id=f method=post action=/form enctype=multipart/form-data><input name=a value="x y"></form><script>
const file = new File([new Uint8Array(70000).fill(7)], 'up.bin');
fetch('/fetch', {method: 'PUT', body: JSON.stringify({a: 1})})
  .then(() => fetch('/upload', {method: 'POST', body: file}))
  .then(() => document.getElementById('f').submit());
</script>"""

ASGI = """
import hashlib
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    digest, more = hashlib.sha256(), True
    while more:
        message = await receive()
        digest.update(message.get("body", b""))
        more = message.get("more_body", False)
    asked = scope["method"] + " " + scope["path"]
    print(asked, digest.hexdigest(), len(scope["headers"]), flush=True)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-body", digest.hexdigest().encode())]})
    await send({"type": "http.response.body", "body": b"a" * 100_000, "more_body": True})
    await send({"type": "http.response.body", "body": b"b" * 100_000})
"""

NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error;
events {{ worker_connections 500; }}
http {{
  access_log {folder}/access;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s; client_max_body_size 10m;
  server {{
    listen 127.0.0.1:{port};
    location / {{ {rules} }}
    location = /mirrored {{ internal; proxy_pass http://127.0.0.1:{mirror}$request_uri;
      proxy_set_header Host $host; proxy_set_header X-Forwarded-For $remote_addr; }}
  }}
}}
"""


def needs(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@contextlib.contextmanager
def running(command: list[str], port: int, log: Path) -> Iterator[None]:
    """A server as a process, once it listens."""
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    try:
        ends_at = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None and time.monotonic() < ends_at, log.read_text()
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(20)


def to_port(port: int) -> tuple[str, str]:
    return "--upstream", f"http://127.0.0.1:{port}"


def curl(*words: str) -> bytes:
    return subprocess.run([needs("curl"), "-sS", *words], capture_output=True, check=True, timeout=60).stdout


def drive(url: str, folder: Path) -> list[bytes]:
    """The same requests of curl, and what they got."""
    upload = folder / "upload.bin"
    upload.write_bytes(bytes(range(256)) * 2_000)
    return [
        curl(url + "/plain?a=%20b&c=d"),
        curl(url + "/post", "-d", "a=1&b=2"),
        curl(url + "/upload", "--data-binary", f"@{upload}"),
        curl(url + "/upload", "--data-binary", f"@{upload}", "-H", "Expect: 100-continue"),
        curl(url + "/chunked", "-T", str(upload), "-H", "Transfer-Encoding: chunked"),
        curl(url + "/multi", "-F", f"file=@{upload}", "-F", "x=y"),
        curl(url + "/kept", url + "/alive"),
        curl(url + "/head", "-I").split(b"\r\n", 1)[0],
    ]


def node(folder: Path, port: int) -> list[str]:
    script = folder / "server.js"
    script.write_text(NODE.replace("PORT", str(port)).replace("PAGE", json.dumps(PAGE)))
    return [needs("node"), str(script)]


def asked_of(log: Path) -> list[dict[str, object]]:
    found = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    for each in found:
        # curl chooses a new boundary for each form, and ports differ.
        each["headers"] = [
            value for value in each["headers"] if "127.0.0.1" not in value and "boundary" not in value
        ]
        if "/multi" in each["asked"]:
            del each["body"]
    return found


def test_node_sees_and_sends_the_same_bytes(tmp_path):
    port, log = free_port(), tmp_path / "log"
    with running(node(tmp_path, port), port, log):
        direct = drive(f"http://127.0.0.1:{port}", tmp_path)
        first = asked_of(log)
        with recording(tmp_path / "day.trace", *to_port(port)) as recorder:
            assert drive(recorder.url, tmp_path) == direct
            assert recorder.stop() == 0
    both = asked_of(log)
    assert both[len(first) :] == first
    assert recorder.trace().rows == len(first)


def test_uvicorn_sees_and_sends_the_same_bytes(tmp_path):
    pytest.importorskip("uvicorn")
    port, log = free_port(), tmp_path / "log"
    (tmp_path / "app.py").write_text(ASGI)
    command = [sys.executable, "-m", "uvicorn", "app:app", "--app-dir", str(tmp_path), "--port", str(port)]
    command += ["--log-level", "warning"]
    with running(command, port, log):
        direct = drive(f"http://127.0.0.1:{port}", tmp_path)
        first = log.read_text().splitlines()
        with recording(tmp_path / "day.trace", *to_port(port)) as recorder:
            assert drive(recorder.url, tmp_path) == direct
            assert recorder.stop() == 0
    seen = [line.split() for line in log.read_text().splitlines() if "/multi" not in line]
    assert seen[len(seen) // 2 :] == seen[: len(seen) // 2]
    assert recorder.trace().rows == len(first)


@contextlib.contextmanager
def nginx(folder: Path, rules: str, mirror: int = 1) -> Iterator[int]:
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, port=port, rules=rules, mirror=mirror))
    with running([needs("nginx"), "-c", str(config)], port, folder / "nginx.log"):
        yield port


def test_the_proxy_stands_before_nginx(tmp_path):
    (tmp_path / "file.bin").write_bytes(bytes(range(256)) * 8_000)
    out = tmp_path / "day.trace"
    with nginx(tmp_path, f"root {tmp_path};") as port, recording(out, *to_port(port)) as recorder:
        whole = curl(recorder.url + "/file.bin")
        part = curl(recorder.url + "/file.bin", "-r", "100-299")
        missing = curl(recorder.url + "/missing", "-o", "/dev/null", "-w", "%{http_code}")
        assert recorder.stop() == 0
    assert hashlib.sha256(whole).digest() == hashlib.sha256(bytes(range(256)) * 8_000).digest()
    assert part == (bytes(range(256)) * 2)[100:300]
    assert missing == b"404"
    (batch,) = recorder.trace().batches()
    assert batch.status.tolist() == [200, 206, 404]
    assert batch.bytes.tolist()[:2] == [2_048_000, 200]


def test_nginx_mirrors_every_request(tmp_path):
    with recording(tmp_path / "day.trace", "--mirror") as recorder:
        (tmp_path / "file").write_text("fine")
        rules = f"mirror /mirrored; root {tmp_path}; error_page 405 =200 $uri;"
        with nginx(tmp_path, rules, recorder.port) as port:
            for number in range(30):
                assert curl(f"http://127.0.0.1:{port}/file?n={number}", "-H", "Host: shop.example") == b"fine"
            time.sleep(0.5)
            assert recorder.stop() == 0
        logged = (tmp_path / "access").read_text().count("GET /file")
    trace = recorder.trace()
    assert trace.rows == logged == 30
    assert trace.manifest.hosts == ["shop.example"]


def test_tls_on_both_sides(tmp_path):
    authority = Authority.create(tmp_path)
    proxy = authority.issue("127.0.0.1", "localhost")
    port = free_port()
    (tmp_path / "app.py").write_text(ASGI)
    command = [sys.executable, "-m", "uvicorn", "app:app", "--app-dir", str(tmp_path), "--port", str(port)]
    command += ["--ssl-certfile", str(proxy.cert), "--ssl-keyfile", str(proxy.key), "--log-level", "warning"]
    tls = ("--cert", str(proxy.cert), "--key", str(proxy.key))
    with running(command, port, tmp_path / "log"):
        url = f"https://localhost:{port}"
        with recording(
            tmp_path / "day.trace", "--upstream", url, "--upstream-ca", str(authority.path), *tls
        ) as recorder:
            at = f"https://localhost:{recorder.port}"
            back = curl("--cacert", str(authority.path), at + "/a", at + "/b", "-d", "x=1")
            assert back == (b"a" * 100_000 + b"b" * 100_000) * 2
            assert recorder.stop() == 0
        assert recorder.trace().rows == 2
        with recording(tmp_path / "other.trace", "--upstream", url) as recorder:
            code = curl(recorder.url + "/a", "-o", "/dev/null", "-w", "%{http_code}")
            assert code == b"502"
            recorder.stop()
    assert "cannot be reached" in recorder.printed


def test_a_browser_sends_a_form_an_upload_and_a_fetch(tmp_path):
    browser = needs("chromium")
    port, log = free_port(), tmp_path / "log"
    server = running(node(tmp_path, port), port, log)
    with server, recording(tmp_path / "day.trace", *to_port(port)) as recorder:
        _browse(browser, recorder, tmp_path, log)
        assert recorder.stop() == 0
    asked = [each["asked"] for each in asked_of(log)]
    assert {"GET /page", "PUT /fetch", "POST /upload", "POST /form"} <= set(asked)
    bodies = {each["asked"]: each["body"] for each in asked_of(log)}
    assert bodies["POST /upload"] == hashlib.sha256(bytes([7]) * 70_000).hexdigest()
    assert recorder.trace().rows == len(asked)


def _browse(browser: str, recorder: Recorder, folder: Path, log: Path) -> None:
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/profile"]
    process = subprocess.Popen(
        [*command, "--remote-debugging-port=0", recorder.url + "/page"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        ends_at = time.monotonic() + 60
        while "POST /form" not in log.read_text() and time.monotonic() < ends_at:
            time.sleep(0.1)
        time.sleep(0.5)
    finally:
        process.terminate()
        process.wait(20)


def test_curl_finds_a_refusal(tmp_path):
    port = free_port()
    server = running(node(tmp_path, port), port, tmp_path / "log")
    with server, recording(tmp_path / "day.trace", *to_port(port)) as recorder:
        request = urllib.request.Request(
            recorder.url + "/a", data=b"abc", headers={"Transfer-Encoding": "chunked"}
        )
        request.add_header("Content-Length", "3")
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=10)
        assert refused.value.code == 400
        recorder.stop()
    assert "both Content-Length and Transfer-Encoding 1" in recorder.printed
