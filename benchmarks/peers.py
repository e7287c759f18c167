"""The programs that benchmarks start: other generators, servers, and replay itself, usually each pinned to a core."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from replay.staging.sink import CONNECTIONS_DEFAULT, SinkMemory

GENERATOR_CORE, SERVER_CORE = 0, 1
VEGETA = "github.com/tsenart/vegeta/v12@v12.12.0"

NGINX = """\
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
daemon off;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    keepalive_requests {requests};
    server {{
        listen 127.0.0.1:{port} {secured} backlog=4096;
        {settings}
        location / {{ return 200 "hello world\\n"; }}
    }}
}}
"""


NGINX_TLS = """\
ssl_certificate {cert};
        ssl_certificate_key {key};
        ssl_protocols TLSv1.3;
"""


@dataclass(frozen=True)
class Identity:
    """The PEM files of a server's certificate and key."""

    cert: Path
    key: Path


@dataclass(frozen=True)
class Finished:
    """The standard output and the CPU seconds of a program that has ended."""

    out: str
    cpu_s: float


def pinned(core: int | None, command: list[str]) -> list[str]:
    """Return the command pinned to a core, or unchanged if `core` is None."""
    return command if core is None else ["taskset", "-c", str(core), *command]


def finish(
    command: list[str], *, core: int = GENERATOR_CORE, timeout_s: float = 600, **more: object
) -> Finished:
    """Run a program for at most `timeout_s`; raise RuntimeError with the end of its output if it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(  # type: ignore[call-overload]
        pinned(core, command), capture_output=True, text=True, timeout=timeout_s, check=False, **more
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        raise RuntimeError(
            f"{' '.join(command)} ended with exit code {done.returncode}: {done.stderr[-2000:]}{done.stdout[-500:]}"
        )
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Finished(done.stdout, cpu_s)


def free_port() -> int:
    """Return a port of loopback on which nothing listens."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(command: list[str], core: int | None) -> Iterator[subprocess.Popen[str]]:
    """Run a program until the end of the context."""
    process = subprocess.Popen(
        pinned(core, command), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(10)


@contextlib.contextmanager
def nginx(
    identity: Identity | None = None, *, keeps_alive: bool = True, template: str = NGINX
) -> Iterator[int]:
    """Run nginx with one worker that answers from memory, and yield its port; it uses TLS 1.3 if it has an `identity`."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "nginx.conf"
        tls = NGINX_TLS.format(cert=identity.cert, key=identity.key) if identity else ""
        config.write_text(
            template.format(
                folder=folder,
                port=port,
                secured="ssl" if identity else "",
                settings=tls,
                requests=1_000_000_000 if keeps_alive else 1,
            )
        )
        with running(["nginx", "-c", str(config)], SERVER_CORE):
            _await_port(port)
            yield port


@contextlib.contextmanager
def sink(
    capacity: int = 1 << 20,
    *,
    spin: bool = True,
    identity: Identity | None = None,
    connections: int = CONNECTIONS_DEFAULT,
) -> Iterator[tuple[int, SinkMemory]]:
    """Run the sink in a process of its own; yield its port, and the memory with its stamps."""
    with sink_process(capacity, spin=spin, identity=identity, connections=connections, core=SERVER_CORE) as (
        port,
        memory,
        _,
    ):
        yield port, memory


@contextlib.contextmanager
def sink_process(
    capacity: int,
    *,
    spin: bool,
    identity: Identity | None,
    core: int | None,
    connections: int = CONNECTIONS_DEFAULT,
) -> Iterator[tuple[int, SinkMemory, subprocess.Popen[str]]]:
    """Run the sink as `sink` does, on a core of choice (None: any), and yield its process as well."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        stamps = Path(folder) / "stamps"
        port = free_port()
        command = [sys.executable, "-m", "replay.staging.sink", "--port", str(port)]
        command += ["--stamps", str(stamps), "--capacity", str(capacity), "--connections", str(connections)]
        command += ["--spin"] if spin else []
        command += ["--cert", str(identity.cert), "--key", str(identity.key)] if identity else []
        with running(command, core) as process:
            _await_port(port)
            yield port, SinkMemory.open(stamps), process


def _await_port(port: int) -> None:
    import socket

    for _ in range(300):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
            return
        time.sleep(0.1)
    raise RuntimeError(f"nothing listens on port {port}")


def replay(folder: Path, arguments: list[str]) -> dict:
    """Run `replay run`, and return its run.json, also of an INVALID run; raise RuntimeError if there is none."""
    run = folder / f"run-{time.monotonic_ns()}"
    command = [sys.executable, "-m", "replay.cli", "run", *arguments, "-o", str(run), "--plain"]
    with tempfile.TemporaryFile("w+") as said:
        done = subprocess.run(
            pinned(GENERATOR_CORE, command), stdout=said, stderr=subprocess.STDOUT, check=False
        )
        if not (run / "run.json").exists():
            said.seek(0)
            raise RuntimeError(f"replay left no run.json, exit code {done.returncode}: {said.read()[-2000:]}")
    document: dict = json.loads((run / "run.json").read_text())
    shutil.rmtree(run)
    return document


def peak_rss_mib(document: dict) -> float:
    """Return the peak memory of a run's process, by its run.json."""
    return float(document["generator"]["peak_rss_bytes"] / 2**20)


def vegeta() -> str | None:
    """Return the path of vegeta, which Go builds into the user's cache if it is not installed; None if that fails."""
    if found := shutil.which("vegeta"):
        return found
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "replay" / "bench"
    program = cache / "vegeta"
    if not program.exists() and shutil.which("go"):
        subprocess.run(
            ["go", "install", VEGETA],
            env={**os.environ, "GOBIN": str(cache)},
            check=False,
            capture_output=True,
        )
    return str(program) if program.exists() else None


def machine() -> str:
    """Return the machine's CPU, Linux and Python in one line."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        "unknown CPU",
    )
    return f"{os.cpu_count()} cores of {model}, Linux {os.uname().release}, Python {sys.version.split()[0]}"
