"""Transforms of a stream of events. Each is a step: it receives and yields events, in time order unless noted.

Steps do not hold a trace in memory. Random draws depend on the seed and on the number of the event in the
stream (or of its client), so the same seed gives the same events, however they are batched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from replay.settings.kinds import Scale, setting_text
from replay.trace import Batch, Requests, ReusedBuffers, with_requests
from replay_native.workload import scale as kernels

from .rules import classes_of, classes_to_scale

OUTPUT_ROWS = 1 << 20
"""Maximum rows per batch of a step that adds events, unless a factor needs more."""

Events = Callable[[], Iterator[Batch]]
"""Starts reading a stream of events; each call reads it again from the beginning."""

_ROUNDED_ROWS = 1 << 16
"""Memory for rows is taken in multiples of this, so that it fits the next batch, too."""

_COLUMN_BYTES = 8
"""Maximum bytes per value of a column."""

Int64s = npt.NDArray[np.int64]


class Step(Protocol):
    """A transform of a stream of events."""

    @property
    def ordered(self) -> bool:
        """Whether the output is in time order."""

    def record(self) -> dict[str, Any]:
        """Return the entry for the trace's history. Steps with equal entries produce equal events."""

    def apply(self, events: Events, requests: Requests) -> Iterator[Batch]:
        """Yield the events that the transform makes of a stream."""


class Memory:
    """Memory for the batches that a step makes, reused as soon as nothing refers to it."""

    def __init__(self) -> None:
        self._buffers = ReusedBuffers()
        self._columns = ReusedBuffers()

    def empty(self, rows: int, dtype: type[np.int64] | type[np.uint32]) -> npt.NDArray[Any]:
        """Return an uninitialized column."""
        return self._columns.take(np.dtype(dtype).itemsize * rows).view(dtype)

    def taken(self, batch: Batch, rows: Int64s, **replaced: npt.NDArray[Any]) -> Batch:
        """Return rows of a batch by their indices, with some columns replaced."""
        count = len(rows)
        stride = _COLUMN_BYTES * (count // _ROUNDED_ROWS + 1) * _ROUNDED_ROWS
        memory = self._buffers.take(stride * len(Batch.__slots__))
        places = iter(range(0, len(memory), stride))

        def copied(column: npt.NDArray[Any]) -> npt.NDArray[Any]:
            begin = next(places)
            out = memory[begin : begin + column.itemsize * count].view(column.dtype)
            word, take = _TAKES[column.itemsize]
            take(column.view(word), rows, out.view(word))
            return out

        return batch.taken(copied, **replaced)


_TAKES = {
    8: (np.uint64, kernels.take_words), 4: (np.uint32, kernels.take_halves), 2: (np.uint16, kernels.take_quarters)
}  # fmt: skip
"""By the size of a value: the type as which a kernel copies it, and the kernel."""


@dataclass(frozen=True, slots=True)
class Keep:
    """Keeps only the events of some routes, or drops them (`without`)."""

    routes: tuple[str, ...]
    without: bool = False
    ordered = True

    def record(self) -> dict[str, Any]:
        """Return the entry for the trace's history."""
        return {"transform": "without" if self.without else "only", "routes": list(self.routes)}

    def apply(self, events: Events, requests: Requests) -> Iterator[Batch]:
        """Yield the events that are kept."""
        classes = classes_of(requests, self.routes, "--without" if self.without else "--only")
        if self.without:
            classes = np.where(classes < 0, 0, -1).astype(np.int64)
        table, memory = requests.addresses(), Memory()
        for batch in with_requests(events(), requests, columns_alone=True):
            kept = memory.empty(len(batch), np.int64)
            count = kernels.keep_classes(batch.request, table, classes, kept)
            if count:
                yield memory.taken(batch, kept[:count])


@dataclass(frozen=True, slots=True)
class Sample:
    """Keeps a random share of the events (Bernoulli thinning), or of the clients with all their events."""

    share: float
    by: Literal["request", "client"]
    seed: int
    ordered = True

    def record(self) -> dict[str, Any]:
        """Return the entry for the trace's history."""
        return {"transform": "sample", "share": self.share, "by": self.by, "seed": self.seed}

    def apply(self, events: Events, requests: Requests) -> Iterator[Batch]:
        """Yield the sampled events."""
        first, seed, memory = 0, np.uint64(self.seed), Memory()
        for batch in events():
            kept = memory.empty(len(batch), np.int64)
            if self.by == "client":
                count = kernels.thin_clients(batch.client, seed, self.share, kept)
            else:
                count = kernels.thin_requests(len(batch), seed, self.share, first, kept)
            first += len(batch)
            if count:
                yield memory.taken(batch, kept[:count])


@dataclass(frozen=True, slots=True)
class Grow:
    """Multiplies each route's events by its factor: adds events by gap interpolation, removes events by sampling.

    The result is exact; only the total of a rule is rounded. Copies of an event are spread uniformly over the
    gap since the previous event under the same rule. With `repeat` (for comparison) all copies get the event's
    own timestamp.
    """

    scale: Scale
    seed: int
    repeat: bool = False

    @property
    def ordered(self) -> bool:
        """Whether the output is in time order.

        With factors by route it is not, because copies of one route's events reach back before events of other
        routes.
        """
        return len(self.scale) == 1 and not self.scale[0][0]

    def record(self) -> dict[str, Any]:
        """Return the entry for the trace's history."""
        return {
            "transform": "scale", "scale": setting_text(self.scale), "seed": self.seed,
            "grow": "repeat" if self.repeat else "requests",
        }  # fmt: skip

    def apply(self, events: Events, requests: Requests) -> Iterator[Batch]:
        """Yield the events that are kept, and the copies."""
        factors = np.array([factor for _, factor in self.scale], np.float64)
        classes = classes_to_scale(requests, self.scale)
        table, routes = requests.addresses(), np.arange(len(classes), dtype=np.int64)
        no_clients = np.empty(0, np.uint32)
        counts, found = np.zeros(len(routes) + 1, np.int64), np.empty(kernels.COUNTED_AT_ONCE, np.int64)
        for batch in with_requests(events(), requests, columns_alone=True):
            kernels.count_classes(batch.request, table, routes, found, counts)
        whole = np.floor(factors).astype(np.int64)
        states = np.zeros((len(routes), kernels.ROUTE_WORDS), np.int64)
        states[:, kernels.LEFT] = counts[:-1]
        states[:, kernels.EXTRA] = once_more(counts[:-1], classes, factors, self.seed)
        before_ns = np.full(len(factors), kernels.KEPT, np.int64)
        growth = kernels.Growth(classes, whole, states, before_ns, self.seed, self.repeat)
        first = 0
        rows = max(OUTPUT_ROWS, 2 * int(whole.max()))
        memory, source = Memory(), np.empty(rows, np.int64)
        for batch in events():
            begin = 0
            while begin < len(batch):
                at_ns = memory.empty(rows, np.int64)
                # The consumer may load other requests between two yields, so this batch's are loaded each time.
                end = begin + requests.load_columns(batch.request[begin:])
                out = kernels.Copies(at_ns, source, no_clients)
                count, begin = kernels.grow(batch[:end].rows, begin, table, growth, first, out)
                if count:
                    yield memory.taken(batch, source[:count], at_ns=at_ns[:count])
            first += len(batch)


def once_more(counts: Int64s, classes: Int64s, factors: npt.NDArray[np.float64], seed: int) -> Int64s:
    """Return how many of each route's events get one copy more than the whole part of their rule's factor.

    The total of a rule is exact, rounded to the nearest integer, and each route is exact to one event. The
    largest remainders are rounded up (Hamilton's method), with ties broken by the seed.
    """
    more, ties = np.zeros(len(counts), np.int64), np.empty(len(counts))
    kernels.draw_ties(np.uint64(seed), ties)
    for number, factor in enumerate(factors):
        routes = np.flatnonzero(classes == number)
        rows, whole = int(counts[routes].sum()), int(factor)
        exact = counts[routes] * (factor - whole)
        more[routes] = np.floor(exact)
        left = int(np.rint(rows * factor)) - rows * whole - int(more[routes].sum())
        first = np.lexsort((ties[routes], more[routes] - exact))
        more[routes[first[: max(left, 0)]]] += 1
    return more


@dataclass(frozen=True, slots=True)
class Speed:
    """Speeds up or slows down by rescaling the timestamps, and with them every time scale of the recording."""

    factor: float
    origin_ns: int
    ordered = True

    def record(self) -> dict[str, Any]:
        """Return the entry for the trace's history."""
        return {"transform": "speed", "factor": self.factor}

    def apply(self, events: Events, requests: Requests) -> Iterator[Batch]:
        """Yield the same events at other times."""
        for batch in events():
            kernels.squeeze(batch.at_ns, self.origin_ns, self.factor)
            yield batch
