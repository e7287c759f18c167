"""`--json`, `--junit`, `--markdown`, `--html` and `--annotations`, for every verb that has a result."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Container
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from replay.errors import OutputError, UsageError
from replay.files import append as append_to
from replay.files import write_whole

from .options import OptionalValue
from .streams import tell

if TYPE_CHECKING:
    from replay.report.outputs.result import Result

Command = TypeVar("Command", bound=Callable[..., Any])

STDOUT = "-"
FORMATS = ("json", "junit", "markdown", "html")
DEFAULT_PAGE = "\0"
"""The value of `--html` when no FILE is given."""


class _FileOption(OptionalValue):
    """An option such as `--json[=FILE]`.

    For one release, a FILE after a space is still accepted if it cannot be one of the verb's arguments, as
    `is_argument` decides.
    """

    def __init__(self, *args: Any, is_argument: Callable[[str], bool] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._is_argument = is_argument

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """Register a parser that also accepts a FILE after a space, for options that formerly had that form."""
        super().add_to_parser(parser, ctx)
        is_argument = self._is_argument
        if is_argument is None:
            return
        match_long = parser._match_long_opt

        def match(name: str, value: str | None, state: Any) -> None:
            if name in self.opts and value is None and state.rargs:
                follows = state.rargs[0]
                if follows == STDOUT or not (follows.startswith("-") or is_argument(follows)):
                    value = state.rargs.pop(0)
            match_long(name, value, state)

        parser._match_long_opt = match


def output_options(
    page: str, is_argument: Callable[[str], bool] | None = None, spaced: Container[str] = FORMATS
) -> Callable[[Command], Command]:
    """Return a decorator that adds `--json`, `--junit`, `--markdown`, `--html` and `--annotations`.

    `page` is the help's text for the place of the page if `--html` has no FILE. Options in `spaced` formerly took
    their FILE after a space; `is_argument` decides which arguments cannot be that FILE.
    """
    files = (
        ("json", STDOUT, "Write the figures for scripts [without FILE: stdout]."),
        ("junit", STDOUT, "Write JUnit XML with a test case for each objective or metric."),
        ("markdown", STDOUT, "Append a Markdown summary, for $GITHUB_STEP_SUMMARY for example."),
        ("html", DEFAULT_PAGE, f"Write a page with charts [without FILE: {page}]."),
    )
    options: list[Callable[[Command], Command]] = [
        click.option(
            f"--{name}", f"{name}_file", cls=_FileOption, bare=bare, metavar="FILE", help=text,
            is_argument=is_argument if name in spaced else None
        )
        for name, bare, text in files
    ]  # fmt: skip
    options.append(
        click.option(
            "--annotations",
            is_flag=True,
            help="Print ::error and ::notice lines [default: in GitHub Actions, except for report and merge].",
        )
    )

    def added(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return added


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where to write the result besides the report.

    Each place is a file, `-` for stdout, DEFAULT_PAGE for the default place of the page, or None for no output.
    """

    json: str | None = None
    junit: str | None = None
    markdown: str | None = None
    html: str | None = None
    annotations: bool = False

    @property
    def any(self) -> bool:
        """Whether at least one output besides the annotations was requested."""
        return any(place is not None for place in (self.json, self.junit, self.markdown, self.html))

    @property
    def takes_stdout(self) -> bool:
        """Whether an output goes to stdout, so that the report must not."""
        return STDOUT in (self.json, self.junit, self.markdown)

    def write(self, result: Result, page: Path) -> None:
        """Write the outputs, files first and stdout last. OutputError if one cannot be written.

        `page` is the default place of the page.
        """
        from replay.report.outputs.annotations import workflow_commands
        from replay.report.outputs.junit import junit

        if self.html is not None:
            path = page if self.html == DEFAULT_PAGE else Path(self.html)
            result.page(path)
            tell(f"{path} written", err=True)
        made: dict[str, Callable[[], bytes]] = {
            "json": result.json,
            "junit": lambda: junit(result.suite()),
            "markdown": lambda: result.markdown().encode(),
        }
        wanted = [(place, name) for name in made if (place := getattr(self, name)) is not None]
        for place, name in sorted(wanted, key=lambda one: one[0] == STDOUT):
            write_file(place, made[name](), append=name == "markdown")
        if self.annotations:
            lines = "\n".join(workflow_commands(result.annotations()))
            print(lines, file=sys.stderr if self.takes_stdout else sys.stdout, flush=True)


def outputs_of(given: dict[str, Any], *, measures: bool = True) -> Outputs:
    """Remove the output options from the parameters of a command, check them, and return the outputs.

    UsageError if two outputs go to stdout or to the same file, if the page goes to stdout, or if a file is a folder.
    OutputError if a file cannot be written, so that this is known before anything is sent. A verb that `measures`
    prints annotations in GitHub Actions by default; a verb that only shows an earlier result does not.
    """
    files = {name: given.pop(f"{name}_file") for name in FORMATS}
    in_actions = measures and os.environ.get("GITHUB_ACTIONS") == "true"
    outputs = Outputs(**files, annotations=given.pop("annotations") or in_actions)
    to_stdout = [f"--{name}" for name in ("json", "junit", "markdown") if files[name] == STDOUT]
    if len(to_stdout) > 1:
        raise UsageError(
            f"only one of {' and '.join(to_stdout)} can go to stdout",
            hint=f"name a file: {to_stdout[-1]}=FILE",
        )
    if files["html"] == STDOUT:
        raise UsageError("--html: a page cannot go to stdout", hint="name a file: --html=FILE")
    named = {name: value for name, value in files.items() if value not in (None, STDOUT, DEFAULT_PAGE)}
    for name, value in named.items():
        _check(f"--{name}", Path(value))
        twice = [f"--{other}" for other, also in named.items() if also == value]
        if len(twice) > 1:
            raise UsageError(
                f"{' and '.join(twice)} both write to {value}", hint="give each output its own file"
            )
    return outputs


def _check(flag: str, path: Path) -> None:
    if path.is_dir():
        raise UsageError(f"{flag}: {path} is a folder", hint=f"name a file: {flag}=FILE")
    if not path.parent.is_dir():
        raise OutputError(
            f"{flag}: {path} cannot be written: there is no folder {path.parent}", hint="make it first"
        )
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise OutputError(f"{flag}: {path} cannot be written", hint="give another file")


def write_file(place: str, data: bytes, *, append: bool = False) -> None:
    """Write all of the data to a file or `-` for stdout, or raise OutputError.

    An existing file is replaced only by a complete one. With `append`, the data is added to it instead.
    """
    if place == STDOUT:
        click.echo(data, nl=False)
        return
    path = Path(place)
    write = append_to if append else write_whole
    write(path, data)
