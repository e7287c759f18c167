"""How a report is laid out on a console: lines, titles and tables, in the characters that it can show."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.text import Text

from replay.shown import shown

from . import console as ours
from .console import shown_text

WIDTH = 100
"""Columns of a report that goes to a file or a pipe."""

SHORT_COLUMNS, SHORT_LEAVES = 31, 62
WIDE_COLUMNS_MIN = 12

_ASCII = str.maketrans(
    {
        "≥": ">=",
        "→": "->",
        "×": "x",
        "µ": "u",
        "·": "-",
        "…": "...",
        "●": "*",
        "○": "o",
        "✓": "+",
        "✗": "x",
        "–": "-",
    }
)


def report_console(*, stderr: bool = False) -> ours.Console:
    """Standard output, or error; as wide as the report is meant to be where it is no terminal."""
    console = ours.Console(stderr=stderr)
    return console if console.is_terminal else ours.Console(stderr=stderr, width=WIDTH)


class Page:
    """Prints in the words that its console can show."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.width = console.width
        self._ascii = not console.encoding.lower().startswith("utf")

    def text(self, words: str, style: str = "") -> Text:
        """`words` in one line, in characters that the console knows."""
        words = shown(words)
        return Text(words.translate(_ASCII) if self._ascii else words, style=style)

    def say(self, words: str = "", style: str = "", indent: int = 0) -> None:
        """A paragraph, broken where the console ends."""
        text = self.text(words, style)
        for line in text.wrap(self._console, max(self.width - indent, 20)) if words else [text]:
            line.rstrip()
            self._console.print(Text(" " * indent) + line, highlight=False)

    def title(self, words: str) -> None:
        """The head of a section, after an empty line."""
        self.say()
        self.say(words, "bold")

    def parts(self, parts: Iterable[tuple[str, str]]) -> None:
        """One line of differently styled parts."""
        line = Text()
        for words, style in parts:
            line.append_text(self.text(words, style))
        self._console.print(line, highlight=False)

    def table(self, headers: Sequence[tuple[str, str]], rows: Iterable[Sequence[str | Text]]) -> None:
        """Columns by (header, alignment). `wide` takes what the others leave, `short` at most SHORT_COLUMNS
        and all but SHORT_LEAVES; both are cut where they do not fit.
        """
        lines = [[self.text(header, "dim") for header, _ in headers]]
        lines += [
            [self.text(cell) if isinstance(cell, str) else shown_text(cell) for cell in row] for row in rows
        ]
        kinds = [kind for _, kind in headers]
        widths = [max(cell.cell_len for cell in column) for column in zip(*lines, strict=True)]
        short = min(max(self.width - SHORT_LEAVES, WIDE_COLUMNS_MIN), SHORT_COLUMNS)
        widths = [min(w, short) if kind == "short" else w for w, kind in zip(widths, kinds, strict=True)]
        fixed = sum(w for w, kind in zip(widths, kinds, strict=True) if kind != "wide")
        left = max(self.width - fixed - 2 * (len(widths) - 1), WIDE_COLUMNS_MIN)
        widths = [min(w, left) if kind == "wide" else w for w, kind in zip(widths, kinds, strict=True)]
        for line in lines:
            self._console.print(self._row(line, widths, kinds), highlight=False, no_wrap=True, crop=False)

    def _row(self, cells: Sequence[Text], widths: Sequence[int], kinds: Sequence[str]) -> Text:
        row = Text()
        for cell, width, kind in zip(cells, widths, kinds, strict=True):
            cut = cell.copy()
            cut.truncate(width, overflow="crop" if self._ascii else "ellipsis")
            pad = " " * (width - cut.cell_len)
            row.append_text(Text(pad) + cut if kind == "right" else cut + Text(pad))
            row.append("  ")
        row.rstrip()
        return row
