"""`ROUTE=FACTOR`: factors above 0 by route, and which of a trace's routes each is meant for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from replay.errors import UsageError
from replay.naming import first_naming
from replay.settings.kinds import Scale
from replay.trace import Requests

EVERY = ""
"""The route of a factor that is meant for all of them."""


def classes_of(requests: Requests, patterns: Sequence[str], flag: str) -> npt.NDArray[np.int64]:
    """The rule of each route, by the first pattern that names it or its action; -1: none.

    UsageError where a pattern names no route, with the one that was probably meant.
    """
    named = [pattern if pattern != EVERY else "*" for pattern in patterns]
    found = first_naming(requests.routes, requests.actions, named, [flag] * len(named))
    return np.array(found, dtype=np.int64)


def classes_to_scale(requests: Requests, scale: Scale) -> npt.NDArray[np.int64]:
    """The rule of each route, as `classes_of` says. UsageError where a rule has no route that the ones before it left."""
    classes = classes_of(requests, [route for route, _ in scale], "--scale")
    for number, (route, factor) in enumerate(scale):
        if not (classes == number).any():
            raise UsageError(
                f"--scale: {route or 'all'}={factor:g} has no route left: the rules before it name them all",
                hint="the first rule that names a route counts: give the narrower one first",
            )
    return classes
