"""Counts the bodies of requests and of recorded responses in a trace, by media type."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .batch import with_requests
from .reader import Trace
from .responses import media_type

Int64s = npt.NDArray[np.int64]

NO_TYPE = ""
"""The media type under which messages without one are listed."""


@dataclass(frozen=True, slots=True)
class TypeShare:
    """The messages of one media type.

    `sized` is the number of messages with a known size, and `bytes` their total size.
    """

    type: str
    messages: int
    sized: int
    bytes: int


@dataclass(frozen=True, slots=True)
class BodySummary:
    """The bodies of requests and of recorded responses; their types are sorted by frequency.

    `requests` is the number of requests with a body, and `distinct` the number of different bodies.
    """

    requests: int
    distinct: int
    bytes: int
    types: list[TypeShare]
    responses: int
    response_bodies: int
    response_bodies_cut: int
    response_types: list[TypeShare]


class _Counts:
    """Counters of messages and bytes by media type."""

    def __init__(self) -> None:
        self.names: dict[str, int] = {}
        self._sums = np.zeros((3, 1), np.int64)

    def number(self, name: str) -> int:
        return self.names.setdefault(name, len(self.names))

    def add(self, types: Int64s, sizes: Int64s) -> None:
        """Add messages of these types with these body sizes; -1 is an unknown size."""
        width = max(len(self.names), self._sums.shape[1])
        self._sums = np.pad(self._sums, ((0, 0), (0, width - self._sums.shape[1])))
        known = sizes >= 0
        self._sums[0] += np.bincount(types, minlength=width)
        self._sums[1] += np.bincount(types[known], minlength=width)
        self._sums[2] += np.bincount(types[known], weights=sizes[known], minlength=width).astype(np.int64)

    @property
    def bytes(self) -> int:
        return int(self._sums[2].sum())

    def shares(self) -> list[TypeShare]:
        found = [TypeShare(name, *self._sums[:, index].tolist()) for name, index in self.names.items()]
        return sorted((share for share in found if share.messages), key=lambda share: -share.messages)


def _request_bodies(trace: Trace, counts: _Counts) -> tuple[int, int]:
    """Count the request bodies by media type, and return how many there are and how many are distinct."""
    requests = trace.requests
    sizes = requests.body_sizes()
    if not len(sizes):
        return 0, 0
    raw_types, of_set = requests.content_types()
    numbers = [counts.number(media_type(((b"content-type", value),))) for value in raw_types]
    type_of_set = np.array([*numbers, counts.number(NO_TYPE)], np.int64)[np.append(of_set, -1)]
    found, used = 0, np.zeros(len(sizes), bool)
    for batch in with_requests(trace.batches(), requests, columns_alone=True):
        body = requests.column("body", batch.request)
        with_body = body >= 0
        ids = body[with_body]
        counts.add(type_of_set[requests.column("headers", batch.request)[with_body]], sizes[ids])
        used[ids] = True
        found += len(ids)
    return found, int(np.count_nonzero(used))


def _responses(trace: Trace, counts: _Counts) -> None:
    """Count the recorded responses by media type."""
    types, sizes = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for names, some in trace.responses.types():
        types.append(np.array([counts.number(name) for name in names], np.int64))
        sizes.append(some)
    type_of, size_of = np.concatenate(types), np.concatenate(sizes)
    for response in _response_ids(trace):
        counts.add(type_of[response], size_of[response])


def _response_ids(trace: Trace) -> Iterator[npt.NDArray[np.int32]]:
    for batch in trace.batches():
        if batch.response is not None:
            yield batch.response[batch.response >= 0]


def summarize_bodies(trace: Trace) -> BodySummary:
    """Read the events of a trace and summarize its bodies and responses.

    The events are not read if the trace has neither. Raises InputError if the trace is damaged.
    """
    manifest, of_requests, of_responses = trace.manifest, _Counts(), _Counts()
    found, distinct = _request_bodies(trace, of_requests)
    if manifest.responses:
        _responses(trace, of_responses)
    return BodySummary(
        requests=found,
        distinct=distinct,
        bytes=of_requests.bytes,
        types=of_requests.shares(),
        responses=manifest.responses,
        response_bodies=manifest.response_bodies,
        response_bodies_cut=manifest.response_bodies_cut,
        response_types=of_responses.shares(),
    )
