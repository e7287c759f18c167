"""Presents a trace as Arrow record batches, with names instead of ids, for programs that read tables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .batch import Batch
from .requests import Requests

ROWS_MAX = 1 << 16
"""Maximum rows per record batch: a few megabytes."""

_NAME = pa.dictionary(pa.int32(), pa.string())

SCHEMA = pa.schema(
    [
        pa.field("at", pa.timestamp("ns", tz="UTC"), False),
        pa.field("method", _NAME, False),
        pa.field("path", pa.large_string(), False),
        pa.field("host", _NAME),
        pa.field("route", _NAME, False),
        pa.field("action", _NAME),
        pa.field("client", pa.uint32(), False),
        pa.field("status", pa.int16()),
        pa.field("took_ns", pa.int64()),
        pa.field("bytes", pa.int64()),
    ]
)
"""The columns of a trace as an Arrow table. Names are dictionary-encoded. Null means unknown or none."""

_UNSAFE = re.compile(rb"[^!-~]")


def printable(target: bytes) -> bytes:
    """Return a request target in visible ASCII, with all other bytes percent-encoded."""
    return _UNSAFE.sub(lambda match: b"%%%02X" % match[0][0], target)


class RequestColumns:
    """The dictionary of requests as Arrow columns, indexed by id.

    The requests that a caller reads must be loaded.
    """

    def __init__(self, requests: Requests) -> None:
        batches = requests.batches
        self._targets = [
            pa.Array.from_buffers(
                pa.large_binary(), len(b.method), [None, pa.py_buffer(b.offsets), pa.py_buffer(b.data)]
            )
            for b in batches
        ]
        self._indexes = {
            name: [pa.array(getattr(b, name)) for b in batches] for name in ("method", "host", "route")
        }

    def indexes(self, name: str, ids: npt.NDArray[np.uint32]) -> pa.Array:
        """Return the index of the `method`, `host` or `route` of each of these requests; -1 is none."""
        return _taken(self._indexes[name], ids)

    def targets(self, ids: npt.NDArray[np.uint32]) -> pa.Array:
        """Return the targets of these requests as text.

        If any target is not UTF-8, the bytes outside visible ASCII are percent-encoded in all of them.
        """
        targets = _taken(self._targets, ids)
        try:
            return targets.cast(pa.large_string())
        except pa.ArrowInvalid:
            return pa.array([printable(target.as_py()).decode() for target in targets], pa.large_string())


def _taken(column: list[pa.Array], ids: npt.NDArray[np.uint32]) -> pa.Array:
    """Return the values of a dictionary column, which is stored in batches, by id.

    Only these values are read, because other parts of the dictionary may not be loaded.
    """
    if len(column) == 1:
        return column[0].take(pa.array(ids))
    order = np.argsort(ids >> 20, kind="stable")
    of_batch, rows = ids[order] >> 20, ids[order] & 0xFFFFF
    parts = [column[index].take(pa.array(rows[of_batch == index])) for index in np.unique(of_batch).tolist()]
    places = np.empty(len(ids), np.int64)
    places[order] = np.arange(len(ids))
    return pa.concat_arrays(parts).take(pa.array(places))


def batches_of(events: Iterator[Batch], requests: Requests) -> pa.RecordBatchReader:
    """Return a reader of record batches for events that refer to these requests."""
    return pa.RecordBatchReader.from_batches(SCHEMA, _batches(events, requests))


def _batches(events: Iterator[Batch], requests: Requests) -> Iterator[pa.RecordBatch]:
    columns = RequestColumns(requests)
    names = {
        "method": _dictionary(requests.methods),
        "host": _dictionary(requests.hosts),
        "route": _dictionary(requests.routes),
    }
    actions, action_of = _actions(requests.actions)
    for batch in events:
        for begin in range(0, len(batch), ROWS_MAX):
            part = batch[begin : begin + ROWS_MAX]
            for rows in requests.loaded(part.request):
                yield _record_batch(part[rows], columns, names, actions, action_of)


def _record_batch(
    batch: Batch,
    columns: RequestColumns,
    names: dict[str, pa.Array],
    actions: pa.Array,
    action_of: npt.NDArray[np.int32],
) -> pa.RecordBatch:
    """Build a record batch of events whose requests are loaded.

    The data is copied, because the memory of the events is reused.
    """
    ids = batch.request
    indexes = {name: columns.indexes(name, ids).to_numpy() for name in names}
    named = {name: _named(indexes[name], names[name]) for name in names}
    return pa.record_batch(
        [
            pa.array(batch.at_ns.copy()).cast(SCHEMA.field("at").type),
            named["method"],
            columns.targets(ids),
            named["host"],
            named["route"],
            _named(action_of[indexes["route"]], actions),
            pa.array(batch.client.copy()),
            *(_known(column) for column in (batch.status, batch.took_ns, batch.bytes)),
        ],
        schema=SCHEMA,
    )


def _dictionary(names: Sequence[str]) -> pa.Array:
    return pa.array(names, pa.string())


def _actions(of_routes: Sequence[str]) -> tuple[pa.Array, npt.NDArray[np.int32]]:
    """Return the action names, and the index of each route's action; -1 is none."""
    names = sorted({action for action in of_routes if action})
    places = {name: at for at, name in enumerate(names)}
    return _dictionary(names), np.array([places.get(action, -1) for action in of_routes], np.int32)


def _named(indexes: npt.NDArray[np.int32], names: pa.Array) -> pa.Array:
    """Return a dictionary-encoded column of names from their indexes; -1 becomes null."""
    indexes = indexes.astype(np.int32)
    return pa.DictionaryArray.from_arrays(pa.array(indexes, mask=indexes < 0), names)


def _known(column: npt.NDArray[np.signedinteger]) -> pa.Array:
    """Return a column of recorded values in which -1 becomes null."""
    return pa.array(column.copy(), mask=column < 0)
