"""`replay serve`: shows the runs of a folder in a browser."""

from __future__ import annotations

import contextlib
from pathlib import Path

import click

from replay.errors import InputError

from .places import RUNS
from .streams import tell

HOST = "127.0.0.1"


@click.command(name="serve", short_help="Show the runs of a folder in a browser.")
@click.argument("folder", type=click.Path(path_type=Path), default=RUNS, metavar="[FOLDER]")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=8090,
    show_default=True,
    metavar="N",
    help="Port on 127.0.0.1; 0 takes any free port.",
)
def command(folder: Path, port: int) -> None:
    """Show the runs in FOLDER [default: runs] in a browser: a list, a page for each run, and comparisons of two groups.

    Only this machine can connect. Pages are generated from the measurements: no file in FOLDER is served as it is, and
    symbolic links are not followed. Ctrl-C stops it.
    """
    from replay.web.listen import bound, check_installed

    check_installed("serve")
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder", hint="give a folder that contains runs")
    made = bound("--port", HOST, port)

    import trio

    from replay.report.console import Console
    from replay.run_pages.app import serve_pages

    from .compare import KERNELS
    from .progress import warm_kernels

    warm_kernels(Console(stderr=True, highlight=False), KERNELS)
    tell(f"the runs in {folder}: http://{HOST}:{made.getsockname()[1]}/")
    with contextlib.suppress(KeyboardInterrupt), contextlib.closing(made):
        trio.run(serve_pages, folder.resolve(), made, HOST)
