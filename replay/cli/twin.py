"""`replay twin`: runs services with limits on loopback, and changes their settings at run time."""

from __future__ import annotations

import time
from pathlib import Path

import click

from replay.errors import EngineError, UsageError

LOOK_EVERY_S = 0.2


def _settings(texts: tuple[str, ...]) -> dict[str, str]:
    """Parse settings that are given as NAME=VALUE. UsageError for one without a name or without `=`."""
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise UsageError(
                f"{text!r} is not NAME=VALUE", hint="write a setting and its value, as in auth.workers=8"
            )
        found[name.strip()] = value.strip()
    return found


@click.group(name="twin", short_help="Run services with limits on loopback, and change them at run time.")
def command() -> None:
    """Run a twin: services with dependencies and limits, declared in TOML (docs/twin.md)."""


@command.command(name="run")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="Override a setting of the file; repeatable.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), metavar="N", help="Seed for all random draws [default: the file's]."
)
@click.option(
    "--log",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="File for the log, one JSON object per line.",
)
def run(file: Path, settings: tuple[str, ...], seed: int | None, log: Path | None) -> None:
    """Run the twin of FILE until Ctrl-C.

    Exit codes: 1 a process of the twin died, 2 wrong usage, 130 interrupted.
    """
    from replay.staging.twin import read_twin, running

    from .streams import tell

    with running(read_twin(file), set=_settings(settings), seed=seed, log=log) as twin:
        tell(f"{twin.twin.name} serves at {twin.front}; figures: {twin.figures_url}")
        tell("replay twin set NAME=VALUE changes it; Ctrl-C ends it")
        while not (why := twin.died()):
            time.sleep(LOOK_EVERY_S)
        raise EngineError(f"the twin stopped: {why}")


@command.command(name="set")
@click.argument("settings", nargs=-1, metavar="NAME=VALUE...")
@click.option(
    "--control", default="", metavar="ADDRESS", help="HOST:PORT of the twin's control, if several twins run."
)
def set_(settings: tuple[str, ...], control: str) -> None:
    """Change settings of a running twin, either all of the given ones or none. Without arguments, list its settings.

    Exit codes: 1 a process of the twin did not apply them, 2 wrong usage.
    """
    from replay.staging.twin import state
    from replay.staging.twin.running import ask, change_settings

    from .streams import tell

    found = state.choose(control)
    if not settings:
        for name, value in ask(found.control, "/settings").items():
            tell(f"{name}={value}")
        return
    for change in change_settings(found.control, found.token, _settings(settings)):
        tell(f"{change['name']} = {change['new']} (was {change['old']})")
