"""Agents beside the workers of a Dask cluster: `tls://HOST:PORT` of its scheduler, or `tcp://` on loopback.

Dask finds the machines and starts a process on each (`dask_worker`). After that, agents and coordinator
communicate directly, and the run does not need the scheduler. A scheduler without TLS executes code from anyone,
so it is accepted only on loopback.
"""

from __future__ import annotations

import logging
import socket
from functools import partial
from pathlib import Path
from typing import Any

import trio

from replay.errors import TargetError, UsageError
from replay.settings.listening import is_loopback_host, parse_place, place_text

from .dask_worker import start_agent
from .listening import Listening
from .transports import Identity, Transport

TIMEOUT_S = 20.0


def make_dask(url: str, identity: Identity) -> Transport:
    """Connect to the cluster of a Dask scheduler.

    Raises UsageError if the cluster may not be used, or Dask or certificates are missing, TargetError if it cannot be
    reached or has no workers.
    """
    scheme, _, place = url.partition("://")
    host, port = parse_place(place, "connect to")
    if scheme == "tcp" and not is_loopback_host(host):
        raise UsageError(
            f"--cluster {url}: a scheduler without TLS executes code from anyone",
            hint=f"secure the cluster, and give tls://{place_text(host, port)}",
        )
    try:
        import distributed  # noqa: F401
    except ImportError:
        raise UsageError(f"--cluster {url} needs Dask", hint="pip install 'replay-engine[cluster]'") from None
    if scheme == "tls" and not identity.is_given:
        identity = _of_dask()
    return Dask(url, host, port, identity if scheme == "tls" else Identity())


def _of_dask() -> Identity:
    """Return the client's certificates in Dask's configuration; raise UsageError if it has none."""
    from distributed.security import Security

    config = Security().get_tls_config_for_role("client")
    found = Identity(config.get("ca_file") or "", config.get("cert") or "", config.get("key") or "")
    if not found.is_given:
        raise UsageError(
            "tls:// needs certificates", hint="give --cluster-ca, --cluster-cert and --cluster-key"
        )
    return found


class Dask(Listening):
    """A transport with one agent beside each worker."""

    def __init__(self, url: str, host: str, port: int, identity: Identity) -> None:
        self._url = url
        self._client = _connected(url, identity)
        self._workers = sorted(self._client.scheduler_info(n_workers=-1)["workers"])
        if not self._workers:
            self._client.close(timeout=2)
            raise TargetError(
                f"the scheduler {url} has no workers to start agents on",
                hint=f"start some: dask worker {url}",
            )
        super().__init__(_own_address(host, port), 0, len(self._workers), identity)

    @property
    def how_to_join(self) -> str:
        """Empty, because the coordinator itself starts these agents (see `Transport`)."""
        return ""

    async def begin(self, token_file: Path, folder: Path) -> None:
        """Start an agent beside each worker, then close Dask's client. Both are done in threads, because they block."""
        try:
            await trio.to_thread.run_sync(self._start_all, abandon_on_cancel=True)
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(5):
                await trio.to_thread.run_sync(partial(self._client.close, timeout=2), abandon_on_cancel=True)

    def _start_all(self) -> None:
        connect = place_text(self.host, self.port)
        name = "any" if self._identity.is_given else ""
        for number, worker in enumerate(self._workers):
            try:
                answers: dict[str, Any] = self._client.run(
                    start_agent, connect, str(number), self.token, name, workers=[worker], on_error="return"
                )
            except Exception as error:
                raise self._unreached(worker, error) from None
            answer = answers.get(worker)
            if not isinstance(answer, dict):
                raise TargetError(
                    f"the worker {worker} cannot start an agent: {answer or 'it did not answer'}",
                    hint="check that it still runs, and that it has the same version of replay",
                )
            if why := answer.get("why"):
                pid = f" (pid {answer['pid']})" if answer["pid"] else ""
                raise UsageError(f"{why}{pid}", hint="wait until its run has ended")

    def _unreached(self, worker: str, error: Exception) -> TargetError:
        """Return the error for a worker at which no agent was started.

        Either the scheduler or only the worker cannot be reached.
        """
        if self._client.status != "running":
            return TargetError(
                f"the Dask scheduler {self._url} was lost before all agents were started",
                hint="check its output, and start it again; nothing was sent",
            )
        return TargetError(
            f"the worker {worker} of {self._url} was not reached: {error}",
            hint="check its output, and whether it still runs; nothing was sent",
        )


def _quieten() -> None:
    """Keep Dask's own log lines off the terminal, because the error that is raised contains their relevant part."""
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] == "distributed":
            logging.getLogger(name).setLevel(logging.CRITICAL)


def _connected(url: str, identity: Identity) -> Any:
    from distributed import Client
    from distributed.security import Security

    _quieten()
    security = None
    if identity.is_given:
        security = Security(
            tls_ca_file=identity.ca,
            tls_client_cert=identity.cert,
            tls_client_key=identity.key or identity.cert,
            require_encryption=True,
        )
    try:
        return Client(url, security=security, timeout=TIMEOUT_S, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise TargetError(
            f"no Dask scheduler at {url}: {error}",
            hint="start one there (dask scheduler), or correct --cluster",
        ) from None


def _own_address(host: str, port: int) -> str:
    """Return the address of this machine on the network of the scheduler.

    Connecting a UDP socket selects the local address, and sends nothing.
    """
    if is_loopback_host(host):
        return "127.0.0.1"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as found:
        found.connect((host, port))
        return str(found.getsockname()[0])
