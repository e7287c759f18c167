"""Help texts as wide as the terminal, with the options of a verb in groups."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


def context_settings() -> dict[str, Any]:
    """Return the click settings that make the help as wide as the terminal, but at least 80 columns."""
    return {
        "help_option_names": ["-h", "--help"],
        "max_content_width": max(shutil.get_terminal_size().columns, 80),
    }


class GroupedCommand(click.Command):
    """A verb whose help lists its options by the groups of the settings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a section for each group. Options that are not settings are in the section of the last group."""
        from replay.settings.table import GROUPS

        groups: dict[str, list[tuple[str, str]]] = {group: [] for group in GROUPS}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                groups[getattr(parameter, "group", GROUPS[-1])].append(record)
        for group, records in groups.items():
            if records:
                with formatter.section(f"{group[0].upper()}{group[1:]}"):
                    formatter.write_dl(records)


class ListingOption(click.Option):
    """An option whose help contains a list of names.

    The list is made only when the help or the completion needs it.
    """

    def __init__(self, *args: Any, names: Callable[[], list[str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._names = names

    @property
    def help(self) -> str | None:  # type: ignore[override]
        """The help text, with NAMES replaced by the list."""
        return self._help and self._help.replace("NAMES", ", ".join(self._names()))

    @help.setter
    def help(self, text: str | None) -> None:
        self._help = text

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete one of the names if the option's metavar is NAME; otherwise complete as click does."""
        from click.shell_completion import CompletionItem

        if self.metavar != "NAME":
            return super().shell_complete(ctx, incomplete)
        return [CompletionItem(name) for name in self._names() if name.startswith(incomplete)]
