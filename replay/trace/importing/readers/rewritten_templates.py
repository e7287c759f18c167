"""Readers of templates whose lines are rewritten before they are split, and how to register such a format."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from replay.trace.importing.registry import (
    Found,
    Importer,
    Options,
    Probe,
    Rows,
    importer,
)
from replay.trace.importing.rejects import BANNER
from replay.trace.importing.sources import SourceFile

from .layout import Layout
from .lines import sniffed_lines
from .rewritten import Rewrite, RewritingReader
from .templates import share

COLOURS = re.compile(rb"\x1b\[[\d;]*m")
"""Escape sequences for colours on a terminal."""


def without_banner(data: bytes, banner: re.Pattern[bytes] | None) -> tuple[bytes, int]:
    """Blank the messages of the server between requests, and return the lines and how many were blanked."""
    return (data, 0) if banner is None else banner.subn(b"", data)


class RewritingTemplate(RewritingReader):
    """Reads rewritten lines with the one of several layouts that fits a file's head best."""

    def __init__(
        self,
        found: Found,
        options: Options,
        layouts: tuple[Layout, ...],
        rewrite: Rewrite,
        banner: re.Pattern[bytes] | None,
        cut_query: re.Pattern[bytes] | None = None,
    ) -> None:
        super().__init__(found, options, layouts[0])
        self._layouts, self._rewritten, self._banner = layouts, rewrite, banner
        self._cut_query, self._queries_cut = cut_query, 0
        self.blank_reason = BANNER

    def rewrite(self, data: bytes) -> bytes:
        """Convert lines to the form that the layouts read, and count the blanked lines and the omitted queries."""
        data, blanked = without_banner(self._rewritten(data), self._banner)
        self.blanked += blanked
        if self._cut_query is not None:
            self._queries_cut += len(self._cut_query.findall(data))
        return data

    def read(self, file: SourceFile) -> Iterator[Rows]:
        """Yield the rows of one file, block by block."""
        self._queries_cut = 0
        yield from super().read(file)
        self._found.queries_cut += self._queries_cut

    def probe(self, head: bytes) -> Probe:
        """Choose the layout that fits the head best, then return its first timestamp and the resolution."""
        after = self.rewrite(head)
        self.use(max(self._layouts, key=lambda layout: share(after, layout)))
        return super().probe(head)


def register(
    name: str,
    title: str,
    rewrite: Rewrite,
    is_its: Callable[[bytes], float],
    *layouts: Layout,
    rank: int = 1,
    banner: re.Pattern[bytes] | None = None,
    cut_query: re.Pattern[bytes] | None = None,
) -> Importer:
    """Register a format with these layouts.

    `is_its` returns the share of a rewritten head's lines that have this form. `banner` matches messages of the
    server between requests, and `cut_query` matches lines whose query was omitted.
    """

    def sniff(head: bytes, options: Options) -> float:
        after, _ = without_banner(rewrite(head), banner)
        return min(is_its(after), max(share(after, layout) for layout in layouts))

    def reader(found: Found, options: Options) -> RewritingTemplate:
        return RewritingTemplate(found, options, layouts, rewrite, banner, cut_query)

    return importer(Importer(name=name, title=title, sniff=sniff, reader=reader, rank=rank))


def share_of(pattern: re.Pattern[bytes]) -> Callable[[bytes], float]:
    """Return a function that computes the share of a head's lines that begin with a pattern."""

    def fits(head: bytes) -> float:
        lines = sniffed_lines(head)
        return sum(pattern.match(line) is not None for line in lines) / max(len(lines), 1)

    return fits
