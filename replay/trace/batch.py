"""Events of a trace as columns, as many as fit into memory at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from replay_native.trace.columns import TraceRows

from .requests import Requests


@dataclass(frozen=True, slots=True)
class Batch:
    """Events in time order, as columns of one length (writable, contiguous).

    `at_ns` is ns since the Unix epoch; `request` indexes `Trace.requests`; `client` is a dense id; `status`,
    `took_ns` and `bytes` are what was recorded of the answer, -1 where the recording does not say.
    """

    at_ns: npt.NDArray[np.int64]
    request: npt.NDArray[np.uint32]
    client: npt.NDArray[np.uint32]
    status: npt.NDArray[np.int16]
    took_ns: npt.NDArray[np.int64]
    bytes: npt.NDArray[np.int64]

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
        return Batch(
            self.at_ns[rows], self.request[rows], self.client[rows], self.status[rows], self.took_ns[rows],
            self.bytes[rows],
        )  # fmt: skip


def with_requests(
    batches: Iterable[Batch], requests: Requests, *, columns_alone: bool = False
) -> Iterator[Batch]:
    """Events in the same order; the requests of each batch are loaded until the next one is asked for. With `columns_alone`
    without their targets, headers and bodies.
    """
    for batch in batches:
        for rows in requests.loaded(batch.request, columns_alone=columns_alone):
            yield batch[rows]
