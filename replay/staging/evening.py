"""A generated web server log of a fitness app's evening: a quiet start, then a peak at 6 PM.

People open the app, log in, look at their plan, train, record their meals; some register, a few pay. The rate
follows a bell curve around 18:00 over a steady base. Equal seeds give equal logs, byte for byte.
"""

from __future__ import annotations

import datetime as dt
import math
import random
from collections.abc import Iterator
from typing import NamedTuple

EVENING = dt.datetime(2020, 3, 16, 17, 30, tzinfo=dt.timezone(dt.timedelta(hours=1)))
LENGTH_S = 3_600
PEAK_AT_S = 1_800
PEAK_WIDTH_S = 420.0
BASE_SESSIONS_PER_S = 0.35
PEAK_SESSIONS_PER_S = 1.5
AGENTS = ("FitApp/4.2 (iOS 13.3)", "FitApp/4.2 (Android 10)", "Mozilla/5.0 (Windows NT 10.0; Win64; x64)")


class Step(NamedTuple):
    """One request of a session: the request, its mean delay after the previous one (s), its status and size."""

    method: str
    path: str
    pause_s: float
    status: int
    size: int


_COMMON = (
    Step("POST", "/v1/auth/login", 0.0, 200, 412),
    Step("GET", "/v1/profile", 0.4, 200, 1_310),
    Step("GET", "/v1/training/plans", 1.5, 200, 8_412),
)
_TRAINING = (
    Step("GET", "/v1/training/plans/{plan}", 3.0, 200, 5_230),
    Step("POST", "/v1/training/sessions", 8.0, 201, 188),
    Step("PUT", "/v1/training/sessions/{id}", 45.0, 200, 204),
    Step("PUT", "/v1/training/sessions/{id}", 60.0, 200, 204),
)
_NUTRITION = (
    Step("GET", "/v1/nutrition/foods?q={food}", 5.0, 200, 3_077),
    Step("POST", "/v1/nutrition/meals", 12.0, 201, 166),
)
_REGISTRATION = (
    Step("GET", "/register", 0.0, 200, 6_120),
    Step("POST", "/v1/users", 20.0, 201, 240),
    *_COMMON,
)
_PAYMENT = (
    Step("GET", "/v1/payment/offers", 6.0, 200, 1_902),
    Step("POST", "/v1/payment/orders", 25.0, 201, 310),
)
_SESSIONS = (
    ((*_COMMON, *_TRAINING), 0.52),
    ((*_COMMON, *_NUTRITION), 0.24),
    (_REGISTRATION, 0.16),
    ((*_COMMON, *_PAYMENT), 0.08),
)
_FOODS = ("oats", "rice", "apple", "egg", "lentils", "yoghurt", "tofu", "bread")


def sessions_per_s(at_s: float) -> float:
    """Return how many people open the app per second, `at_s` seconds after 17:30."""
    bell = math.exp(-(((at_s - PEAK_AT_S) / PEAK_WIDTH_S) ** 2) / 2)
    return BASE_SESSIONS_PER_S + PEAK_SESSIONS_PER_S * bell


def _session(random_: random.Random, starts_s: float) -> Iterator[tuple[float, Step, str]]:
    steps = random_.choices([steps for steps, _ in _SESSIONS], [weight for _, weight in _SESSIONS])[0]
    ids = {
        "plan": random_.randrange(1, 40),
        "id": random_.randrange(10**6, 10**7),
        "food": random_.choice(_FOODS),
    }
    at_s = starts_s
    for step in steps:
        at_s += random_.expovariate(1 / step.pause_s) if step.pause_s else 0.0
        yield at_s, step, step.path.format(**ids)


def log_lines(seed: int = 1) -> Iterator[str]:
    """Yield the lines of the log in combined format, in order.

    Timestamps have whole seconds, as web servers write them.
    """
    random_ = random.Random(seed)
    requests: list[tuple[float, str]] = []
    at_s = 0.0
    while at_s < LENGTH_S:
        at_s += random_.expovariate(sessions_per_s(at_s))
        address = f"10.{random_.randrange(256)}.{random_.randrange(256)}.{random_.randrange(1, 255)}"
        agent = random_.choice(AGENTS)
        for due_s, step, path in _session(random_, at_s):
            if due_s < LENGTH_S:
                stamp = (EVENING + dt.timedelta(seconds=int(due_s))).strftime("%d/%b/%Y:%H:%M:%S %z")
                requests.append(
                    (
                        due_s,
                        f'{address} - - [{stamp}] "{step.method} {path} HTTP/1.1" {step.status} {step.size} "-" "{agent}"',
                    )
                )
    for _, line in sorted(requests, key=lambda request: request[0]):
        yield line
