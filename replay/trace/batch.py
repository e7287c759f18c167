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
    """Events in time order, as columns of equal length (writable, contiguous).

    `at_ns` is ns since the Unix epoch; `request` indexes `Trace.requests`; `client` is a dense id; `status`,
    `took_ns` and `bytes` describe the recorded response, -1 if unknown. `response` indexes `Trace.responses`, and
    `first_byte_ns` is the time to its first byte (-1 is none); both are None if no event of the batch has either.
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
        """The columns in the order that kernels take."""
        return TraceRows(self.at_ns, self.request, self.client, self.status, self.took_ns)

    def __getitem__(self, rows: slice) -> Batch:
        """A slice of the batch."""
        if rows == slice(0, len(self)):
            return self
        return self.taken(lambda column: column[rows])

    def taken(self, of: Callable[[Any], Any], **replaced: npt.NDArray[Any]) -> Batch:
        """Events with the columns in `of`, or with the given ones."""
        columns = {
            name: of(column)
            for name in self.__slots__
            if name not in replaced and (column := getattr(self, name)) is not None
        }
        return Batch(**columns, **replaced)


def with_requests(
    batches: Iterable[Batch], requests: Requests, *, columns_alone: bool = False
) -> Iterator[Batch]:
    """Events in the same order; the requests of each batch stay loaded until the next one is requested. With
    `columns_alone`, targets, headers and bodies are not loaded.
    """
    for batch in batches:
        for rows in requests.loaded(batch.request, columns_alone=columns_alone):
            yield batch[rows]
