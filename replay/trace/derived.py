"""Writes a trace that reuses the dictionaries of another trace, so that ids stay the same."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from replay.decoding import examined
from replay_native.ground.jit import warm
from replay_native.workload import scale as kernels

from .blocks import CheckedFile, PagedFile
from .columns import REQUEST_SCHEMA, open_paged
from .manifest import FORMAT_VERSION, PLAIN_VERSION, FileSums, Manifest, Route
from .reader import Trace
from .requests import (
    BODIES,
    HEADERS,
    REQUESTS,
    REQUESTS_BUDGET_BYTES,
    request_batches,
)
from .responses import RESPONSE_BODIES, RESPONSE_HEADERS, RESPONSES
from .route_rules import RouteRules
from .routes import assign_routes
from .sums import READ_BYTES
from .writer import TraceWriter


class DerivedTraceWriter(TraceWriter):
    """A TraceWriter whose events refer by id to the requests and responses of another trace, `base`.

    Requests cannot be added. With `rewrite`, the targets are replaced, and the routes are assigned again. The
    manifest continues that of `base`, with `change` added to its history.
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
        base = self._base
        for name in (REQUESTS, HEADERS, BODIES, RESPONSES, RESPONSE_HEADERS, RESPONSE_BODIES):
            if base.has_file(name) and (name != REQUESTS or self._rewrite is None):
                _copy_checked(base.path / name, base.manifest.files.get(name), self._folder / name)
        if self._rewrite is not None:
            _rewrite_targets(_requests_of(base), self._folder / REQUESTS, self._rewrite)
            self._weights = np.zeros(self._base.manifest.requests, np.int64)
        self._table = self._base.requests.addresses()
        self._routes = np.arange(len(self._base.manifest.routes), dtype=np.int64)
        self._counts = np.zeros(len(self._routes) + 1, np.int64)
        self._found = np.empty(kernels.COUNTED_AT_ONCE, np.int64)

    def _kept_responses(self) -> npt.NDArray[np.uint8]:
        if not len(self._kept):
            self._kept = self._base.responses.kept()
        return self._kept

    def _weigh(self, request: npt.NDArray[np.uint32]) -> None:
        if self._rewrite is not None:
            super()._weigh(request)
            return
        for rows in self._base.requests.loaded(request, columns_alone=True):
            kernels.count_classes(request[rows], self._table, self._routes, self._found, self._counts)

    def _end_dictionaries(self) -> None:
        """Do nothing, because the dictionaries are complete from the start."""

    def _close_dictionaries(self) -> None:
        base, manifest = self._base.manifest, self.manifest
        if self._rewrite is None:
            counted = zip(base.routes, self._counts.tolist(), strict=False)
            manifest.routes = [msgspec.structs.replace(known, rows=rows) for known, rows in counted]
            return
        manifest.routes, manifest.routes_folded = assign_routes(
            self._folder / REQUESTS, manifest.methods, self._weights, self._rules
        )
        rewritten = PagedFile(self._folder / REQUESTS, None, REQUESTS_BUDGET_BYTES)
        actions = _actions_of(_requests_of(self._base), base.routes, rewritten)
        manifest.routes = [
            msgspec.structs.replace(route, action=actions.get(index, ""))
            for index, route in enumerate(manifest.routes)
        ]

    def _discard_dictionaries(self) -> None:
        """Do nothing, because there are no temporary files."""


def _requests_of(trace: Trace) -> PagedFile:
    """Open the requests dictionary of a trace, separately from the trace itself."""
    return PagedFile(trace.path / REQUESTS, trace.manifest.files.get(REQUESTS), REQUESTS_BUDGET_BYTES)


def _copy_checked(old: Path, sums: FileSums | None, new: Path) -> None:
    """Copy a file of a trace, and check it while it is read.

    Raises InputError if it is damaged: the copy gets new checksums, which would hide the damage.
    """
    source, buffer = CheckedFile(old, sums), np.empty(READ_BYTES, np.uint8)
    try:
        with new.open("wb") as file:
            for at in range(0, source.size, READ_BYTES):
                piece = buffer[: min(READ_BYTES, source.size - at)]
                source.read(piece, at)
                file.write(piece.data)
    finally:
        source.close()


def _rewrite_targets(old: PagedFile, new: Path, rewrite: Callable[[bytes], bytes]) -> None:
    """Write a copy of a requests dictionary with rewritten targets and the same ids."""
    place = REQUEST_SCHEMA.get_field_index("target")
    with pa.OSFile(os.fspath(new), "wb") as sink, pa.ipc.new_file(sink, REQUEST_SCHEMA) as file:
        for batch in open_paged(old, REQUEST_SCHEMA):
            made = pa.array([rewrite(target.as_py()) for target in batch.column(place)], pa.large_binary())
            columns = [*batch.columns[:place], made, *batch.columns[place + 1 :]]
            file.write_batch(pa.record_batch(columns, schema=REQUEST_SCHEMA))


def _actions_of(old: PagedFile, routes: list[Route], new: PagedFile) -> dict[int, str]:
    """Return the action of each new route, taken from an old route of the same requests."""
    found: dict[int, str] = {}
    for was, now in zip(request_batches(old), request_batches(new), strict=True):
        pairs = np.unique(np.column_stack([now.route, was.route]), axis=0)
        for index, old_index in pairs.tolist():
            if action := routes[old_index].action:
                found.setdefault(index, action)
    return found


def inherited_manifest(base: Manifest, change: list[dict[str, Any]]) -> Manifest:
    """Return the manifest for a trace derived from `base`.

    Sources, options, the number of requests, and the lists of methods, hosts and routes are kept. The counts of events,
    lines, clients and responses start at 0; rejected lines, segments and files start empty.
    """
    kept = msgspec.json.decode(msgspec.json.encode(base), type=examined(Manifest))
    kept.history = [*kept.history, *change]
    if not kept.imported_lines:
        kept.imported_lines, kept.imported_rejected = kept.lines, kept.rejected
    kept.rows = kept.lines = kept.start_ns = kept.end_ns = kept.clients = 0
    kept.responses = kept.response_bodies = kept.response_bodies_cut = 0
    kept.rejected, kept.rejected_examples, kept.segments = {}, [], []
    kept.format_version = (
        FORMAT_VERSION if BODIES in base.files and base.format_version == FORMAT_VERSION else PLAIN_VERSION
    )
    kept.files = {}
    return kept
