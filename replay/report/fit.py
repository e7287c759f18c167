"""Fits text to a width: shortens names in the middle and wraps paragraphs."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rich.cells import cell_len

_WORD = re.compile(r"\S+\s*|\s+")
_PART = re.compile(r"[^/&?,;=·|_-]*[/&?,;=·|_-]*")


def shortened(words: str, most: int, mark: str = "…") -> str:
    """Shorten a text in the middle if it has more than `most` columns."""
    if cell_len(words) <= most:
        return words
    room = max(most - cell_len(mark), 0)
    head, tail = words[: (room + 1) // 2], words[len(words) - room // 2 :] if room // 2 else ""
    while cell_len(head) + cell_len(tail) > room:
        head, tail = (head[:-1], tail) if cell_len(head) > cell_len(tail) else (head, tail[1:])
    return (head + mark + tail)[: max(most, 0)]


def breaks(words: str, width: int) -> list[tuple[int, int]]:
    """Return the ranges of the lines of a paragraph that is wrapped to `width`.

    Lines break at spaces. A word that is too long breaks after a separator of a path or list, and a part without a
    separator that is still too long breaks anywhere.
    """
    lines: list[tuple[int, int]] = []
    start, end, used = 0, 0, 0
    for piece in _pieces(words, max(width, 1)):
        bare = cell_len(piece.rstrip())
        if used + bare > width and end > start:
            lines.append((start, end))
            start, used = end, 0
        end += len(piece)
        used += cell_len(piece)
    lines.append((start, end))
    return [(first, first + len(words[first:last].rstrip())) for first, last in lines]


def _pieces(words: str, width: int) -> Iterator[str]:
    """Yield the unbreakable parts of a text, each narrow enough for a line."""
    for word in _WORD.findall(words):
        if cell_len(word.rstrip()) <= width:
            yield word
            continue
        for part in filter(None, _PART.findall(word)):
            if cell_len(part.rstrip()) <= width:
                yield part
            else:
                yield from part
