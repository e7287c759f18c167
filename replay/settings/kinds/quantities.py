"""Kinds that are numbers: times, rates, factors, shares, sizes and counts."""

from __future__ import annotations

import datetime as dt
from typing import Any, ClassVar, Self

from replay import units
from replay.errors import UsageError

from .kind import Kind

SEED_MAX = (1 << 63) - 1
"""The largest seed. Seeds have 63 bits."""

AUTO = 0
"""The number that stands for `auto` in connections and threads."""

COUNT_MAX = 1 << 20

_TEXT_OR_NUMBER: dict[str, Any] = {"type": ["string", "number"]}


class Duration(int, Kind):
    """Nanoseconds, written as `30s`.

    If a number was written without a unit, `bare` is its text.
    """

    forms = units.DURATION_FORMS
    examples = ("30s", "1h30m", "250ms", 5)
    metavar = "TIME"
    program_type = "str | float | timedelta"
    schema: ClassVar[dict[str, Any]] = {
        **_TEXT_OR_NUMBER,
        "pattern": r"^\s*[0-9.]+(e[+-]?[0-9]+)?\s*((ns|us|µs|μs|ms|s|m|h|d)\s*([0-9.]+\s*(ns|us|µs|μs|ms|s|m|h|d)\s*)*)?$",
        "minimum": 0,
    }

    bare: str = ""

    @classmethod
    def accepts(cls, value: Any) -> bool:
        """Return whether the value is a text, a number of seconds, or Python's timedelta."""
        return super().accepts(value) or isinstance(value, dt.timedelta)

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Parse `30s`, `1h30m`, a number of seconds, or a timedelta, into nanoseconds."""
        if isinstance(value, dt.timedelta):
            value = f"{value // dt.timedelta(microseconds=1)}us"
        duration = cls(units.parse_duration_ns(value))
        if units.is_bare(str(value)):
            duration.bare = str(value).strip()
        return duration

    def written(self) -> str:
        """Return a text such as `30s`."""
        return units.duration_text(self)


class Rate(float, Kind):
    """Requests per second, written as `500/s`. `max` is units.MAX_RATE."""

    forms = units.RATE_FORMS
    examples = ("500/s", "50/1m", 500, "max")
    metavar = "RATE"
    program_type = "str | float"
    schema: ClassVar[dict[str, Any]] = {
        **_TEXT_OR_NUMBER,
        "pattern": r"^\s*(max|[0-9.]+(e[+-]?[0-9]+)?\s*(/.+)?)\s*$",
        "exclusiveMinimum": 0,
    }

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Parse `500/s`, `50/1m`, `500` or `max` into requests per second."""
        return cls(units.parse_rate_per_s(value))

    def written(self) -> str:
        """Return a text such as `500/s`."""
        return units.rate_text(self)


class Factor(float, Kind):
    """A factor above 0, written as `2`, `2x` or `200%`."""

    forms = units.FACTOR_FORMS
    examples = (2, "2x", 0.5, "200%")
    metavar = "FACTOR"
    program_type = "str | float"
    schema: ClassVar[dict[str, Any]] = {
        **_TEXT_OR_NUMBER,
        "pattern": r"^\s*[0-9.]+(e[+-]?[0-9]+)?\s*[x×X%]?\s*$",
        "exclusiveMinimum": 0,
    }

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Parse `2`, `2x` or `200%`."""
        return cls(units.parse_factor(value))

    def written(self) -> float:
        """Return a number such as `2.0`."""
        return float(self)


class Share(float, Kind):
    """A share from 0 to 1, written as `25%`."""

    forms = units.SHARE_FORMS
    examples = ("25%", 0.25)
    metavar = "SHARE"
    program_type = "str | float"
    schema: ClassVar[dict[str, Any]] = {
        **_TEXT_OR_NUMBER,
        "pattern": r"^\s*[0-9.]+(e[+-]?[0-9]+)?\s*%?\s*$",
        "minimum": 0,
        "maximum": 1,
    }

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Parse `25%` or `0.25`."""
        return cls(units.parse_share(value))

    def written(self) -> str:
        """Return a text such as `25%`, or `0.3333333333333333`, which `parse` reads as the same share."""
        return units.share_text(self)


class Size(int, Kind):
    """Bytes, written as `64KiB`."""

    forms = units.SIZE_FORMS
    examples = (65_536, "64k", "16MiB")
    metavar = "SIZE"
    program_type = "str | int"
    schema: ClassVar[dict[str, Any]] = {
        **_TEXT_OR_NUMBER,
        "pattern": r"^\s*[0-9.]+\s*([kmgKMG]([iI]?[bB])?|[bB])?\s*$",
        "minimum": 0,
    }

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Parse `4096`, `64k` or `16MiB` into bytes."""
        return cls(units.parse_size_bytes(value))

    def written(self) -> int:
        """Return a number of bytes such as `65536`."""
        return int(self)


class Count(int, Kind):
    """A number from 1 to COUNT_MAX, or `auto` (AUTO)."""

    forms = "auto or a number"
    examples = ("auto", 64)
    metavar = "N|auto"
    program_type = "int | str"
    schema: ClassVar[dict[str, Any]] = {
        "type": ["string", "integer"],
        "pattern": "^(auto|[0-9]+)$",
        "minimum": 1,
        "maximum": COUNT_MAX,
    }

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Parse a number, or `auto`, which becomes AUTO."""
        if value == "auto":
            return cls(AUTO)
        if isinstance(value, str) and value.isascii() and value.isdigit():
            value = int(value)
        if not isinstance(value, int) or not 0 < value <= COUNT_MAX:
            raise UsageError(
                f"{value!r} is neither auto nor a valid number",
                hint=f"write auto or a number from 1 to {COUNT_MAX:,}",
            )
        return cls(value)

    def written(self) -> object:
        """Return `auto`, or the number."""
        return "auto" if self == AUTO else int(self)
