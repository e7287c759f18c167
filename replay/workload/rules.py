"""Rules `ROUTE=FACTOR`: factors above 0 by route, and the routes of a trace that each rule applies to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from replay.errors import UsageError
from replay.naming import first_naming
from replay.settings.kinds import Scale
from replay.trace import Requests

EVERY = ""
"""The route of a factor that applies to all routes."""


def classes_of(requests: Requests, patterns: Sequence[str], flag: str) -> npt.NDArray[np.int64]:
    """Return the rule of each route: the first one whose pattern matches the route or its action; -1 if none does.

    UsageError, with a suggestion if there is one, if a pattern matches no route and no action.
    """
    named = [pattern if pattern != EVERY else "*" for pattern in patterns]
    found = first_naming(requests.routes, requests.actions, named, [flag] * len(named))
    return np.array(found, dtype=np.int64)


def classes_to_scale(requests: Requests, scale: Scale) -> npt.NDArray[np.int64]:
    """Return the rule of each route, as `classes_of` does.

    UsageError if the earlier rules match every route that a rule matches.
    """
    classes = classes_of(requests, [route for route, _ in scale], "--scale")
    for number, (route, factor) in enumerate(scale):
        if not (classes == number).any():
            raise UsageError(
                f"--scale: {route or 'all'}={factor:g} has no route left: earlier rules match all of its routes",
                hint="the first rule that matches a route is used, so give narrower rules first",
            )
    return classes
