"""Parses the value of `--sink NAME=ADDRESS[,OPTION=TIME]`."""

from __future__ import annotations

from collections.abc import Mapping

from replay.errors import UsageError
from replay.units import SECOND_NS, nearest, parse_duration_ns


def take_apart(
    sink: str, value: str, defaults: Mapping[str, float], form: str
) -> tuple[str, dict[str, float]]:
    """Split the value into the address and the options in seconds.

    Raises UsageError if there is no address, or for an option that does not exist or has no valid duration.
    """
    address, *texts = value.split(",")
    options = dict(defaults)
    if not address:
        raise UsageError(f"--sink {sink} needs an address", hint=f"write --sink {form}")
    for text in texts:
        name, _, given = text.partition("=")
        if name not in options:
            guess = nearest(name, list(options))
            meant = f" (did you mean {guess}?)" if guess else ""
            raise UsageError(
                f"--sink {sink}: there is no option {name!r}{meant}", hint=f"write --sink {form}"
            )
        try:
            options[name] = parse_duration_ns(given) / SECOND_NS
        except UsageError as error:
            raise UsageError(f"--sink {sink}: {name}: {error}", hint=error.hint) from None
    return address, options


def missing_extra(sink: str, error: ImportError) -> UsageError:
    """Return the error for a library that is not installed."""
    return UsageError(
        f"--sink {sink} needs the package {error.name or 'of the extra metrics'}",
        hint="install it: pip install 'replay-engine[metrics]'",
    )
