"""Options for reading a recording, shared by `replay import` and `replay follow`; `--routes` also by `inspect`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from replay import formats

from .help import ListingOption
from .scrub_options import scrub_options, scrubbing

if TYPE_CHECKING:
    from replay.trace.importing.registry import Options

Command = TypeVar("Command", bound=Callable[..., Any])


routes_option = click.option(
    "--routes",
    "rules_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="TOML file with your own routes and business actions (docs/importing.md).",
)


def format_names() -> list[str]:
    """Return the names that `--format` accepts."""
    return formats.with_brought("replay.importers", formats.READ)


_FORMAT = (
    click.option(
        "--format",
        "format_name",
        metavar="NAME",
        cls=ListingOption,
        names=format_names,
        help="Read the recording in this format: NAMES.",
    ),
    click.option(
        "--columns",
        default="",
        metavar="ROLE=COL,...",
        help="Columns of a table by role: at=ts,method=GET,path=url.",
    ),
    click.option(
        "--log-format",
        default="",
        metavar="STRING",
        help="nginx's log_format or Apache's LogFormat, as in its configuration.",
    ),
    click.option(
        "--tz",
        "time_zone",
        default="",
        metavar="ZONE",
        help="Time zone of timestamps that have none [default: UTC].",
    ),
    routes_option,
)
_CONTENTS = (
    scrub_options,
    click.option(
        "--keep-health-checks", is_flag=True, help="Keep the requests of load balancers' health checks."
    ),
)


def format_options(command: Command) -> Command:
    """Add the options that describe the recording: `--format`, `--columns`, `--log-format`, `--tz` and `--routes`."""
    for option in reversed(_FORMAT):
        command = option(command)
    return command


def contents_options(command: Command) -> Command:
    """Add the options for secrets and health checks in a recording."""
    for option in reversed(_CONTENTS):
        command = option(command)
    return command


def options_of(given: dict[str, Any]) -> Options:
    """Return the importer's options, from the parameters that both decorators add.

    UsageError or InputError if a value is invalid.
    """
    from replay import units
    from replay.trace import RouteRules, read_route_rules
    from replay.trace.importing import Options
    from replay.trace.importing.readers.columns import parse_columns

    if given["time_zone"]:
        units.parse_zone(given["time_zone"])
    secrets = scrubbing(given["scrub"], given["scrub_key_file"], given["keep_secrets"])
    return Options(
        keep_secrets=secrets.keep_secrets,
        scrub=secrets.rules,
        scrub_key=secrets.key,
        keep_health_checks=given["keep_health_checks"],
        columns=parse_columns(given["columns"]),
        log_format=given["log_format"],
        time_zone=given["time_zone"],
        routes=RouteRules() if given["rules_file"] is None else read_route_rules(given["rules_file"]),
    )
