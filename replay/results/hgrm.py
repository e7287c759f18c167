"""The percentile distribution as text (`.hgrm`).

The format is that of Java's `outputPercentileDistribution`, with values in ms.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from replay.errors import OutputError, reason_of
from replay.files import replacing
from replay.ledger.histogram import Histogram

TICKS_PER_HALF_DISTANCE = 5
NS_PER_MS = 1e6
NAME_BYTES_MAX = 240
"""File systems allow 255 bytes; the suffix and a temporary name need some of them."""


@dataclass(frozen=True, slots=True)
class Tick:
    """A row: a value (ns), its percentile (0 to 100), and the number of values up to it."""

    value: int
    percentile: float
    total: int


def ticks(histogram: Histogram, per_half_distance: int = TICKS_PER_HALF_DISTANCE) -> Iterator[Tick]:
    """Yield the percentile spectrum: `per_half_distance` steps every time the distance to 100% halves.

    As in `org.HdrHistogram.PercentileIterator`, a value may have several steps. The last value has one step, and then
    100%.
    """
    count, seen, level = histogram.count, 0, 0.0
    values = histogram.values()
    for index in np.flatnonzero(histogram.counts):
        value = int(values[index])
        seen += int(histogram.counts[index])
        while 100.0 * seen / count >= level:
            yield Tick(value, level, seen)
            if seen == count:
                break
            halvings = int(math.log(100.0 / (100.0 - level)) / math.log(2)) + 1
            level += 100.0 / (per_half_distance * 2**halvings)
        if seen == count:
            yield Tick(value, 100.0, seen)


def distribution(histogram: Histogram, scale: float = NS_PER_MS) -> str:
    """Return the text of a `.hgrm` file, with values divided by `scale`."""
    digits = histogram.layout.digits
    rows = [f"{'Value':>12} {'Percentile':>14} {'TotalCount':>10} {'1/(1-Percentile)':>14}\n\n"]
    for tick in ticks(histogram):
        share = tick.percentile / 100.0
        row = f"{tick.value / scale:12.{digits}f} {share:2.12f} {tick.total:10d}"
        rows.append(f"{row} {1 / (1.0 - share):14.2f}\n" if tick.percentile != 100.0 else f"{row}\n")
    mean, deviation = histogram.mean_and_deviation()
    layout = histogram.layout
    rows += [
        f"#[Mean    = {mean / scale:12.{digits}f}, StdDeviation   = {deviation / scale:12.{digits}f}]\n",
        f"#[Max     = {histogram.max / scale:12.{digits}f}, Total count    = {histogram.count:12d}]\n",
        f"#[Buckets = {layout.buckets:12d}, SubBuckets     = {layout.sub_buckets:12d}]\n",
    ]
    return "".join(rows)


def export(histograms: dict[str, Histogram], folder: str | os.PathLike[str]) -> list[Path]:
    """Write one `.hgrm` file per histogram into `folder`, and return the paths.

    The folder is created if it is missing. Raise OutputError if writing fails.
    """
    written = []
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        for tag, histogram in histograms.items():
            path = Path(folder) / f"{_file_name(tag)}.hgrm"
            with replacing(path) as file:
                file.write(distribution(histogram).encode("ascii"))
            written.append(path)
    except OSError as error:
        raise OutputError(f"{error.filename or folder} cannot be written: {reason_of(error)}") from None
    return written


def _file_name(tag: str) -> str:
    """Return a tag as a file name of at most NAME_BYTES_MAX bytes, with each slash as `%2F`.

    The tags of a run do not contain `%2F`, so the replacement keeps them distinct. A tag that is too long is cut, and
    ends with a digest of the whole tag.
    """
    name = tag.replace("/", "%2F").encode()
    if len(name) > NAME_BYTES_MAX:
        mark = b"~" + hashlib.sha256(name).hexdigest()[:12].encode()
        name = name[: NAME_BYTES_MAX - len(mark)] + mark
    return name.decode(errors="ignore")
