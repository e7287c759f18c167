"""Kinds that are a text with a grammar: moments, time zones, objectives, amounts of money, size ranges."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any, ClassVar, Self

from replay import units
from replay.errors import UsageError
from replay.money import FORMS, parse_money

from .kind import Kind


class _Text(str, Kind):
    """The base of the kinds whose value is a text."""

    __slots__ = ()

    program_type = "str"
    schema: ClassVar[dict[str, Any]] = {"type": "string", "minLength": 1}

    def written(self) -> str:
        """Return the text that `parse` kept."""
        return str(self)


class MomentText(_Text):
    """A moment: `18:00`, ISO 8601 or `+10m`. `replay.plan.due` resolves it for a trace."""

    __slots__ = ()

    forms = units.MOMENT_FORMS
    examples = ("18:00", "2026-01-05T18:00:00+01:00", "+10m")
    metavar = "WHEN"
    program_type = "str | datetime | time"

    @classmethod
    def accepts(cls, value: Any) -> bool:
        """Return whether the value is a text, or one of TOML's dates and times."""
        return super().accepts(value) or isinstance(value, dt.date | dt.time)

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Check a moment, and keep its text. Dates and times become ISO 8601."""
        text = value.isoformat() if isinstance(value, dt.date | dt.time) else str(value)
        units.parse_moment(text)
        return cls(text)


class ZoneText(_Text):
    """A time zone: `UTC`, `+02:00` or an IANA name."""

    __slots__ = ()

    forms = units.ZONE_FORMS
    examples = ("UTC", "+02:00", "Europe/Berlin")
    metavar = "ZONE"

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Check a time zone, and keep its text."""
        units.parse_zone(str(value))
        return cls(value)


class SloText(_Text):
    """An objective: `p99<250ms`. `replay.results.slo` parses it."""

    __slots__ = ()

    forms = "p99<250ms, 'errors<1% over 10s' or 'statuses differ<5%'"
    examples = ("p99<250ms", "errors<1% over 10s", "statuses differ<5%")
    metavar = "SLO"

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Check an objective, and keep its text."""
        from replay.results.slo import parse

        parse(str(value))
        return cls(value)


class Acks(_Text):
    """Acknowledgements that a record waits for: `1` or `all`."""

    __slots__ = ()

    forms = "1 or all"
    examples = ("1", "all")
    metavar = "1|all"
    program_type = "str | int"
    schema: ClassVar[dict[str, Any]] = {"enum": ["1", "all", "-1", 1, -1]}

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Parse `1`, `all`, or `-1`, which means `all`. UsageError for anything else."""
        text = str(value).lower()
        if text == "0":
            raise UsageError(
                "acks = 0 is refused: a broker would confirm no record, and the outcome of each would be unknown",
                hint=f"write {cls.forms}",
            )
        if text not in ("1", "all", "-1"):
            raise UsageError(f"{value!r} is not a number of acknowledgements", hint=f"write {cls.forms}")
        return cls("1" if text == "1" else "all")


class MoneyText(_Text):
    """An amount of money: `9.99 EUR`. `replay.money` parses it."""

    __slots__ = ()

    forms = FORMS
    examples = ("9.99 EUR", "120 USD")
    metavar = "AMOUNT"

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Check an amount of money, and keep it as amount and currency."""
        money = parse_money(str(value))
        return cls(f"{money.amount} {money.currency}")


class SizeRange(_Text):
    """The sizes that a body may have: `64KiB` for exactly that size, or with `<`, `<=`, `>` or `>=` before it."""

    __slots__ = ()

    forms = "64KiB, >=1KiB or <2MiB"
    examples = ("64KiB", ">=1KiB", "<2MiB", 1024)
    metavar = "SIZES"
    program_type = "str | int"
    schema: ClassVar[dict[str, Any]] = {
        "type": ["string", "integer"],
        "pattern": r"^\s*(<=|<|>=|>)?\s*[0-9.]+\s*([kmgKMG]([iI]?[bB])?|[bB])?\s*$",
        "minimum": 0,
    }

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Check a range of sizes, and keep its text."""
        size_range(str(value))
        return cls(value)


_RANGE = re.compile(r"\s*(<=|<|>=|>|)\s*(.*)")
_HUGE = 1 << 62


def size_range(text: str) -> tuple[int, int]:
    """Return the minimum and maximum number of bytes of a SizeRange. UsageError if the text is invalid.

    A range without an upper bound has the maximum 2^62.
    """
    match = _RANGE.fullmatch(text)
    size = units.parse_size_bytes(match[2] if match else text)
    sign = match[1] if match else ""
    return {
        "": (size, size), "<": (0, size - 1), "<=": (0, size), ">": (size + 1, _HUGE), ">=": (size, _HUGE),
    }[sign]  # fmt: skip
