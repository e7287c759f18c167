"""The settings of verbs, and of library functions of the same names, that accept only some settings."""

from __future__ import annotations

from collections.abc import Iterable

from replay.errors import UsageError
from replay.units import nearest

OF_TRANSFORM = (
    "window.from", "window.until", "window.tz", "only", "without", "sample", "sample_by", "scale", "grow", "peak", "speed",
    "compress_to", "rewrite", "seed",
)  # fmt: skip
"""The settings that change a trace."""

SET_BY_PEAK = (
    "scale", "grow", "sample", "sample_by", "peak", "rate", "speed", "compress_to", "duration", "warm_up", "x_replay",
)  # fmt: skip
"""The settings that a search for the peak controls, so that users cannot set them."""


def tables_of(keys: Iterable[str]) -> list[str]:
    """Return the names of the settings and tables that a program passes: `window` for `window.from`."""
    return list(dict.fromkeys(key.partition(".")[0] for key in keys))


def refuse_others(verb: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise UsageError if a setting is given that `verb` does not accept."""
    known = list(known)
    for key in given:
        if key not in known:
            guess = nearest(key, known)
            raise UsageError(
                f"replay.{verb} takes no setting {key!r}" + (f" (did you mean {guess!r}?)" if guess else ""),
                hint=f"it takes {', '.join(known)}",
            )
