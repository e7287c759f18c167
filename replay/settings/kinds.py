"""The kinds of values that knobs have: what a scenario file writes with a unit, and here is a plain number or text."""

from __future__ import annotations

import re

from replay import units

SEED_MAX = (1 << 63) - 1
"""Seeds are 63 bits."""


AUTO = 0
"""`auto` of connections and threads."""


class Duration(int):
    """Nanoseconds, written as `30s`. `bare` is the number as it was written where it had no unit."""

    bare: str = ""


class Rate(float):
    """Requests a second, written as `500/s`; `max` is units.MAX_RATE."""


class Factor(float):
    """A factor above 0, written as `2`, `2x` or `200%`."""


class Share(float):
    """A share from 0 to 1, written as `25%`."""


class Size(int):
    """Bytes, written as `64KiB`."""


class MomentText(str):
    """A moment: `18:00`, ISO 8601 or `+10m`. Resolved against a trace by `replay.plan.schedule`."""


class ZoneText(str):
    """A time zone: `UTC`, `+02:00` or an IANA name."""


class SloText(str):
    """An objective: `p99<250ms`. Read by `replay.results.slo`."""


class Count(int):
    """A number above 0, or `auto` (AUTO)."""


class Acks(str):
    """Acknowledgements that a record waits for: `1` or `all`."""

    __slots__ = ()


class Methods(tuple[str, ...]):
    """Method names in capitals; ("ALL",) is every method."""

    __slots__ = ()

    def allow(self, method: str) -> bool:
        """Whether requests of this method may be sent."""
        return self == ("ALL",) or method in self


class Scale(tuple[tuple[str, float], ...]):
    """Factors by route, written as `4` or `["POST /v1/users=5"]`; the route "" is all of them."""

    __slots__ = ()


class Statuses(tuple[str, ...]):
    """Statuses that are right: `recorded`, `200`, or a list such as `["2xx", 404]`."""

    __slots__ = ()


def statuses_of(text: str) -> range:
    """The statuses that `503` or `5xx` means; none where it is neither."""
    if re.fullmatch("[2-5]xx", text):
        return range(int(text[0]) * 100, int(text[0]) * 100 + 100)
    if re.fullmatch("[2-5][0-9][0-9]", text):
        return range(int(text), int(text) + 1)
    return range(0)


class SizeRange(str):
    """How large a body may be: `64KiB`, or with `<`, `<=`, `>` or `>=` before it."""

    __slots__ = ()


class HeaderNames(tuple[str, ...]):
    """Names of headers in lower case, written as `user-agent,accept` or a list of them."""

    __slots__ = ()


class HostNames(tuple[tuple[str, str], ...]):
    """Hosts and what they are called instead, written as `["www.example=staging.example"]`."""

    __slots__ = ()


def knob_text(value: object) -> object:
    """A knob as a scenario file holds it."""
    if isinstance(value, Duration):
        return units.duration_text(value)
    if isinstance(value, Rate):
        return units.rate_text(value)
    if isinstance(value, Share):
        return units.format_share(value)
    if isinstance(value, Factor):
        return float(value)
    if isinstance(value, Count):
        return "auto" if value == AUTO else int(value)
    if isinstance(value, Size):
        return int(value)
    if isinstance(value, Scale):
        return [f"{route}={factor:g}" if route else f"{factor:g}" for route, factor in value]
    if isinstance(value, Statuses):
        return value[0] if value == ("recorded",) else list(value)
    if isinstance(value, Methods):
        return "all" if value == ("ALL",) else list(value)
    if isinstance(value, str):
        return str(value)
    raise TypeError(f"no text for {type(value).__name__}")
