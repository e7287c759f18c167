"""Maps request numbers to rows of the trace.

Requests of a run are numbered in due order. Two runs with different windows or methods number the same request
differently. Kept responses therefore refer to the row of the trace.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]


class RowNumbers(NamedTuple):
    """Stretches of adjacent rows that are sent, which give the row of every request.

    Stretch i begins with request `starts[i]` of a pass, which is row `rows[i]`. One pass over the trace has
    `rows_a_pass` requests.
    """

    starts: Int64s
    rows: Int64s
    rows_a_pass: int

    @classmethod
    def whole(cls, first_row: int, rows_a_pass: int) -> RowNumbers:
        """Return the numbers for a trace whose rows are all sent from `first_row` on."""
        return cls(np.zeros(1, np.int64), np.array([first_row], np.int64), rows_a_pass)

    @classmethod
    def of_rows(cls, batches: Iterable[Int64s], rows_a_pass: int) -> RowNumbers:
        """Return the numbers for the rows that are sent, given in batches."""
        starts, rows, sent, last = [], [], 0, -2
        for batch in batches:
            breaks = np.flatnonzero(np.diff(batch, prepend=last) != 1)
            starts.append(breaks + sent)
            rows.append(batch[breaks])
            sent += len(batch)
            last = int(batch[-1]) if len(batch) else last
        return cls(
            np.concatenate([*starts, []]).astype(np.int64),
            np.concatenate([*rows, []]).astype(np.int64),
            rows_a_pass,
        )

    def find(self, seqs: Int64s) -> tuple[Int64s, Int64s]:
        """Return the row and the pass of each request."""
        passes, places = np.divmod(seqs, self.rows_a_pass)
        stretch = np.searchsorted(self.starts, places, "right") - 1
        return self.rows[stretch] + places - self.starts[stretch], passes
