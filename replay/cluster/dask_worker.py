"""The code that runs in a Dask worker: it starts an agent as a separate process, and returns at once.

It is called with `Client.run`, outside of Dask's scheduling, so Dask never moves, retries or recomputes it. The
agent's process has its own session, so that it survives the death of the worker or its nanny, and never waits for
the worker's event loop. The process holds a lock of the worker until it ends, so that a second coordinator is
refused. The lock and the agent's output are in the worker's own folder, which Dask removes with the worker.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


def start_agent(connect: str, order: str, token: bytes, server_name: str, dask_worker: Any) -> dict[str, Any]:
    """Start an agent that connects to the coordinator.

    Returns {"pid": ...}, or {"why": ..., "pid": ...} with the pid of the agent that occupies the worker (0 if it is
    just being started).
    """
    lock_path = Path(dask_worker.local_directory) / "replay-agent.lock"
    lock = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return {
                "why": f"the worker {dask_worker.address} already has an agent of another coordinator",
                "pid": _pid_in(lock),
            }
        proofs = [] if token else [*_certificates(dask_worker), "--server-name", server_name]
        return {"pid": _spawn(connect, order, token, proofs, lock, lock_path.with_suffix(".log"))}
    finally:
        os.close(lock)


def _spawn(connect: str, order: str, token: bytes, proofs: list[str], lock: int, log_path: Path) -> int:
    words = [sys.executable, "-m", "replay.cli", "agent", "--connect", connect, "--order", order, *proofs]
    if token:
        descriptor, token_file = tempfile.mkstemp(prefix="replay-agent-token-", dir=log_path.parent)
        with os.fdopen(descriptor, "wb") as file:
            file.write(token)
        words += ["--token-file", token_file, "--remove-token"]
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, pass_fds=[lock]
        )
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(process.pid).encode(), 0)
    return process.pid


def _pid_in(lock: int) -> int:
    text = os.pread(lock, 20, 0)
    return int(text) if text.isdigit() else 0


def _certificates(dask_worker: Any) -> list[str]:
    """Return the arguments that name the worker's own certificates, which are on its machine."""
    config = dask_worker.security.get_tls_config_for_role("worker")
    words = ["--ca", config.get("ca_file") or "", "--cert", config.get("cert") or ""]
    return words + (["--key", config["key"]] if config.get("key") else [])
