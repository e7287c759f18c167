"""Prints the plan of a followed run in the terminal: the source, the delay, and the target."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from replay.plan.schedule import Plan
from replay.settings.scenario import Scenario
from replay.units import format_duration, format_share

from .page import Page
from .plan import bounds_facts, objectives_facts, target_facts


def print_followed(
    plan: Plan,
    scenario: Scenario,
    addresses: Sequence[str],
    source: Sequence[tuple[str, str]],
    console: Console,
    *,
    unused: Sequence[str] = (),
) -> None:
    """Print the plan. `source` describes what is followed, and `unused` lists settings without effect."""
    page = Page(console)
    page.say("Plan", "bold")
    ends = "on a signal, or at the end of the source"
    if scenario.duration_ns is not None:
        ends = f"after {format_duration(scenario.duration_ns)}, {ends}"
    methods = "all" if "ALL" in scenario.methods else ", ".join(scenario.methods)
    page.facts(
        (
            *target_facts(plan, scenario, addresses),
            *source,
            ("methods", methods),
            *_share(scenario),
            ("ends", ends),
            *(
                [("warm-up", f"{format_duration(plan.warm_up_ns)}, sent and not measured")]
                if plan.warm_up_ns
                else []
            ),
            *bounds_facts(plan, scenario),
            *objectives_facts(plan, scenario),
            *([("not used", "; ".join(unused))] if unused else []),
        )
    )
    page.say()


def _share(scenario: Scenario) -> list[tuple[str, str]]:
    """Return facts about which entries are sent and how often; none if each entry is sent once."""
    facts = []
    if scenario.only:
        facts.append(("only", ", ".join(scenario.only)))
    if scenario.without:
        facts.append(("without", ", ".join(scenario.without)))
    if scenario.sample is not None and scenario.sample < 1:
        facts.append(("sample", f"{format_share(scenario.sample)}, drawn by {scenario.sample_by}"))
    if scenario.scale:
        factors = (f"{route}={factor:g}" if route else f"{factor:g}" for route, factor in scenario.scale)
        facts.append(("scale", f"{', '.join(factors)}; grows {scenario.grow}"))
    return facts
