"""Kafka under the same clock: the one room that imports aiokafka."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replay.scenario import Target

if TYPE_CHECKING:
    from replay.engine.run import Fit


def fit_for(target: Target) -> Fit | None:
    """What fits a run to this target; None where it is not Kafka."""
    if not target.is_kafka:
        return None
    from .fit import fit

    return fit
