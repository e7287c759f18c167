"""Lays out a report on a console: paragraphs, facts and tables, in characters that the console can show.

Figures are never cut. A table that is too wide drops its notes, wraps texts, and shortens names in the middle. Texts
that still do not fit move below their rows. Other columns that do not fit go into further tables, which repeat the
names.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console
from rich.text import Text

from replay.shown import shown

from . import console as ours
from .console import shown_text
from .fit import breaks, shortened

WIDTH = 100
"""The width of a report that goes to a file or a pipe, unless COLUMNS sets another one."""

LEAST_WIDTH = 20
NAME_LEAST = 18
TEXT_LEAST = {"text": 10, "path": 24}
"""How many columns a text or a path needs to stay beside the figures."""

FACT_LEAST = 24

GAP = 2

_ASCII = str.maketrans(
    {
        "≥": ">=",
        "≤": "<=",
        "→": "->",
        "×": "x",
        "µ": "u",
        "·": "-",
        "…": "...",
        "“": '"',
        "”": '"',
        "●": "*",
        "○": "o",
        "✓": "+",
        "✗": "x",
        "–": "-",
    }
)

Cell = str | Text


def console_width() -> int:
    """Return the width of a report that does not go to a terminal."""
    asked = os.environ.get("COLUMNS", "")
    return max(int(asked), LEAST_WIDTH) if asked.isascii() and asked.isdigit() and int(asked) else WIDTH


def report_console(*, stderr: bool = False) -> ours.Console:
    """Return a console for stdout or stderr, with the report's width if it is not a terminal."""
    console = ours.Console(stderr=stderr)
    return console if console.is_terminal else ours.Console(stderr=stderr, width=console_width())


class Page:
    """Prints paragraphs, facts and tables, using only characters that its console can show."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.width = max(console.width, LEAST_WIDTH)
        self._ascii = not console.encoding.lower().startswith("utf")
        self._mark = "..." if self._ascii else "…"

    def text(self, words: str, style: str = "") -> Text:
        """Return `words` on one line, in characters that the console can show."""
        words = shown(words)
        return Text(words.translate(_ASCII) if self._ascii else words, style=style)

    def say(self, words: str = "", style: str = "", indent: int = 0) -> None:
        """Print a paragraph, wrapped at the console's width."""
        self._paragraph(self.text(words, style), indent)

    def parts(self, parts: Iterable[tuple[str, str]], hang: int = 0) -> None:
        """Print a paragraph of differently styled parts. `hang` indents all lines but the first."""
        line = Text()
        for words, style in parts:
            line.append_text(self.text(words, style))
        self._paragraph(line, 0, hang)

    def title(self, words: str) -> None:
        """Print the title of a section, after an empty line."""
        self.say()
        self.say(words, "bold")

    def facts(self, rows: Iterable[tuple[str, Cell]]) -> None:
        """Print facts: names on the left, their descriptions on the right."""
        made = [(self.text(name, "cyan"), self._cell(cell)) for name, cell in rows]
        widest = max((name.cell_len for name, _ in made), default=0)
        left = widest + GAP
        if self.width - left < FACT_LEAST:
            left = 4
        for name, cell in made:
            lines = self._lines(cell, self.width - left)
            first = Text(" " * max(left - GAP - name.cell_len, 0)) + name + Text(" " * GAP)
            if first.cell_len > left:
                self._line(first)
                first = Text(" " * left)
            for at, line in enumerate(lines):
                self._line((first if at == 0 else Text(" " * left)) + line)

    def table(self, headers: Sequence[tuple[str, str]], rows: Iterable[Sequence[Cell]]) -> None:
        """Print a table. Headers are (text, kind), and the first column names the row.

        Columns of kind `right` or of the empty kind are figures, which are never cut. A `name` is shortened in the
        middle. A `text` or `path` wraps or moves below its row. A `note` is dropped if it does not fit.
        """
        lines = [[self.text(header, "dim") for header, _ in headers]]
        lines += [[self._cell(cell) for cell in row] for row in rows]
        kinds = [kind for _, kind in headers]
        columns = list(range(len(headers)))
        widths = [max(line[at].cell_len for line in lines) for at in columns]
        for shown_columns in self._split(columns, kinds, widths):
            self._part(lines, shown_columns, kinds, widths)

    def _cell(self, cell: Cell) -> Text:
        return self.text(cell) if isinstance(cell, str) else shown_text(cell)

    def _split(self, columns: list[int], kinds: Sequence[str], widths: Sequence[int]) -> Iterator[list[int]]:
        """Yield the columns of each table.

        All columns are in one table if they fit with texts below their rows. Otherwise each table has as many as
        fit.
        """
        key, rest = columns[0], columns[1:]
        if _total(widths) > self.width:
            rest = [at for at in rest if kinds[at] != "note"]

        def least(at: int) -> int:
            return min(widths[at], NAME_LEAST) if kinds[at] == "name" else widths[at]

        name = least(key)
        part, used = [key], name
        for at in rest:
            needs = 0 if kinds[at] in TEXT_LEAST else least(at) + GAP
            if used + needs > self.width and len(part) > 1:
                yield part
                part, used = [key], name
            part.append(at)
            used += needs
        yield part

    def _part(
        self,
        lines: Sequence[Sequence[Text]],
        columns: Sequence[int],
        kinds: Sequence[str],
        natural: Sequence[int],
    ) -> None:
        """Print one table. Texts that do not fit go below their rows."""
        widths = {at: natural[at] for at in columns}
        beside = list(columns)
        for at in reversed(columns):
            if kinds[at] not in TEXT_LEAST:
                continue
            least = min(natural[at], TEXT_LEAST[kinds[at]])
            names = sum(max(natural[each] - NAME_LEAST, 0) for each in columns if kinds[each] == "name")
            spare = self.width - _total([widths[each] for each in beside])
            if spare + names < least - natural[at]:
                beside.remove(at)
            else:
                widths[at] = min(max(natural[at] + spare, least), natural[at])
        for at in sorted(beside, key=lambda each: (kinds[each] != "name", each)):
            spare = self.width - _total([widths[each] for each in beside])
            if spare < 0 and (kinds[at] == "name" or at == columns[0]):
                widths[at] = max(widths[at] + spare, min(NAME_LEAST, widths[at]))
        below = [at for at in columns if at not in beside]
        for line in lines:
            self._row(
                [line[at] for at in beside], [widths[at] for at in beside], [kinds[at] for at in beside]
            )
            for at in below:
                if line[at].plain.strip():
                    self._paragraph(line[at], 2 * GAP)

    def _row(self, cells: Sequence[Text], widths: Sequence[int], kinds: Sequence[str]) -> None:
        wrapped = [
            [self._shortened(cell, width)] if kind == "name" else self._lines(cell, width)
            for cell, width, kind in zip(cells, widths, kinds, strict=True)
        ]
        for number in range(max(map(len, wrapped), default=0)):
            row = Text()
            for cell, width, kind in zip(wrapped, widths, kinds, strict=True):
                line = cell[number] if number < len(cell) else Text()
                pad = Text(" " * (width - line.cell_len))
                row.append_text(pad + line if kind == "right" else line + pad)
                row.append(" " * GAP)
            self._line(row)

    def _shortened(self, cell: Text, width: int) -> Text:
        words = shortened(cell.plain, width, self._mark)
        return cell if words == cell.plain else Text(words, style=cell.style)

    def _lines(self, cell: Text, width: int) -> list[Text]:
        """Wrap a text into lines of this width."""
        if cell.cell_len <= width:
            return [cell]
        return [
            cell[start:end] if end > start else Text() for start, end in breaks(cell.plain, max(width, 1))
        ]

    def _paragraph(self, cell: Text, indent: int, hang: int = 0) -> None:
        if cell.cell_len <= self.width - indent:
            hang = 0
        room = max(self.width - indent - hang, LEAST_WIDTH // 2)
        for number, line in enumerate(self._lines(cell, room)):
            self._line(Text(" " * (indent + (hang if number else 0))) + line)

    def _line(self, line: Text) -> None:
        line.rstrip()
        self._console.print(line, highlight=False, no_wrap=True, crop=False, overflow="ignore")


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * max(len(widths) - 1, 0)
