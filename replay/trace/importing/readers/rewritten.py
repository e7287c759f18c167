"""Rewrites lines before the scan if the kernels cannot read them as they are.

A rewrite never adds or removes a line, so that the numbers of rejected lines match the file. It leaves unknown lines
unchanged, and the scanner rejects them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from replay.trace.dictionary import Bytes
from replay.trace.importing.registry import Probe, Rows
from replay.trace.importing.rejects import BLANK, Rejects
from replay.trace.importing.sources import BLOCK_BYTES, SourceFile

from .fields import FieldReader

Rewrite = Callable[[bytes], bytes]
"""Takes whole lines and returns as many lines."""

_BEHIND = 64
"""Padding, because kernels read several bytes at a time, some of them past the end."""


class RewrittenFile:
    """A file with rewritten blocks.

    All other attributes are the file's.
    """

    def __init__(self, file: SourceFile, rewrite: Rewrite) -> None:
        self._file, self._rewrite = file, rewrite

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def blocks(self) -> Iterator[tuple[Bytes, int]]:
        """Yield blocks as `SourceFile.blocks` does.

        A block that became too large is yielded in parts.
        """
        for block, end in self._file.blocks():
            data = self._rewrite(block[:end].tobytes())
            while data:
                cut = len(data) if len(data) <= 2 * BLOCK_BYTES else data.rfind(b"\n", 0, BLOCK_BYTES) + 1
                cut = cut or len(data)
                buffer = np.zeros(cut + _BEHIND, dtype=np.uint8)
                buffer[:cut] = np.frombuffer(data[:cut], dtype=np.uint8)
                yield buffer, cut
                data = data[cut:]


class RewritingReader(FieldReader):
    """Reads rewritten lines.

    When `rewrite` blanks lines that are not requests, it adds their number to `blanked`, and they are counted under
    `blank_reason`.
    """

    blanked = 0
    blank_reason = ""
    zone_known = False

    @abstractmethod
    def rewrite(self, data: bytes) -> bytes:
        """Convert lines to the form that the layout reads."""

    def probe(self, head: bytes) -> Probe:
        """Return the first timestamp in the rewritten head, and the resolution."""
        return super().probe(self.rewrite(head))

    def read(self, file: SourceFile) -> Iterator[Rows]:
        """Yield the rows of one file, block by block."""
        self.blanked = 0
        yield from super().read(RewrittenFile(file, self.rewrite))  # type: ignore[arg-type]
        name_blanks(self._found.rejects, self.blanked, self.blank_reason)


def name_blanks(rejects: Rejects, blanked: int, reason: str) -> None:
    """Count the lines that a rewrite blanked as rejected for `reason`, not as blank, and drop all blank examples."""
    if blanked:
        rejects.counts[reason] += blanked
        rejects.counts[BLANK] -= blanked
        rejects.counts += Counter()
        rejects.examples[:] = [example for example in rejects.examples if example.reason != BLANK]
