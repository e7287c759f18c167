"""Distributions of times: `20ms`, `exponential 20ms`, `lognormal 24ms 0.45`, `uniform 5ms 30ms`."""

from __future__ import annotations

import math
import random
from typing import Any, ClassVar, Self

from replay import units
from replay.errors import UsageError
from replay.settings.kinds import Kind

SIGMA_MAX = 5.0


class Times(Kind):
    """A distribution of times. `first` and `second` are its parameters: ns, or the sigma of a lognormal."""

    forms: ClassVar[str] = (
        "20ms, 'constant 20ms', 'exponential 20ms' (its mean), 'lognormal 24ms 0.45' (median and sigma)"
        " or 'uniform 5ms 30ms'"
    )
    examples: ClassVar[tuple[Any, ...]] = (
        "20ms",
        "exponential 20ms",
        "lognormal 24ms 0.45",
        "uniform 5ms 30ms",
    )
    metavar: ClassVar[str] = "TIMES"
    program_type: ClassVar[str] = "str | float"
    schema: ClassVar[dict[str, Any]] = {"type": ["string", "number"]}

    __slots__ = ("first", "second", "shape")

    def __init__(self, shape: str = "constant", first: float = 0.0, second: float = 0.0) -> None:
        self.shape, self.first, self.second = shape, first, second

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Times) and self.written() == other.written()

    def __hash__(self) -> int:
        return hash(self.written())

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Parse a distribution; a single time is a constant one. Raises UsageError if the value is neither."""
        words = str(value).split()
        if words and words[0] not in ("constant", "exponential", "lognormal", "uniform"):
            words = ["constant", *words] if len(words) == 1 else ["", *words]
        shape, *given = words or [""]
        if shape in ("constant", "exponential") and len(given) == 1:
            return cls(shape, float(units.parse_duration_ns(given[0])))
        if shape == "lognormal" and len(given) == 2:
            try:
                sigma = float(given[1])
            except ValueError:
                sigma = math.nan
            if not 0 <= sigma <= SIGMA_MAX:
                raise UsageError(
                    f"{given[1]!r} is not a sigma", hint=f"give a number from 0 to {SIGMA_MAX:g}"
                )
            return cls(shape, float(units.parse_duration_ns(given[0])), sigma)
        if shape == "uniform" and len(given) == 2:
            low, high = (float(units.parse_duration_ns(text)) for text in given)
            if low > high:
                raise UsageError(f"{given[0]} is more than {given[1]}", hint="give the shorter time first")
            return cls(shape, low, high)
        raise UsageError(f"{value!r} is not a distribution of times", hint=f"write {cls.forms}")

    def written(self) -> str:
        """Return the text that `parse` reads back."""
        first = units.duration_text(int(self.first))
        if self.shape == "constant":
            return first
        if self.shape == "lognormal":
            return f"lognormal {first} {units.exact_text(self.second)}"
        return (
            f"uniform {first} {units.duration_text(int(self.second))}"
            if self.shape == "uniform"
            else f"{self.shape} {first}"
        )

    @property
    def mean_ns(self) -> float:
        """The mean of the distribution. For a lognormal one `first` is the median, and the mean is larger."""
        if self.shape == "lognormal":
            return self.first * math.exp(self.second**2 / 2)
        return (self.first + self.second) / 2 if self.shape == "uniform" else self.first

    def draw_ns(self, random_: random.Random) -> int:
        """Draw a time from the distribution."""
        if self.shape == "constant" or not self.first + self.second:
            return int(self.first)
        if self.shape == "exponential":
            return int(random_.expovariate(1.0) * self.first)
        if self.shape == "uniform":
            return int(random_.uniform(self.first, self.second))
        return int(self.first * math.exp(random_.gauss(0.0, self.second)))
