"""Markdown for a job summary, with untrusted text escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from replay.shown import shown

_ESCAPES = str.maketrans(
    {
        "&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;", "|": "\\|", "`": "\\`", "*": "\\*", "[": "\\[", "]": "\\]",
        "~": "\\~", "\\": "\\\\",
    }
)  # fmt: skip
"""Characters that could begin a tag, mention, cell, link or emphasis."""


def escaped(text: str) -> str:
    """Escape a text for Markdown, and put it on one line."""
    return shown(text.replace("\n", " ")).translate(_ESCAPES)


def code(text: str) -> str:
    """Return a text as a code span that its own backticks cannot end."""
    return "`" + shown(text).replace("`", "'").replace("|", "\\|") + "`"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table.

    Columns whose head ends in `>` are right-aligned. Cells must be escaped already.
    """
    names = [head.removesuffix(">") for head in heads]
    rules = ["--:" if head.endswith(">") else "---" for head in heads]
    return [_row(names), "|" + "|".join(rules) + "|", *map(_row, rows), ""]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def bullets(texts: Iterable[str]) -> list[str]:
    """Return the lines of a list, with its texts escaped."""
    return [f"- {escaped(text)}" for text in texts]
