"""The plan of a followed run in the terminal: the source, the delay, and the target."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from replay.plan.schedule import Plan
from replay.settings.scenario import Scenario
from replay.units import format_duration

from .page import Page
from .plan import bounds_facts, objectives_facts, target_facts


def print_followed(
    plan: Plan,
    scenario: Scenario,
    addresses: Sequence[str],
    source: Sequence[tuple[str, str]],
    console: Console,
) -> None:
    """Print the plan. `source` describes what is followed."""
    page = Page(console)
    page.say("Plan", "bold")
    ends = "at a signal, or at the source's end"
    if scenario.duration_ns is not None:
        ends = f"after {format_duration(scenario.duration_ns)}, {ends}"
    methods = "all" if "all" in scenario.methods else ", ".join(scenario.methods)
    page.facts(
        (
            *target_facts(plan, scenario, addresses),
            *source,
            ("methods", methods),
            ("ends", ends),
            *(
                [("warm-up", f"{format_duration(plan.warm_up_ns)}, sent and not measured")]
                if plan.warm_up_ns
                else []
            ),
            *bounds_facts(plan, scenario),
            *objectives_facts(plan, scenario),
        )
    )
    page.say()
