"""Checks of a whole scenario, after its settings were parsed one by one."""

from __future__ import annotations

from replay.errors import UsageError

from .groups import answers, clients, kafka, live, load, output, safety, sessions, target, time, tls
from .naming import NameOf
from .scenario import Scenario
from .table import SETTINGS, value_of

_GROUPS = (target, sessions, load, time, clients, safety, tls, kafka, answers, live, output)


def check(scenario: Scenario, name_of: NameOf) -> None:
    """Raise UsageError for the first setting that is out of its limits or contradicts another one.

    `name_of` returns the name of a setting for the message.
    """
    for setting in SETTINGS.values():
        if setting.row.is_positive and value_of(scenario, setting) == 0:
            raise UsageError(f"{name_of(setting.key)}: it must be above 0")
    for group in _GROUPS:
        group.check(scenario, name_of)
