"""The transports that `--cluster` can select."""

from __future__ import annotations

from pathlib import Path

from replay.errors import UsageError

from .dask_cluster import make_dask
from .listening import parse_listening
from .ssh import Ssh
from .transports import LOCAL_MAX, Identity, Local, Transport


def make_transport(text: str, identity: Identity) -> Transport:
    """Return the transport that the value of `--cluster` selects; raise UsageError for any other value.

    `k8s:` is not a transport. A file of hosts that cannot be read raises InputError, a Dask scheduler that cannot be
    reached TargetError.
    """
    kind, _, rest = text.partition(":")
    if kind == "local":
        if not rest.isdigit() or not 1 <= int(rest) <= LOCAL_MAX:
            raise UsageError(
                f"--cluster {text}: give a number of agents from 1 to {LOCAL_MAX}",
                hint="local:2 is for tests; for more load from this machine, use more lanes (-t)",
            )
        return Local(int(rest))
    if kind == "listen":
        return parse_listening(rest, identity)
    if kind == "ssh":
        return Ssh(Path(rest))
    if kind in ("tls", "tcp"):
        return make_dask(text, identity)
    raise UsageError(
        f"--cluster {text!r} is not a cluster",
        hint="give local:N, tls://HOST:PORT, tcp://127.0.0.1:PORT, ssh:FILE, k8s: or listen:HOST:PORT,agents=N",
    )
