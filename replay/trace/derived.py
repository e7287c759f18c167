"""Writing a trace of another one's requests: its dictionaries are taken over whole, ids and routes stay."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from replay_native import scale as kernels
from replay_native.jit import warm

from .manifest import Manifest
from .reader import Trace
from .requests import BODIES, HEADERS, REQUESTS
from .writer import TraceWriter


class DerivedTraceWriter(TraceWriter):
    """A TraceWriter whose events are of the requests of `base`, by their ids; requests cannot be added.

    The manifest goes on from that of `base`, with `change` at the end of its history.
    """

    def __init__(
        self, path: str | Path, base: Trace, change: list[dict[str, Any]], *, overwrite: bool = False
    ) -> None:
        super().__init__(path, overwrite=overwrite)
        self._base = base
        self.manifest = inherited_manifest(base.manifest, change)

    def _open_dictionaries(self) -> None:
        warm(["scale"])
        for name in (REQUESTS, HEADERS, BODIES):
            if (self._base.path / name).exists():
                shutil.copyfile(self._base.path / name, self._folder / name)
        self._table = self._base.requests.addresses()
        self._routes = np.arange(len(self._base.manifest.routes), dtype=np.int64)
        self._counts = np.zeros(len(self._routes) + 1, np.int64)

    def _weigh(self, request: npt.NDArray[np.uint32]) -> None:
        kernels.count_classes(request, self._table, self._routes, self._counts)
        self._base.requests.drop_pages()

    def _close_dictionaries(self) -> None:
        base = self._base.manifest
        counted = zip(base.routes, self._counts.tolist(), strict=False)
        self.manifest.routes = [msgspec.structs.replace(known, rows=rows) for known, rows in counted]


def inherited_manifest(base: Manifest, change: list[dict[str, Any]]) -> Manifest:
    """The manifest of what is made of a trace: its sources, stamps and lists stay, counts begin anew."""
    kept = msgspec.json.decode(msgspec.json.encode(base), type=Manifest)
    kept.history = [*kept.history, *change]
    kept.rows = kept.lines = kept.start_ns = kept.end_ns = kept.clients = 0
    kept.rejected, kept.rejected_examples, kept.segments = {}, [], []
    return kept
