"""`ROUTE=FACTOR`: factors above 0 by route, and which of a trace's routes each is meant for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .. import units
from ..errors import UsageError
from ..scenario import names_route

EVERY = ""
"""The route of a factor that is meant for all of them."""


def classes_of(routes: Sequence[str], patterns: Sequence[str], flag: str) -> npt.NDArray[np.int64]:
    """The rule of each route, by the first pattern that names it; -1: none.

    UsageError where a pattern names no route, with the one that was probably meant.
    """
    found = np.full(len(routes), -1, np.int64)
    for number, pattern in reversed(list(enumerate(patterns))):
        named = [pattern == EVERY or names_route(pattern, route) for route in routes]
        if not any(named):
            guess = units.nearest(pattern, routes)
            raise UsageError(
                f"{flag}: {pattern!r} is no route of the recording"
                + (f" (did you mean {guess!r}?)" if guess else ""),
                hint="replay inspect TRACE lists the routes; * stands for anything",
            )
        found[named] = number
    return found
