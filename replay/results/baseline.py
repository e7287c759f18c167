"""The rule by which a target counts as similar to its baseline.

Recovery from a surge, cool-downs and diagnoses share it.
"""

from __future__ import annotations

P50_TIMES, P50_FLOOR_NS = 2.0, 5_000_000
"""A median of up to twice the baseline's, or up to 5 ms above it, counts as similar."""

FAILED_MORE = 0.01
"""A share of failures up to this much above the baseline's counts as similar."""


def slow_from_ns(base_p50_ns: float) -> float:
    """Return the median above which a target counts as slower than its baseline."""
    return max(P50_TIMES * base_p50_ns, base_p50_ns + P50_FLOOR_NS)


def like_baseline(
    p50_ns: float | None, failed_share: float, base_p50_ns: float | None, base_failed_share: float
) -> bool:
    """Return whether a median and a share of failures are similar to the baseline's.

    An unknown median counts as similar.
    """
    if failed_share > base_failed_share + FAILED_MORE:
        return False
    if p50_ns is None or base_p50_ns is None:
        return True
    return p50_ns <= slow_from_ns(base_p50_ns)
