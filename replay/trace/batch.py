"""Events of a trace as columns, as many as fit into memory at once."""

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
    """Events in time order, as columns of one length (writable, contiguous).

    `at_ns` is ns since the Unix epoch; `request` indexes `Trace.requests`; `client` is a dense id; `status`,
    `took_ns` and `bytes` are what was recorded of the response, -1 where the recording does not say. `response` indexes
    `Trace.responses`, and `first_byte_ns` is the time to its first byte (-1 is none); both are None where no event of the
    batch has either.
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
        """As kernels take them."""
        return TraceRows(self.at_ns, self.request, self.client, self.status, self.took_ns)

    def __getitem__(self, rows: slice) -> Batch:
        """A stretch of it."""
        if rows == slice(0, len(self)):
            return self
        return self.taken(lambda column: column[rows])

    def taken(self, of: Callable[[Any], Any], **replaced: npt.NDArray[Any]) -> Batch:
        """Events whose columns are `of` these columns, or those given."""
        columns = {
            name: of(column)
            for name in self.__slots__
            if name not in replaced and (column := getattr(self, name)) is not None
        }
        return Batch(**columns, **replaced)


def with_requests(
    batches: Iterable[Batch], requests: Requests, *, columns_alone: bool = False
) -> Iterator[Batch]:
    """Events in the same order; the requests of each batch are loaded until the next one is asked for. With `columns_alone`
    without their targets, headers and bodies.
    """
    for batch in batches:
        for rows in requests.loaded(batch.request, columns_alone=columns_alone):
            yield batch[rows]
