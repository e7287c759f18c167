"""Markdown of a job summary, with the text of others escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from replay.shown import shown

_ESCAPES = str.maketrans(
    {
        "&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;", "|": "\\|", "`": "\\`", "*": "\\*", "[": "\\[", "]": "\\]",
        "~": "\\~", "\\": "\\\\",
    }
)  # fmt: skip
"""What would be a tag, a mention, a cell, a link or an emphasis."""


def escaped(text: str) -> str:
    """A text as Markdown shows it, in one line."""
    return shown(text.replace("\n", " ")).translate(_ESCAPES)


def code(text: str) -> str:
    """A text as code, which ends at no backtick of its own."""
    return "`" + shown(text).replace("`", "'").replace("|", "\\|") + "`"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table; heads that end in `>` are of columns of figures, to the right. Cells are escaped already."""
    names = [head.removesuffix(">") for head in heads]
    rules = ["--:" if head.endswith(">") else "---" for head in heads]
    return [_row(names), "|" + "|".join(rules) + "|", *map(_row, rows), ""]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def bullets(texts: Iterable[str]) -> list[str]:
    """The lines of a list; texts are escaped here."""
    return [f"- {escaped(text)}" for text in texts]
