"""`replay agent`: sends one machine's share of a run that a coordinator plans (docs/cluster.md)."""

from __future__ import annotations

import os
from pathlib import Path

import click

from .streams import say


@click.command(name="agent", short_help="Send one machine's share of a run over many machines.")
@click.option("--connect", metavar="HOST:PORT", help="Coordinator to connect to.")
@click.option("--stdio", is_flag=True, help="Talk to the coordinator over standard input and output (ssh).")
@click.option(
    "--token-file", type=click.Path(path_type=Path), metavar="FILE",
    help="File with the token of the run, readable only by its owner; for coordinators on this machine.",
)  # fmt: skip
@click.option(
    "--ca", metavar="FILE", help="PEM file of the authorities to trust for the coordinator's certificate."
)
@click.option("--cert", metavar="FILE", help="Certificate of this agent, with its chain.")
@click.option("--key", metavar="FILE", help="Private key of --cert [default: in the same file].")
@click.option(
    "--allow", multiple=True, metavar="HOST",
    help="Host beyond loopback that may be a target, as in `replay run`; the coordinator cannot add any. Repeatable.",
)  # fmt: skip
@click.option(
    "--folder", type=click.Path(path_type=Path), metavar="DIR",
    help="Folder for traces and run folders [default: replay/agent in the user's cache].",
)  # fmt: skip
@click.option(
    "--runs", type=click.Path(path_type=Path), metavar="DIR",
    help="Folder in which the run folder is created [default: runs in --folder].",
)  # fmt: skip
@click.option(
    "--server-name", metavar="NAME", default="",
    help="Name in the coordinator's certificate [default: the host of --connect]; 'any' accepts every name.",
)  # fmt: skip
@click.option("--remove-token", is_flag=True, help="Remove the token file after reading it.")
@click.option(
    "--order", default="", metavar="TEXT", help="Id of the run that the coordinator started this agent for."
)
def command(
    connect: str | None, stdio: bool, token_file: Path | None, ca: str | None, cert: str | None, key: str | None,
    allow: tuple[str, ...], folder: Path | None, runs: Path | None, order: str, server_name: str,
    remove_token: bool,
) -> None:  # fmt: skip
    """Send one machine's share of a run that `replay run --cluster` plans.

    The coordinator usually starts its agents itself. The agent checks the target against its own --allow and
    REPLAY_ALLOW. It serves one run, then exits. If the coordinator dies, the agent stops cleanly and keeps its run
    folder.

    Exit codes: 0 served, 1 the coordinator was lost or the run failed, 2 wrong usage or refused, 130 interrupted before
    the run.
    """
    import trio

    from replay.cluster.agent import AgentOptions, check_runs, default_store
    from replay.cluster.agent_clock import SKEW_VARIABLE, AgentClock
    from replay.cluster.connecting import check_ways, serve
    from replay.cluster.handshake import read_token
    from replay.plan.safety import ALLOW_VARIABLE, allowed_hosts

    check_ways(connect, stdio, token_file, (ca, cert, key))
    check_runs(runs)
    own = (*allow, *filter(None, os.environ.pop(ALLOW_VARIABLE, "").split(",")))
    allowed_hosts(own)
    token = read_token(token_file) if token_file is not None else b""
    if token_file is not None and remove_token:
        token_file.unlink(missing_ok=True)
    options = AgentOptions(
        allow=own,
        store=folder or default_store(),
        runs=runs,
        token=token,
        order=order,
        clock=AgentClock.of(os.environ.get(SKEW_VARIABLE, "")),
        say=say,
    )
    code = trio.run(serve, options, connect, (ca or "", cert or "", key or ""), server_name)
    raise SystemExit(code)
