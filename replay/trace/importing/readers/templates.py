"""Readers of log formats that are templates of literals and fields, and how to register such a format."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace

from replay.errors import UsageError
from replay.trace.dictionary import Bytes
from replay.trace.importing.registry import (
    Found,
    Importer,
    Options,
    Probe,
    importer,
)
from replay.trace.importing.sources import SourceFile
from replay_native.importing import field_spec

from .fields import FieldReader
from .layout import ROLES, Layout
from .lines import sniffed_lines

NAMES = {name: role for name, role in ROLES.items() if name != "end"} | {
    "took": field_spec.TOOK,
    "took2": field_spec.TOOK_2,
    "took3": field_spec.TOOK_3,
}
"""Field names with a role in the templates of fixed formats.

Fields with other names are ignored.
"""


@functools.lru_cache(maxsize=2)
def _texts(head: bytes) -> list[str]:
    """Return the first lines of a head as text, cached because every template is compared with them."""
    return [line.decode("utf-8", "replace") for line in sniffed_lines(head)]


def share(head: bytes, layout: Layout) -> float:
    """Return the share of the first lines that match a layout's template."""
    lines = _texts(head)
    return sum(layout.looks_like(line) for line in lines) / max(len(lines), 1)


class TemplateReader(FieldReader):
    """Reads lines with the one of several layouts that fits each file's head best."""

    def __init__(
        self,
        found: Found,
        options: Options,
        layouts: tuple[Layout, ...],
        supposed: Callable[[bytes], str] = lambda head: "",
    ) -> None:
        super().__init__(found, options, layouts[0])
        self._layouts, self._supposed = layouts, supposed

    def probe(self, head: bytes) -> Probe:
        """Choose the layout that fits the head best, then return its first timestamp and the resolution.

        Once an earlier file has determined the unit of numbers, the layout stays.
        """
        if sentence := self._supposed(head):
            self._found.assume(sentence)
        unit_ns = self.layout.at_unit_ns
        best = self._best(head)
        if best is not self.layout and not unit_ns:
            self.use(best)
        return super().probe(head)

    def _best(self, head: bytes) -> Layout:
        """Return the layout that fits the first lines best."""
        if len(self._layouts) == 1:
            return self._layouts[0]
        return max(self._layouts, key=lambda layout: share(head, layout))

    def _begin(self, file: SourceFile, block: Bytes, end: int) -> int:
        if len(self._layouts) > 1:
            kept = self.layout
            self.use(
                replace(self._best(file.head), at_unit_ns=kept.at_unit_ns, stamp_min_ns=kept.stamp_min_ns)
            )
        return 0


def register(
    name: str,
    title: str,
    *layouts: Layout,
    rank: int = 1,
    supposed: Callable[[bytes], str] = lambda head: "",
) -> Importer:
    """Register a format with these layouts, which are variants of it.

    `supposed` returns the assumption made for a file with this head as a sentence, or an empty text.
    """

    def sniff(head: bytes, options: Options) -> float:
        return max(share(head, layout) for layout in layouts)

    def reader(found: Found, options: Options) -> TemplateReader:
        return TemplateReader(found, options, layouts, supposed)

    return importer(Importer(name=name, title=title, sniff=sniff, reader=reader, rank=rank))


def register_own(
    name: str, title: str, setting: str, is_its: Callable[[str], bool], layout_of: Callable[[str], Layout]
) -> Importer:
    """Register a server whose log format the user defines.

    `setting` is its name in the server's configuration. `is_its` returns whether a --log-format belongs to this
    server.
    """

    def sniff(head: bytes, options: Options) -> float:
        return share(head, layout_of(options.log_format)) if is_its(options.log_format) else 0.0

    def reader(found: Found, options: Options) -> TemplateReader:
        if not is_its(options.log_format):
            wrong = (
                f"cannot read --log-format {options.log_format!r}"
                if options.log_format
                else "needs --log-format"
            )
            raise UsageError(
                f"--format {name} {wrong}",
                hint=f"give the string of the server's {setting}; a common log needs only --format common",
            )
        return TemplateReader(found, options, (layout_of(options.log_format),))

    return importer(
        Importer(name=name, title=title, sniff=sniff, reader=reader, rank=9, takes_log_format=True)
    )


def first_named(wanted: Mapping[str, int], names: list[str]) -> list[int]:
    """Return the role of each field.

    If several fields have one role, the first of them in `wanted` gets it, and the others get -1. Of two client
    fields, the second is used on lines that lack the first.
    """
    order = {name: place for place, name in enumerate(wanted)}
    taken: dict[int, str] = {}
    for name in sorted({name for name in names if name in wanted}, key=order.__getitem__):
        role = wanted[name]
        if role == field_spec.CLIENT_NAME and role in taken:
            role = field_spec.CLIENT_OTHER
        taken.setdefault(role, name)
    roles = {name: role for role, name in taken.items()}
    return [roles.get(name, -1) for name in names]
