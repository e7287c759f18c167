"""The importers by name: what each says of itself, and what it hands on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..errors import UsageError
from ..trace.manifest import Stamp
from .rejects import Rejects
from .sources import SourceFile


@dataclass(frozen=True, slots=True)
class Rows:
    """Log lines as columns of one length, in the order of the file; -1 is unknown.

    `at_ns` is the recorded instant, cut to the format's resolution. Target i is data[offsets[i]:offsets[i +
    1]]. `method` and `host` index the reader's `methods` and `hosts`. `client_hash` is a keyed hash of who
    asked.
    """

    at_ns: npt.NDArray[np.int64]
    data: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.int64]
    method: npt.NDArray[np.int64]
    host: npt.NDArray[np.int64]
    client_hash: npt.NDArray[np.int64]
    status: npt.NDArray[Any]
    took_ns: npt.NDArray[Any] | None
    bytes: npt.NDArray[Any]


@dataclass(slots=True)
class Found:
    """What a reader learns on the way, for the manifest."""

    rejects: Rejects = field(default_factory=Rejects)
    secrets_dropped: dict[str, int] = field(default_factory=dict)
    time_zone: str = ""
    time_zone_changed: bool = False

    def drop(self, what: str, count: int) -> None:
        """Count what was taken out."""
        if count:
            self.secrets_dropped[what] = self.secrets_dropped.get(what, 0) + count


class Reader(Protocol):
    """Reads the files of one import, one after the other."""

    methods: list[str]
    hosts: list[str]

    def read(self, file: SourceFile) -> Iterator[Rows]:
        """The rows of a file, a block at a time; the arrays may be used again after the next block is asked
        for.
        """
        ...


@dataclass(frozen=True, slots=True)
class Importer:
    """One format. `sniff(head)` says how much the head of a file looks like it (0 to 1), `first_ns(head)` its
    first stamp (None: it has none), `reader(found, keep_secrets)` makes a reader.
    """

    name: str
    title: str
    sniff: Callable[[bytes], float]
    first_ns: Callable[[bytes], int | None]
    reader: Callable[[Found, bool], Reader]
    resolution_ns: int
    stamp: Stamp


_importers: dict[str, Importer] = {}


def importer(new: Importer) -> Importer:
    """Enter an importer into the registry."""
    _importers[new.name] = new
    return new


def importers() -> dict[str, Importer]:
    """All importers by name."""
    return dict(_importers)


def importer_named(name: str) -> Importer:
    """The importer of a `--format`. UsageError where there is none."""
    if name not in _importers:
        raise UsageError(f"no format {name!r}", hint=f"known: {', '.join(sorted(_importers))}")
    return _importers[name]
