"""Converts a histogram to an object of the `hdrhistogram` package.

It is for tools that add up, encode or iterate over such objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from hdrh.histogram import HdrHistogram

from .histogram import NS_3, Histogram, Layout
from .percentiles import rank


class RunHistogram(HdrHistogram):  # type: ignore[misc]
    """Nanoseconds of a run, as an `hdrh.histogram.HdrHistogram`.

    Its percentiles are those of the run's reports, which follow Java's rule. The package itself rounds, and may differ
    by a rank.
    """

    def __init__(self, histogram: Histogram, stated: Callable[[int], int] = int) -> None:
        """Copy the counters of a histogram of a run.

        `stated` returns the figure that the run reports for a value of the histogram. It matters for values at the
        upper end of the range (an hour), which are only lower bounds.
        """
        layout = histogram.layout
        super().__init__(layout.lowest, layout.highest, layout.digits)
        self._stated = stated
        if self.counts_len != histogram.counts.size:
            raise ValueError(f"the package has {self.counts_len} counters where this histogram has {layout}")
        np.frombuffer(self.counts, np.uint64)[:] = histogram.counts
        used = np.flatnonzero(histogram.counts)
        if len(used):
            self.set_internal_tacking_values(int(used[0]), int(used[-1]), histogram.count)

    def get_target_count_at_percentile(self, percentile: float) -> int:
        """Return the rank of a percentile by Java's rule (`replay.ledger.percentiles`)."""
        return rank(percentile, self.total_count)

    def get_value_at_percentile(self, percentile: float) -> int:
        """Return the value at a percentile (0 to 100) in ns, as the run reports it."""
        return self._stated(int(super().get_value_at_percentile(percentile)))

    def get_percentile_to_value_dict(self, percentile_list: Iterable[float]) -> dict[float, int]:
        """Return the values at several percentiles in ns, as the run reports them."""
        found = super().get_percentile_to_value_dict(list(percentile_list))
        return {percentile: self._stated(int(value)) for percentile, value in found.items()}

    def __repr__(self) -> str:
        return (
            f"<RunHistogram: {self.total_count:,} values, p50 {self.get_value_at_percentile(50):,} ns,"
            f" p99 {self.get_value_at_percentile(99):,} ns>"
        )


def to_package(
    histogram: Histogram | None, stated: Callable[[int], int] = int, layout: Layout = NS_3
) -> RunHistogram:
    """Convert a histogram to an object of the package; None becomes an empty one."""
    return RunHistogram(histogram or Histogram(np.zeros(layout.length, np.uint64), layout), stated)
