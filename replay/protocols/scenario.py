"""Checks a scenario for a run: whether its settings fit together, and whether its targets support them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from replay.errors import UsageError
from replay.settings.file import load
from replay.settings.scenario import Scenario
from replay.settings.table import SETTINGS, value_of

from .protocol import Protocol
from .registry import parse_target, protocol_of

OFF = "none"
"""The value that switches a setting off; a setting with this value is not refused."""


def load_scenario(
    path: Path | None = None, flags: Mapping[str, Any] | None = None, names: Mapping[str, str] | None = None
) -> Scenario:
    """Read a scenario as `replay.settings.file.load` does, and check its targets.

    UsageError also if the URL of a target is invalid, or if the protocol of the first target refuses a setting.
    """
    return load(path, flags, names, and_check=check_targets)


def check_targets(scenario: Scenario, name_of: Callable[[str], str]) -> None:
    """Raise UsageError if a target of [[also]] is invalid, or if the first target cannot use a setting."""
    for index, also in enumerate(scenario.also):
        try:
            parse_target(also.target)
        except UsageError as error:
            raise UsageError(f"{name_of(f'also[{index}].target')}: {error}", hint=error.hint) from None
    if not scenario.target:
        return
    for key, why in _refused(protocol_of(scenario.target), alone=not scenario.also):
        value = value_of(scenario, SETTINGS[key])
        if value not in (SETTINGS[key].default, OFF):
            named = f"{key}.{next(iter(value))}" if isinstance(value, dict) else key
            raise UsageError(f"{name_of(named)}: {why}", hint=f"leave out {key.partition('.')[0]}")


def _refused(protocol: Protocol, *, alone: bool) -> Iterator[tuple[str, str]]:
    yield from protocol.refuses.items()
    if alone:
        yield from protocol.refuses_alone.items()
