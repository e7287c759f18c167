"""Reads the result of a search of `replay peak` from its folder: peak.json, with its verdict and trials."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec

from replay.decoding import examined
from replay.errors import InputError
from replay.files import read_whole

PEAK_BYTES_MAX = 64 << 20


class _Trial(msgspec.Struct):
    load: float = 0.0
    rate_per_s: float = 0.0
    length_s: float = 0.0


class FoundPeak(msgspec.Struct):
    """The verdict of a search or a surge, the peak in multiples of the recorded load, and the trials.

    A surge has neither peak nor trials.
    """

    verdict: str
    peak: float | None = None
    held_load: float | None = None
    trials: list[_Trial] = []

    @property
    def rate_per_s(self) -> float | None:
        """The planned rate of the first trial at the peak that has one; None if there is none."""
        rates = (trial.rate_per_s for trial in self.trials if trial.load == self.peak)
        return next((rate for rate in rates if rate > 0), None)


def read_peak(path: Path) -> FoundPeak:
    """Read a peak.json. Raise OSError, InputError or ValueError if it cannot be read or is invalid."""
    try:
        found = msgspec.json.decode(read_whole(path, PEAK_BYTES_MAX), type=examined(FoundPeak))
    except RecursionError:
        raise InputError("damaged: it is nested too deeply") from None
    if found.peak is not None and not (found.peak >= 0 and math.isfinite(found.peak)):
        raise ValueError(f"its peak is not a load: {found.peak}")
    return found
