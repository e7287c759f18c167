"""The figures that the verdict on a run is based on, and its limits."""

from __future__ import annotations

import msgspec

from .host import RunDelay


class ValidityLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every threshold of the verdict.

    Shares range from 0 to 1. Shares for `lateness` and `own` delays refer to the latency without the delay. A delay
    up to its `_floor_ns` is never a fault.
    """

    lateness_p50_share_suspect: float = 0.10
    lateness_p50_share_invalid: float = 0.25
    lateness_p50_floor_suspect_ns: int = 100_000
    lateness_p50_floor_invalid_ns: int = 250_000
    lateness_p90_share_suspect: float = 0.25
    lateness_p90_share_invalid: float = 0.50
    lateness_p90_floor_suspect_ns: int = 500_000
    lateness_p90_floor_invalid_ns: int = 1_000_000
    lateness_p99_share_suspect: float = 0.50
    lateness_p99_floor_suspect_ns: int = 5_000_000
    own_p50_share_suspect: float = 0.20
    own_p50_share_invalid: float = 0.50
    own_p50_floor_suspect_ns: int = 1_000_000
    own_p50_floor_invalid_ns: int = 2_000_000
    own_p90_share_suspect: float = 0.25
    own_p90_share_invalid: float = 1.00
    own_p90_floor_suspect_ns: int = 2_000_000
    own_p90_floor_invalid_ns: int = 5_000_000
    own_p99_share_suspect: float = 0.20
    own_p99_floor_suspect_ns: int = 5_000_000
    unread_p99_floor_suspect_ns: int = 1_500_000
    unsent_own_share_suspect: float = 0.001
    unsent_own_share_invalid: float = 0.05
    lost_share_named: float = 0.01
    generator_share_suspect: float = 0.0001
    generator_share_invalid: float = 0.01
    underrun_share_suspect: float = 0.001
    underrun_share_invalid: float = 0.05
    throttled_share_suspect: float = 0.01
    throttled_share_invalid: float = 0.10
    steal_share_suspect: float = 0.20
    run_delay_share_suspect: float = 0.40
    run_delay_share_invalid: float = 0.60
    run_delay_mean_floor_ns: int = 30_000
    run_delay_felt_share_suspect: float = 0.10
    run_delay_felt_share_invalid: float = 0.50
    busy_share_full: float = 0.95


class Quantiles(msgspec.Struct, frozen=True, kw_only=True):
    """Three quantiles of a latency in ns, and the number of values."""

    count: int
    p50_ns: int
    p90_ns: int
    p99_ns: int


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """The figures that the verdict is based on.

    A figure that may be None is None if it is unknown. A closed loop has neither lateness nor response times. The
    `_net` latencies exclude the generator's delays; `response_arrived` excludes the time for which a response lay
    unread. They are None if the engine does not measure them.
    """

    planned: int
    sent: int
    response: Quantiles | None = None
    service: Quantiles | None = None
    lateness: Quantiles | None = None
    response_net: Quantiles | None = None
    service_net: Quantiles | None = None
    response_arrived: Quantiles | None = None
    unsent_own: int = 0
    lost_share: float = 0.0
    gap_max_ns: int = 0
    generator_errors: int = 0
    underruns: int = 0
    throttled_share: float | None = None
    steal_share: float | None = None
    run_delay: RunDelay | None = None
    busy_share: float = 0.0
    lanes_lost: int = 0
    imbalance: str = ""
