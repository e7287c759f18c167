"""The header lines, methods and peers that kernels know.

Python decides once for each of them how it is recorded.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable
from typing import Any

import numpy as np

from replay.trace.dictionary import StringTable, flatten
from replay.trace.importing.cleaning import WORD
from replay.trace.importing.codings import coding_of
from replay.trace.importing.readers.records import METHOD, WRITTEN_ANEW
from replay.trace.importing.secret_names import is_secret_header
from replay_native.mirror.cleaning import NAME_BYTES_MAX, UNSURE, Facts
from replay_native.trace.dictionary import Table

from .exchange import Clients, forwarded_client
from .record_maker import Counts, RecordMaker

STRINGS_MAX, STRING_BYTES_MAX = 1 << 15, 8 << 20
STRING_LENGTH_MAX = 4_096
"""Longer strings are not remembered."""

_LINE = re.compile(rb"([^:\r\n]+):[ \t]*([^\r\n]*?)[ \t]*")
_RANKS = {b"x-forwarded-for": 0, b"forwarded": 1, b"x-real-ip": 2}


class KnownStrings:
    """Header lines, methods and peers seen before, with the facts that kernels use (see `cleaning.Facts`).

    When the table `is_full`, everything must be forgotten. `clients`, `hosts`, `methods` and `lines` number the
    values to which the facts refer.
    """

    def __init__(self, maker: RecordMaker, clients: Clients) -> None:
        self._maker, self._clients = maker, clients
        self.forget()

    def forget(self) -> None:
        """Forget all strings and values."""
        self._table = StringTable(STRINGS_MAX, STRING_BYTES_MAX)
        self.facts = np.full((STRINGS_MAX, Facts.WORDS), -1, np.int64)
        self.uses = np.zeros(STRINGS_MAX, np.int64)
        self.methods, self.hosts = dict[str, int](), dict[str, int]()
        self.clients, self.lines = dict[bytes, int](), dict[tuple[bytes, bytes], int]()
        self._counts = dict[int, Counts]()
        self._by_word = dict[str, list[int]]()

    def table(self) -> Table:
        """Return the strings in the form that kernels take."""
        return self._table.arrays(0)

    @property
    def is_full(self) -> bool:
        """Return whether it is time for `forget`: half of the table is used, or it accepts no more."""
        return len(self._table) > STRINGS_MAX // 2 or self._table.closed

    def _add(self, text: bytes) -> int:
        """Add a new string and return its number, or -1 if it is known or cannot be remembered."""
        if len(text) > STRING_LENGTH_MAX or len(self._table) + 1 >= STRINGS_MAX:
            return -1
        ids, fresh = self._table.intern(*flatten([text]))
        return int(ids[0]) if len(fresh) and not self._table.closed else -1

    def add_method(self, text: bytes) -> None:
        """Remember a method, if it is one that a trace can contain."""
        name = text.decode("latin-1")
        if METHOD.fullmatch(name) and (number := self._add(text)) >= 0:
            self.facts[number, Facts.KEPT_AS] = _number_of(self.methods, name)

    def add_peer(self, words: bytes, address: str) -> None:
        """Remember a peer by the words of its address in the ring."""
        if (number := self._add(words)) >= 0:
            self.facts[number, Facts.CLIENT] = self._client(address)
            self.facts[number, Facts.FLAG] = self._clients.is_proxy(address)

    def _client(self, address: str) -> int:
        return _number_of(self.clients, self._maker.client(address))

    def add_line(self, text: bytes) -> None:
        """Remember a header line, and the header's name if it is harmless."""
        match = _LINE.fullmatch(text)
        if match is None or (number := self._add(text)) < 0:
            return
        for word in WORD.findall(text.decode("latin-1")):
            self._by_word.setdefault(word, []).append(number)
        name, value = match[1], match[2]
        lowered, facts = name.lower(), self.facts[number]
        try:
            kept, counts = self._maker.line(name, value)
        except Exception:
            # Python gets the requests with this line, and counts those that it cannot convert.
            facts[Facts.KEPT_AS] = UNSURE
            return
        if kept:
            facts[Facts.KEPT_AS] = _number_of(self.lines, (kept[0][0], kept[0][1] or b""))
        if counts.dropped or counts.names or counts.changes:
            self._counts[number] = counts
        if lowered == b"host":
            facts[Facts.HOST] = _number_of(self.hosts, value.decode("latin-1").lower())
        if client := forwarded_client(((name, value),)):
            facts[Facts.CLIENT], facts[Facts.RANK] = self._client(client), _RANKS[lowered]
        facts[Facts.FLAG] = coding_of(((name, value),)) != b""
        if kept and self._is_harmless(lowered):
            self._add(b"\1" + lowered)

    def _is_harmless(self, name: bytes) -> bool:
        """Return whether a header is recorded unchanged as long as its value contains no secret.

        `name` is in lower case.
        """
        text = name.decode("latin-1")
        return (
            len(name) <= NAME_BYTES_MAX
            and name not in WRITTEN_ANEW
            and name not in _RANKS
            and name not in (b"cookie", b"set-cookie", b"content-encoding")
            and not is_secret_header(text)
            and self._maker.options.scrub.of("header", text) is None
        )

    def doubt(self, words: Iterable[str]) -> bool:
        """Mark the lines that contain one of these words, and return whether there are any.

        Kernels then leave requests with these lines to Python.
        """
        found = [number for word in words for number in self._by_word.get(word, ())]
        self.facts[found, Facts.KEPT_AS] = UNSURE
        return bool(found)

    def count_uses(self) -> None:
        """Count the changed values in the lines that kernels used since the last call."""
        for number, counts in self._counts.items():
            if times := int(self.uses[number]):
                counts.count_again(self._maker.found, times)
        self.uses[:] = 0


def _number_of(numbers: dict[Any, int], value: Hashable) -> int:
    return numbers.setdefault(value, len(numbers))
