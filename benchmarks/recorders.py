"""Recorders, and the nginx around them, as processes that benchmarks measure or kill."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from .peers import free_port

NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error;
events {{ worker_connections 1000; }}
http {{
  access_log off; keepalive_requests 100000000; client_body_buffer_size 64k;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream service {{ server 127.0.0.1:{service}; keepalive 64; keepalive_requests 100000000; }}
  upstream receiver {{ server 127.0.0.1:{receiver}; keepalive 64; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port}; location / {{ {rules} }}
    location = /mirrored {{
      internal; log_subrequest on; access_log {folder}/mirrored; proxy_http_version 1.1;
      proxy_set_header Connection ""; proxy_pass http://receiver$request_uri;
    }}
  }}
}}
"""
TO_SERVICE = 'proxy_pass http://service; proxy_http_version 1.1; proxy_set_header Connection "";'


@contextlib.contextmanager
def running(command: list[str], port: int) -> Iterator[int]:
    """Start a process, wait for up to 60 s until it listens on a port, and yield its pid; exit if it ends before."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        ends_at = time.monotonic() + 60
        while time.monotonic() < ends_at:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if process.poll() is not None:
                raise SystemExit(f"{command[0]} ended with exit code {process.returncode}")
            time.sleep(0.05)
        yield process.pid
    finally:
        process.terminate()
        process.wait(120)


@contextlib.contextmanager
def nginx(folder: Path, rules: str, service: int = 1, receiver: int = 1) -> Iterator[tuple[int, int]]:
    """Run nginx with one location, and yield its port and pid."""
    port = free_port()
    place = folder / f"nginx-{port}"
    place.mkdir()
    (place / "conf").write_text(
        NGINX.format(folder=place, port=port, rules=rules, service=service, receiver=receiver)
    )
    with running(["nginx", "-c", str(place / "conf")], port) as pid:
        yield port, pid


def descendants(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        # A thread may end before its file is read.
        with contextlib.suppress(OSError):
            for child in (task / "children").read_text().split():
                found += descendants(int(child))
    return found


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process and all its descendants."""
    used = 0
    for each in descendants(pid):
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        used += int(fields[11]) + int(fields[12])
    return used / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def record(folder: Path, port: int, *options: str) -> Iterator[int]:
    """Run `replay record http` with a journal of its own, and yield its pid."""
    out = folder / f"{port}.trace"
    command = [
        sys.executable,
        "-m",
        "replay.cli",
        "record",
        "http",
        "--listen",
        f"127.0.0.1:{port}",
        "-o",
        str(out),
    ]
    with running([*command, *options], port) as pid:
        while not Path(f"{out}.journal").exists():
            time.sleep(0.02)
        yield pid


def settled(journal: Path, requests: int) -> bool:
    """Return whether at least `requests` requests are recorded or counted as lost.

    There may be more, because wrk does not count the requests that it aborts at its end.
    """
    from replay.trace.journal import read_notes

    notes = read_notes(journal)
    return notes.records + sum(notes.lost.values()) >= requests


def wait_for(happened: Callable[[], bool]) -> None:
    """Wait for up to 60 s until something has happened, and half a second more."""
    ends_at = time.monotonic() + 60
    while not happened() and time.monotonic() < ends_at:
        time.sleep(0.1)
    time.sleep(0.5)
