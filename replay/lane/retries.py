"""Converts a scenario's [retry] table to the settings of a lane."""

from __future__ import annotations

import numpy as np

from replay.settings.kinds import statuses_of
from replay.settings.scenario import Scenario
from replay_native.lane.retry import FAILURE, PPM, RETRY_ON
from replay_native.ledger.lane_metrics import OUTCOMES

from .contract import Retry


def retry_of(scenario: Scenario) -> Retry | None:
    """Return the retry settings of a lane; None without retries."""
    given = scenario.retry
    if given.attempts == 1:
        return None
    on = np.zeros(RETRY_ON, np.uint8)
    for name in given.on:
        on[statuses_of(name)] = 1
        if name in OUTCOMES:
            on[FAILURE + OUTCOMES.index(name)] = 1
    return Retry(
        on=on,
        attempts=given.attempts,
        backoff_ns=int(given.backoff_ns),
        backoff_max_ns=int(given.backoff_max_ns),
        jitter_ppm=round(given.jitter * PPM),
        budget_ppm=-1 if given.budget is None else round(given.budget * PPM),
        burst_ppm=given.budget_burst * PPM,
        all_methods=given.methods == "all",
        seed=scenario.seed,
    )
