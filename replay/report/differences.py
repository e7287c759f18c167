"""Prints a comparison of responses in the terminal: the verdict, the differing fields with examples, then notes."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from replay.differences.findings import Differences, FieldFinding
from replay.units import counted, format_share

from .page import Page

STYLE = {
    "DIFFERENT": "bold red",
    "INVALID": "bold red",
    "SAME": "bold green",
    "INCONCLUSIVE": "bold yellow",
}

NAMED_MAX, NOISY_MAX = 40, 12
"""How many fields are listed: those that differ between the builds, and those that the verdict does not count."""


def print_differences(found: Differences, console: Console, *, again: bool = True) -> None:
    """Print a comparison of responses. `again` repeats the verdict at the end if any field differs."""
    page = Page(console)
    page.say(f"{found.verdict}: {found.sentence}", STYLE[found.verdict])
    for reason in found.reasons:
        if reason not in found.sentence:
            page.say(reason, "yellow", indent=2)
    _named(page, found)
    _noisy(page, found)
    for note in (*_ignored(found), *found.notes):
        if note in found.sentence:
            continue
        page.say(note, "dim", indent=2)
    if again and found.fields:
        page.say()
        page.say(f"{found.verdict}: {found.sentence}", STYLE[found.verdict])


def _named(page: Page, found: Differences) -> None:
    named = found.different
    if not named:
        return
    page.title(
        f"{counted(len(named), 'field differs', 'fields differ')} between {found.base.label} and {found.new.label}"
    )
    for one in named[:NAMED_MAX]:
        page.say(f"{one.route}  {one.field}", "bold", indent=0 if one.is_first else 2)
        indent = 2 if one.is_first else 4
        page.say(f"{share_text(one)}{following_text(one)}", indent=indent)
        for example in one.examples[: 0 if one.inside else 1]:
            page.say(f"request {example.number}, {example.pointer}", "dim", indent=indent)
            page.facts(
                [
                    (f"{' ' * indent}{found.base.label}", example.base),
                    (f"{' ' * indent}{found.new.label}", example.new),
                ]
            )
    if len(named) > NAMED_MAX:
        page.say(f"and {len(named) - NAMED_MAX:,} more fields, which --json lists", "dim", indent=2)


def _noisy(page: Page, found: Differences) -> None:
    noisy = [one for one in found.fields if not one.different]
    if not noisy:
        return
    page.title(f"{counted(len(noisy), 'field differs', 'fields differ')} {noisy_words(found, noisy)}")
    headers = [("", "name"), ("field", "name"), ("kind", ""), ("within", "right"), ("across", "right")]
    page.table(
        [*headers, ("would have found", "right")],
        [
            [one.route, one.field, one.kind, within_text(one), format_share(one.across), smallest_text(one)]
            for one in noisy[:NOISY_MAX]
        ],
    )  # fmt: skip
    if len(noisy) > NOISY_MAX:
        page.say(f"and {len(noisy) - NOISY_MAX:,} more", "dim", indent=2)


def _ignored(found: Differences) -> list[str]:
    if not found.ignored:
        return []
    names = ", ".join(f"{one.route} {one.field}" for one in found.ignored[:5])
    more = f" and {len(found.ignored) - 5:,} more" if len(found.ignored) > 5 else ""
    return [f"ignored by rules, although they differ: {names}{more}"]


def share_text(one: FieldFinding) -> str:
    """Return text such as `value in 12% of 5,000 responses (0% within base)`."""
    within = "" if one.within is None else f" ({within_text(one)} within base)"
    return f"{one.kind} in {format_share(one.across)} of {one.compared:,.0f} responses{within}"


def noisy_words(found: Differences, noisy: Sequence[FieldFinding]) -> str:
    """Return the end of a heading for fields that the verdict does not count: between which runs they differ."""
    if not found.base.runs:
        return f"from the recording: too few runs of {found.new.label} to tell a difference from variation"
    if any(one.p is None for one in noisy):
        return "between any two runs: too few runs to tell builds from noise"
    return "between runs of one build as well"


def within_text(one: FieldFinding) -> str:
    """Return how often the field differs within base; empty if base is a single run."""
    return "" if one.within is None else format_share(one.within)


def following_text(one: FieldFinding) -> str:
    """Return what explains this difference, or how many clients have it.

    An explanation is an enclosing field that differs, or an earlier difference for the same client. The text is
    empty for a single client.
    """
    if one.inside:
        return f"; a part of {one.inside}"
    if one.after is not None:
        return f"; only after {one.after.route} {one.after.field} differed for the same client"
    return f"; {counted(one.clients, 'client')}" if one.clients > 1 else ""


def smallest_text(one: FieldFinding) -> str:
    """Return the smallest rate at which a new difference would have been detected.

    If none would have been detected, return `only a change of shape` or `nothing`.
    """
    if one.smallest is not None:
        return format_share(one.smallest)
    return "only a change of shape" if one.field.startswith("/") and one.p is not None else "nothing"
