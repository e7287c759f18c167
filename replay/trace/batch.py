"""Events of a trace as columns, in batches that fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from replay_native.trace.columns import TraceRows

from .requests import Requests


@dataclass(frozen=True, slots=True)
class Batch:
    """Events as writable, contiguous columns of equal length.

    They are in time order, except in the output of a transform that is not `ordered`.

    `at_ns` is in ns since the Unix epoch. `request` indexes `Trace.requests`, and `client` is a dense id. `status`,
    `took_ns` and `bytes` describe the recorded response; -1 is unknown.

    `response` indexes `Trace.responses`, and `first_byte_ns` is the time to the first byte of the response; -1 is
    none. Both are None if no event of the batch has either.
    """

    at_ns: npt.NDArray[np.int64]
    request: npt.NDArray[np.uint32]
    client: npt.NDArray[np.uint32]
    status: npt.NDArray[np.int16]
    took_ns: npt.NDArray[np.int64]
    bytes: npt.NDArray[np.int64]
    response: npt.NDArray[np.int32] | None = None
    first_byte_ns: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.at_ns)

    @property
    def rows(self) -> TraceRows:
        """Return the columns that kernels take, in their order; `bytes` and those of responses are left out."""
        return TraceRows(self.at_ns, self.request, self.client, self.status, self.took_ns)

    def __getitem__(self, rows: slice) -> Batch:
        if rows == slice(0, len(self)):
            return self
        return self.taken(lambda column: column[rows])

    def taken(self, of: Callable[[Any], Any], **replaced: npt.NDArray[Any]) -> Batch:
        """Return a batch whose columns are `of(column)`, except for the columns in `replaced`."""
        columns = {
            name: of(column)
            for name in self.__slots__
            if name not in replaced and (column := getattr(self, name)) is not None
        }
        return Batch(**columns, **replaced)


def with_requests(
    batches: Iterable[Batch], requests: Requests, *, columns_alone: bool = False
) -> Iterator[Batch]:
    """Yield the events in the same order, in batches whose requests are loaded.

    The requests of a batch stay loaded until the next batch is requested. With `columns_alone`, targets, headers
    and bodies are not loaded.
    """
    for batch in batches:
        for rows in requests.loaded(batch.request, columns_alone=columns_alone):
            yield batch[rows]
