"""The decisions of an autoscaler, by the rule of Kubernetes' HorizontalPodAutoscaler. The caller passes the time."""

from __future__ import annotations

import math
from collections import deque

from .spec import Autoscaler


class Scaler:
    """Decides how many replicas there should be."""

    def __init__(self) -> None:
        self._wanted: deque[tuple[int, int]] = deque()

    def decide(
        self, given: Autoscaler, now_ns: int, replicas: int, ready: int, signal: float
    ) -> tuple[int, int]:
        """Return the number of replicas from now on, and the number without the bounds `min` and `max`.

        `replicas` includes those that are starting; `signal` is the mean over the `ready` ones.
        """
        ratio = signal / given.target
        unbounded = replicas if abs(ratio - 1) <= given.tolerance else math.ceil(ready * ratio - 1e-9)
        if ratio > 1 + given.tolerance:
            # Replicas that are starting are counted, so that they are not requested twice.
            unbounded = max(unbounded, replicas)
        wanted = min(max(unbounded, given.min), given.max)
        self._wanted.append((now_ns, wanted))
        while self._wanted[0][0] < now_ns - given.down_after_ns:
            self._wanted.popleft()
        highest = max(number for _, number in self._wanted)
        return (wanted if wanted >= replicas else min(replicas, highest)), unbounded
