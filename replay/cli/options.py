"""Options that several verbs share, and options with an optional value."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


class OptionalValue(click.Option):
    """An option with an optional value, which follows `=`: `--json`, `--json=FILE`.

    click's own optional values would take the next argument, so that `replay run --json day.toml` would overwrite
    the scenario. `bare` is the value of the option without one: `@click.option("--json", cls=OptionalValue,
    bare="-", metavar="FILE")`. If the option is not given, the value is None.
    """

    def __init__(self, *args: Any, bare: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.bare = bare

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """Register a parser that accepts a value only after `=`."""
        super().add_to_parser(parser, ctx)
        match_long = parser._match_long_opt

        def match(name: str, value: str | None, state: Any) -> None:
            if name in self.opts and value == "":
                raise click.BadOptionUsage(name, f"{name}= has no value: write {name}, or {name}=VALUE", ctx)
            match_long(name, self.bare if value is None and name in self.opts else value, state)

        parser._match_long_opt = match

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Return the help record, which shows the option as `--json[=FILE]`."""
        record = super().get_help_record(ctx)
        if record is None:
            return None
        names = ", ".join(self.opts)
        return f"{names}[={self.metavar or 'VALUE'}]", record[1]


def fail_on_option(words: tuple[str, ...], default: str, text: str) -> Callable[[Command], Command]:
    """Return the option `--fail-on WORD[,WORD...]`, which is repeatable.

    Its value is a tuple of words that always includes the default.
    """

    def split(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
        asked = [word.strip() for value in given for word in value.split(",")]
        for word in asked:
            if word not in words:
                raise click.BadParameter(f"{word!r} is not one of {', '.join(words)}", context, parameter)
        return tuple(dict.fromkeys([default, *asked]))

    return click.option(
        "--fail-on",
        multiple=True,
        metavar=f"{'|'.join(words)}[,...]",
        callback=split,
        help=f"{text} [default: {default}]",
        shell_complete=lambda context, parameter, begun: [word for word in words if word.startswith(begun)],
    )


class _OutOption(click.Option):
    """`-o/--out`. Its alias `--output` is not in the help."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:
        """Return the help record, which shows the option as `-o, --out PATH`."""
        return "-o, --out PATH", f"{self.help}{' [required]' if self.required else ''}"


def out_option(text: str, *, required: bool = False) -> Callable[[Command], Command]:
    """Return the option `-o/--out` for a file or folder. `--output` is an alias."""
    names = ("-o", "--out", "--output", "out")
    return click.option(*names, cls=_OutOption, type=click.Path(path_type=Path), required=required, help=text)
