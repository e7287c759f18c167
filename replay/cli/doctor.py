"""`replay doctor`: shows what this machine can do and how to improve it, or what looking up a name costs."""

from __future__ import annotations

import click

from replay.errors import UsageError


@click.command(name="doctor", short_help="Check this machine, or show what looking up a name costs.")
@click.argument("name", required=False)
@click.option("--resolver", metavar="ADDRESS[:PORT]", default="", help="Name server to query for NAME.")
@click.option(
    "--warm",
    "warm_wanted",
    is_flag=True,
    help="Only compile the kernels that are not compiled yet, for example in a container image.",
)
@click.option(
    "--kernels-key",
    "key",
    is_flag=True,
    help="Only print the cache key of the compiled kernels (docs/ci.md).",
)
def command(name: str | None, resolver: str, warm_wanted: bool, key: bool) -> None:
    """Check the system, cores, clock, timer, files, libc, TLS, kernels, disk and capacity, and advise what to improve.

    With NAME: look it up according to /etc/resolv.conf, and show each query and what a trailing dot would save.
    LOCALDOMAIN and RES_OPTIONS override that file: RES_OPTIONS=ndots:5 LOCALDOMAIN='svc.cluster.local cluster.local'.
    """
    from replay.report.page import report_console

    from . import findings as look

    if name is not None and (warm_wanted or key):
        raise UsageError(
            f"{name}: --warm and --kernels-key take no name",
            hint="leave out NAME, or leave out --warm and --kernels-key",
        )
    if resolver and name is None:
        raise UsageError("--resolver needs a NAME to look up", hint="replay doctor NAME --resolver ADDRESS")
    if warm_wanted:
        look.warm(report_console())
    if key:
        print(look.kernels_key())
    elif warm_wanted:
        return
    elif name is None:
        look.print_findings(look.findings(), report_console())
    else:
        look.look_at_name(look.host_of(name), resolver, report_console())
