"""The targets of a run, each with its own lanes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from replay.ledger.accounts import COUNTED, Accounts, AccountsDetail, Unbalanced, balance, sum_counters
from replay_native.ledger.lane_metrics import LaneMetrics

from .document import KafkaFigures, Started, TargetFigures, TargetStart, TlsFigures
from .facts import Facts
from .latency_figures import latencies_of
from .measured import Measured, from_metrics


class Share(NamedTuple):
    """The part of a run that belongs to one target."""

    start: TargetStart
    all_metrics: Sequence[LaneMetrics]
    measured: Measured
    kafka: KafkaFigures | None


def shares_of(
    all_metrics: Sequence[LaneMetrics], started: Started, facts: Facts, measured: Measured
) -> list[Share]:
    """Divide the lanes of a run among its targets, in the order of the targets."""
    starts = started.targets or [TargetStart(target=started.target, lanes=len(all_metrics))]
    figures = [*facts.kafka, *[None] * len(starts)]
    shares, first = [], 0
    for start, kafka in zip(starts, figures, strict=False):
        own = all_metrics[first : first + start.lanes]
        first += start.lanes
        of = measured if len(starts) == 1 else from_metrics(own, started.routes, started.max_wait_ns)
        shares.append(Share(start, own, of, kafka))
    return shares


def target_figures(shares: Sequence[Share], started: Started, facts: Facts) -> list[TargetFigures]:
    """Return the figures of each target.

    If the accounts of a target do not balance, the accounts of the run do not balance either, and its verdict reports
    it.
    """
    return [
        TargetFigures(
            target=share.start.target,
            engine=share.start.engine,
            lanes=share.start.lanes,
            accounts=balanced(
                [metrics.counters for metrics in share.all_metrics], share.start.skipped, facts
            )[0],
            latency=latencies_of(share.measured, started.closed_loop, [share.kafka]),
            kafka=share.kafka,
            tls=tls_figures(share),
        )
        for share in shares
    ]


def balanced(
    counters: Sequence[np.ndarray], skipped: dict[str, int], facts: Facts
) -> tuple[Accounts, AccountsDetail, str]:
    """Return the accounts of these lanes, their details, and a description of the error if they do not balance.

    If they do not balance, the accounts are the sums of the lanes' counters.
    """
    try:
        return *balance(counters, skipped=skipped, killed=facts.ending.how == "killed"), ""
    except Unbalanced as error:
        by_name = sum_counters(counters)
        counted = Accounts(**{name: by_name[name] for name in COUNTED})
        return counted, AccountsDetail(skipped=skipped), str(error)


def tls_figures(share: Share) -> TlsFigures | None:
    """Return the TLS figures of a target; None if it does not use TLS."""
    if share.start.tls is None:
        return None
    by_name = sum_counters([metrics.counters for metrics in share.all_metrics])
    counts = {name: by_name[name] for name in TlsFigures.__struct_fields__ if name.startswith("handshakes_")}
    return TlsFigures(peer=share.start.tls, **counts)
