"""The interface between a run and the protocol of a URL scheme. `docs/adding.md` shows how to write a protocol.

A run uses a protocol in four steps, each with the result of the step before:

    parse(url) -> Target                the parsed URL; no connection is made
    find(target, scenario) -> Found     addresses, looked up once and checked against the allowed ones
    plan(schedule, found) -> TargetPlan the plan, which the dry run prints and checks
    TargetPlan.open(...)                the `ProtocolAdapter`, which the run needs

The schedule does not depend on a protocol: it yields due rows, and the adapter's renderer writes them in the form of
the target.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from replay import units
from replay.errors import UsageError
from replay.lane.contract import LaneRange
from replay.plan.schedule import Plan, Schedule
from replay.settings.scenario import Scenario
from replay.settings.target import Target

from .adapter import ProtocolAdapter

Fact = tuple[str, str]
"""A row of the printed plan: its name and its text."""


@dataclass(frozen=True)
class Found:
    """A target whose name was looked up. `hosts` are its addresses, all of them allowed."""

    target: Target
    hosts: tuple[str, ...]


class TargetPlan(ABC):
    """One target of a run: its schedule and its addresses. A protocol adds what it needs to write requests."""

    portable_because: str = ""
    """Why `engine = "auto"` selects the portable engine; empty if it does not. The plan prints it."""

    share: LaneRange | None = None
    """The target's lanes of a larger run, if this process runs a share of one. Set before `open`."""

    def __init__(self, schedule: Schedule, found: Found) -> None:
        self.schedule, self.found = schedule, found

    @property
    def target(self) -> Target:
        """The target that the requests are sent to."""
        return self.found.target

    @abstractmethod
    def check(self) -> None:
        """Raise LimitError or UsageError if the plan must not be sent, or if this machine cannot send it."""

    @abstractmethod
    async def open(self, run_id: str, first_route: int) -> ProtocolAdapter:
        """Connect, and create the adapter of the run.

        `first_route` is the number of this target's first route in the run. ReplayError if the target cannot or
        may not be used.
        """


class Protocol(ABC):
    """A protocol, identified by the scheme of its target URLs."""

    kernels: tuple[str, ...] = ()
    """Kernel modules of this protocol, besides those that every run uses; they are compiled with a progress bar."""

    sends_traceparent: bool = False
    """Whether the setting `traceparent` adds a trace context to requests of this protocol."""

    has_statuses: bool = False
    """Whether responses have HTTP statuses, which can be compared with the recorded ones."""

    has_one_lane: bool = False
    """Whether each process of a run has one lane for each target, whatever `threads` says."""

    refuses: Mapping[str, str] = MappingProxyType({})
    """Settings that a first target of this protocol cannot use, by key, each with the reason."""

    refuses_alone: Mapping[str, str] = MappingProxyType({})
    """Settings that are refused if a target of this protocol is the only one, by key, each with the reason."""

    @abstractmethod
    def parse(self, url: str) -> Target:
        """Parse a target URL. UsageError if it is invalid."""

    def check(self, scenario: Scenario) -> None:  # noqa: B027
        """Raise UsageError for settings that this protocol does not support, before any target is looked up."""

    def check_shares(self, scenario: Scenario) -> None:
        """Raise UsageError if the protocol does not support runs on several machines (`--cluster`).

        A protocol that supports them overrides this method.
        """
        scheme = scenario.target.partition(":")[0].lower()
        raise UsageError(
            f"--cluster supports HTTP and Kafka targets, but the target is {scheme}",
            hint="run without --cluster",
        )

    @abstractmethod
    async def find(self, target: Target, scenario: Scenario) -> Found:
        """Look up the target. TargetError if it has no address, LimitError if one of them is not allowed."""

    @abstractmethod
    def plan(self, schedule: Schedule, found: Found) -> TargetPlan:
        """Plan a target's requests. UsageError or LimitError if they cannot be written."""

    def unused(self, scenario: Scenario, targets: Sequence[Target]) -> list[tuple[str, str]]:
        """Return the settings of this protocol that are set but that none of its `targets` uses.

        Each has the kind of target that would use it, for the message.
        """
        return []

    def facts(self, plan: Plan, scenario: Scenario) -> list[Fact]:
        """Return the protocol's lines of the printed plan, which follow the target."""
        return []

    def bounds(self, plan: Plan, scenario: Scenario) -> list[Fact]:
        """Return the plan's lines about connections and time limits."""
        return [("waits", waits(scenario))]


def trace_facts(scenario: Scenario) -> list[Fact]:
    """Return the plan's line about the trace context of the requests; empty without one."""
    if not scenario.traceparent:
        return []
    return [("traces", "a traceparent for each request; a recorded traceparent and tracestate are not sent")]


def waits(scenario: Scenario) -> str:
    """Describe the time limits of a request."""
    return (
        f"{units.format_duration(scenario.timeout_ns)} for a complete response,"
        f" {units.format_duration(scenario.max_wait_ns)} for a free connection"
    )
