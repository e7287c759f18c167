"""The console and the tables of all output. Both escape untrusted text with `shown`."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable
from typing import Any

import rich.console
import rich.table
from rich.segment import Segment
from rich.text import Text

from replay.shown import shown

_PADDING = re.compile(r"[ ]+$", re.MULTILINE)


class Console(rich.console.Console):
    """A Rich console that escapes all control characters, and that does not interpret `[red]` or `:boom:`."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, emoji=False, **settings)

    def render(
        self, renderable: rich.console.RenderableType, options: rich.console.ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Render as Rich does, with the text of every segment escaped. Rich's own control codes are kept."""
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else shown(segment.text, lines=True)
            yield segment if text == segment.text else Segment(text, segment.style, segment.control)

    def print(self, *objects: Any, **settings: Any) -> None:
        """Print as Rich does, but without trailing padding in a pipe or a file."""
        if self.is_terminal or self.quiet or self._buffer_index:
            super().print(*objects, **settings)
            return
        with self.capture() as captured:
            super().print(*objects, **settings)
        self.file.write(_PADDING.sub("", captured.get()))
        self.file.flush()

    def on_broken_pipe(self) -> None:
        """Raise BrokenPipeError. Rich would end the process with exit code 1."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


class Table(rich.table.Table):
    """A Rich table whose cells have one line of text: a line break in a name does not start a new line."""

    @classmethod
    def grid(cls, *headers: Any, **settings: Any) -> Table:
        """Return a table without lines and headers."""
        table = super().grid(*headers, **settings)
        assert isinstance(table, cls)
        return table

    def add_row(self, *cells: rich.console.RenderableType | None, **settings: Any) -> None:
        """Add a row, with the text of each cell escaped and on one line."""
        super().add_row(*map(shown_cell, cells), **settings)


def shown_text(text: Text) -> Text:
    """Return a styled text on one line, with terminal control sequences escaped."""
    return text if shown(text.plain) == text.plain else Text(shown(text.plain), style=text.style)


def shown_cell(cell: rich.console.RenderableType | None) -> rich.console.RenderableType | None:
    """Return a table cell with its text escaped as `shown_text` does. Cells that are not text stay as they are."""
    return shown_text(Text(cell) if isinstance(cell, str) else cell) if isinstance(cell, str | Text) else cell
