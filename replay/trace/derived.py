"""Writing a trace of another one's requests: its dictionaries are taken over whole, ids and routes stay."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from replay_native.ground.jit import warm
from replay_native.workload import scale as kernels

from .columns import REQUEST_SCHEMA, open_batches
from .manifest import Manifest, Route
from .reader import Trace
from .requests import (
    BODIES,
    HEADERS,
    REQUESTS,
    MappedFile,
    request_batches,
)
from .route_rules import RouteRules
from .routes import assign_routes
from .writer import TraceWriter


class DerivedTraceWriter(TraceWriter):
    """A TraceWriter whose events are of the requests of `base`, by their ids; requests cannot be added. With `rewrite`
    their targets are others, and so are their routes.

    The manifest goes on from that of `base`, with `change` at the end of its history.
    """

    def __init__(
        self, path: str | Path, base: Trace, change: list[dict[str, Any]], *, overwrite: bool = False,
        rewrite: Callable[[bytes], bytes] | None = None,
    ) -> None:  # fmt: skip
        rules = RouteRules(templates=tuple(base.manifest.options.get("routes", ())))
        super().__init__(path, overwrite=overwrite, rules=rules)
        self._base, self._rewrite = base, rewrite
        self.manifest = inherited_manifest(base.manifest, change)

    def _open_dictionaries(self) -> None:
        warm(["workload.scale"])
        for name in (REQUESTS, HEADERS, BODIES):
            if (self._base.path / name).exists():
                shutil.copyfile(self._base.path / name, self._folder / name)
        if self._rewrite is not None:
            _rewrite_targets(self._base.path / REQUESTS, self._folder / REQUESTS, self._rewrite)
            self._weights = np.zeros(self._base.manifest.requests, np.int64)
        self._table = self._base.requests.addresses()
        self._routes = np.arange(len(self._base.manifest.routes), dtype=np.int64)
        self._counts = np.zeros(len(self._routes) + 1, np.int64)

    def _weigh(self, request: npt.NDArray[np.uint32]) -> None:
        if self._rewrite is not None:
            super()._weigh(request)
            return
        kernels.count_classes(request, self._table, self._routes, self._counts)
        self._base.requests.drop_pages()

    def _end_dictionaries(self) -> None:
        """They are copies."""

    def _close_dictionaries(self) -> None:
        base, manifest = self._base.manifest, self.manifest
        if self._rewrite is None:
            counted = zip(base.routes, self._counts.tolist(), strict=False)
            manifest.routes = [msgspec.structs.replace(known, rows=rows) for known, rows in counted]
            return
        manifest.routes, manifest.routes_folded = assign_routes(
            self._folder / REQUESTS, manifest.methods, self._weights, self._rules
        )
        actions = _actions_of(self._base.path / REQUESTS, base.routes, self._folder / REQUESTS)
        manifest.routes = [
            msgspec.structs.replace(route, action=actions.get(index, ""))
            for index, route in enumerate(manifest.routes)
        ]

    def _discard_dictionaries(self) -> None:
        """They are copies."""


def _rewrite_targets(old: Path, new: Path, rewrite: Callable[[bytes], bytes]) -> None:
    """A requests dictionary with other targets: ids stay."""
    mapped = MappedFile(old)
    place = REQUEST_SCHEMA.get_field_index("target")
    with pa.OSFile(os.fspath(new), "wb") as sink, pa.ipc.new_file(sink, REQUEST_SCHEMA) as file:
        for batch in open_batches(old, pa.py_buffer(mapped.raw), REQUEST_SCHEMA, checked=mapped.drop_pages):
            made = pa.array([rewrite(target.as_py()) for target in batch.column(place)], pa.large_binary())
            columns = [*batch.columns[:place], made, *batch.columns[place + 1 :]]
            file.write_batch(pa.record_batch(columns, schema=REQUEST_SCHEMA))
            mapped.drop_pages()


def _actions_of(old: Path, routes: list[Route], new: Path) -> dict[int, str]:
    """The action of each new route: that of the old route of its requests."""
    found: dict[int, str] = {}
    before, after = MappedFile(old), MappedFile(new)
    for was, now in zip(request_batches(old, before), request_batches(new, after), strict=True):
        pairs = np.unique(np.column_stack([now.route, was.route]), axis=0)
        for index, old_index in pairs.tolist():
            if action := routes[old_index].action:
                found.setdefault(index, action)
    return found


def inherited_manifest(base: Manifest, change: list[dict[str, Any]]) -> Manifest:
    """The manifest of what is made of a trace: its sources, stamps and lists stay, counts begin anew."""
    kept = msgspec.json.decode(msgspec.json.encode(base), type=Manifest)
    kept.history = [*kept.history, *change]
    if not kept.imported_lines:
        kept.imported_lines, kept.imported_rejected = kept.lines, kept.rejected
    kept.rows = kept.lines = kept.start_ns = kept.end_ns = kept.clients = 0
    kept.rejected, kept.rejected_examples, kept.segments = {}, [], []
    return kept
