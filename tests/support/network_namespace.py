"""A network of its own, in which addresses beyond loopback exist and lead nowhere else.

Sockets are made inside it by a thread that enters it for a moment; commands run in it by `nsenter`.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.conftest import IN_CI

FAR, FAR_6 = "10.77.0.9", "fd77::9"
"""Addresses beyond loopback that this network has."""

CLONE_NEWNET = 0x40000000

Made = TypeVar("Made")
_SET_UP = (
    f"ip link set lo up && ip addr add {FAR}/32 dev lo && ip addr add {FAR_6}/128 dev lo nodad && echo ready"
)


class NetworkNamespace:
    """Use it in a `with` block. The test is skipped where no network can be made, but never in CI."""

    def __enter__(self) -> NetworkNamespace:
        missing = [tool for tool in ("unshare", "nsenter", "ip") if shutil.which(tool) is None]
        reason = f"{', '.join(missing)} not found"
        if not missing:
            self._holder = subprocess.Popen(
                ["unshare", "--net", "sh", "-c", f"{_SET_UP} && exec sleep 600"],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
            assert self._holder.stdout is not None and self._holder.stderr is not None
            if self._holder.stdout.readline() == "ready\n":
                return self
            reason = "no network namespace can be made: " + self._holder.stderr.read()[-300:]
        if IN_CI:
            pytest.fail(reason)
        pytest.skip(reason)

    def __exit__(self, *_: object) -> None:
        self._holder.kill()
        self._holder.wait()

    def inside(self, make: Callable[[], Made]) -> Made:
        """Call `make` in a thread that is inside it: sockets made there stay inside, whoever uses them."""
        made: list[Made] = []

        def work() -> None:
            with Path(f"/proc/{self._holder.pid}/ns/net").open("rb") as network:
                if ctypes.CDLL(None, use_errno=True).setns(network.fileno(), CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            made.append(make())

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        return made[0]

    def listen(self, host: str, port: int = 0) -> socket.socket:
        """A listening socket inside it."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return self.inside(lambda: socket.create_server((host, port), family=family))

    def start(self, *arguments: object, **more: Any) -> subprocess.Popen[bytes]:
        """Start `replay` inside it."""
        words = ["nsenter", "--target", str(self._holder.pid), "--net", sys.executable, "-m", "replay.cli"]
        return subprocess.Popen([*words, *map(str, arguments)], **more)

    def replay(self, *arguments: object, **more: Any) -> subprocess.CompletedProcess[str]:
        """Run `replay` inside it to its end."""
        return subprocess.run(
            ["nsenter", "--target", str(self._holder.pid), "--net", sys.executable, "-m", "replay.cli",
             *map(str, arguments)],
            capture_output=True, text=True, timeout=120, check=False, **more,
        )  # fmt: skip


class Trap:
    """A listener that writes down who connected and what came, and answers nothing."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.connections = 0
        self.data = b""
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def place(self) -> tuple[str, int]:
        host, port = self.listener.getsockname()[:2]
        return host, port

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            connection.settimeout(2)
            threading.Thread(target=self._read, args=(connection,), daemon=True).start()

    def _read(self, connection: socket.socket) -> None:
        try:
            while data := connection.recv(65_536):
                self.data += data
        except OSError:
            pass
        connection.close()

    def wait(self, timeout_s: float = 5.0) -> bool:
        """Whether something connected, within so long."""
        deadline = time.monotonic() + timeout_s
        while not self.connections and time.monotonic() < deadline:
            time.sleep(0.02)
        return bool(self.connections)
