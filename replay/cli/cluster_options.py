"""The flags of runs over many machines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from replay.errors import UsageError

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--cluster",
        metavar="CLUSTER",
        help="Run over many machines: tls://HOST:PORT (a Dask scheduler), ssh:FILE (a list of hosts), k8s: (print a"
        " manifest), listen:HOST:PORT,agents=N (agents that connect by themselves), local:N (N processes here, for tests;"
        " more load from one machine needs lanes: -t).",
    ),
    click.option(
        "--on-lost",
        type=click.Choice(["stop", "continue"]),
        help="With --cluster: whether the run stops or continues when an agent is lost [default: stop].",
    ),
    click.option(
        "--cluster-ca",
        metavar="FILE",
        help="With --cluster: PEM file of the authorities to trust for the agents' certificates.",
    ),
    click.option("--cluster-cert", metavar="FILE", help="With --cluster: certificate of the coordinator."),
    click.option(
        "--cluster-key",
        metavar="FILE",
        help="With --cluster: private key of --cluster-cert [default: in the same file].",
    ),
)


REFUSED = {
    "follow": (
        "--cluster: replay follow runs on one machine, because the requests of a growing source are not known in advance,"
        " so that no schedule can be divided",
        "-t gives this machine more lanes; --keep X.trace keeps a trace for replay run --cluster",
    ),
    "ab": (
        "--cluster: replay ab runs on one machine, because it runs the builds in turns under the same conditions",
        "run each build with replay run --cluster, then replay compare the runs",
    ),
}
"""Verbs without `--cluster`: the reason, and what to do instead."""


def cluster_options(command: Command) -> Command:
    """Add `--cluster` and the flags that belong to it to a verb."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def check_unused(given: Mapping[str, Any]) -> None:
    """Raise UsageError if `--on-lost` or a `--cluster-*` flag is given without `--cluster`."""
    for name in ("on_lost", "cluster_ca", "cluster_cert", "cluster_key"):
        if given[name] is not None:
            raise UsageError(f"--{name.replace('_', '-')} needs --cluster", hint="give --cluster, too")
