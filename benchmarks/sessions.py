"""The cost of sessions: the capacity of a lane with captures, tokens, cookies and checks, and without them."""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np

from replay.trace import TraceWriter

from . import peers

CLIENTS = 12_000
ASKS = 8
ROUNDS = 3
CONNECTIONS = 64

NGINX = """\
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        default_type application/json;
        location = /plain/v1/users {{ return 201 '{{"id":"m1","email":"a"}}'; }}
        location = /plain/v1/auth/login {{ return 200 '{{"user":{{"id":"m1"}},"token":"$request_id"}}'; }}
        location /plain/ {{ return 200 '{{"ok":true}}'; }}
        location = /v1/users {{ return 201 '{{"id":"m1","email":"a"}}'; }}
        location = /v1/auth/login {{
            add_header Set-Cookie "sid=$request_id; Path=/; HttpOnly";
            return 200 '{{"user":{{"id":"m1"}},"token":"$request_id"}}';
        }}
        location / {{
            if ($http_authorization !~ "^Bearer [0-9a-f]{{32}}$") {{ return 401; }}
            if ($cookie_sid = "") {{ return 401; }}
            return 200 '{{"ok":true}}';
        }}
    }}
}}
"""

SCENARIO = """\
trace = "{trace}"
methods = "all"
rate = "1000000/s"
max_wait = "100s"
connections = {connections}
threads = 1
engine = "native"
[breaker]
on = false
[[variable]]
name = "mail"
generate = "email"
[[body]]
route = "POST *"
template = '{{"email": "{{mail}}", "password": "secret-{{client}}"}}'
"""
RULES = """\
[[capture]]
route = "POST /v1/auth/login"
name = "token"
json = "/token"
[[set]]
route = "*"
without = ["POST /v1/users", "POST /v1/auth/login"]
header = "Authorization"
value = "Bearer {token}"
[[check]]
route = "*"
status = "2xx"
"""
KINDS = {
    "plain": ("/plain", "", ""),
    "ordered": ("/plain", 'order = "client"\n', ""),
    "sessions": ("", "cookies = true\n", RULES),
}
"""By name: the base path of the target, and the texts before and after SCENARIO."""


def _trace(path: Path) -> Path:
    """Write a trace in which every client registers, logs in and sends ASKS requests, all clients at the same time."""
    with TraceWriter(path) as writer:
        asks = [("POST", b"/v1/users"), ("POST", b"/v1/auth/login"), *[("GET", b"/v1/training/plans")] * ASKS]
        requests = [writer.add_request(*ask) for ask in asks]
        rows = CLIENTS * len(requests)
        client = np.tile(np.arange(CLIENTS, dtype=np.uint32), len(requests))
        writer.add_events(
            np.arange(rows, dtype=np.int64), np.repeat(np.array(requests, np.uint32), CLIENTS), client
        )
    return path


def _round(folder: Path, trace: Path, port: int, kind: str) -> dict[str, float]:
    base, before, behind = KINDS[kind]
    scenario = folder / f"{kind}.toml"
    scenario.write_text(before + SCENARIO.format(connections=CONNECTIONS, trace=trace) + behind)
    document = peers.replay(folder, [str(scenario), "--target", f"http://127.0.0.1:{port}{base}"])
    accounts, detail = document["accounts"], document["accounts_detail"]
    if accounts["ok"] != accounts["planned"]:
        raise RuntimeError(f"{kind}: not all planned requests are ok: {accounts}")
    return {
        "per_s": accounts["ok"] / document["duration_s"],
        "per_cpu_s": accounts["ok"] / document["generator"]["cpu_s"],
        "refused": detail["status_class"]["4xx"],
    }


def measure(folder: Path) -> dict[str, dict[str, float]]:
    """Return rates and refusals by kind, medians over interleaved rounds."""
    trace = _trace(folder / "sessions.trace")
    rounds: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    with peers.nginx(template=NGINX) as port:
        for _ in range(ROUNDS):
            for kind, found in rounds.items():
                found.append(_round(folder, trace, port, kind))
    return {
        kind: {name: statistics.median(figures[name] for figures in found) for name in found[0]}
        for kind, found in rounds.items()
    }
