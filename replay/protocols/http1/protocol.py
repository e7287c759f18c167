"""HTTP/1.1 as the protocol of a target: what is planned, checked and printed before a run."""

from __future__ import annotations

from collections.abc import Sequence

from replay.lane import KERNEL_MODULES
from replay.plan.schedule import Plan, Schedule
from replay.protocols.names import FoundName, find_name
from replay.protocols.protocol import (
    Fact,
    Found,
    Protocol,
)
from replay.settings.given import given_keys
from replay.settings.scenario import Scenario
from replay.settings.target import Target

from . import target as targets
from . import words
from .adapter import HttpPlan

OF_REQUESTS = (
    "host", "headers", "send_headers", "rewrite_host", "client_ip_header", "body", "set", "capture", "check", "cookies",
    "auth",
)  # fmt: skip
"""Settings that determine how HTTP requests are written and how their responses are used."""


class Http1(Protocol):
    """HTTP/1.1 over TCP, or over TLS for `https`."""

    kernels = ("http1.render", *KERNEL_MODULES)
    has_statuses = True
    sends_traceparent = True

    def parse(self, url: str) -> Target:
        """See `Protocol`."""
        return targets.parse(url)

    def check_shares(self, scenario: Scenario) -> None:
        """Accept every scenario: requests are assigned to machines by number or by client."""

    async def find(self, target: Target, scenario: Scenario) -> FoundName:
        """See `Protocol`."""
        return await find_name(target, scenario)

    def plan(self, schedule: Schedule, found: Found) -> HttpPlan:
        """See `Protocol`."""
        return HttpPlan(schedule, found)

    def unused(self, scenario: Scenario, targets_of_http: Sequence[Target]) -> list[tuple[str, str]]:
        """See `Protocol`."""
        unused = []
        if not targets_of_http:
            usual = Scenario()
            given = [name for name in OF_REQUESTS if getattr(scenario, name) != getattr(usual, name)]
            unused += [(name, "HTTP targets") for name in given]
        if not any(map(targets.is_secure, targets_of_http)):
            unused += [(key, "https targets") for key in given_keys(scenario.tls, "tls")]
        return unused

    def facts(self, plan: Plan, scenario: Scenario) -> list[Fact]:
        """See `Protocol`."""
        return words.facts(plan, scenario, is_secure=targets.is_secure(targets.parse(plan.target)))

    def bounds(self, plan: Plan, scenario: Scenario) -> list[Fact]:
        """See `Protocol`."""
        return words.bounds(plan, scenario)
