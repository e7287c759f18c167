"""The page of a comparison of responses: the verdict, each field with the values of both builds, and a search box."""

from __future__ import annotations

from pathlib import Path

from replay.differences.findings import Differences, Example, FieldFinding
from replay.units import counted, format_share

from .differences import following_text, noisy_words, share_text, smallest_text
from .html import (
    OPEN,
    SOFT,
    TONES,
    Html,
    Section,
    barred,
    cards,
    folded,
    headline,
    html_table,
    named,
    toned,
    write_page,
)
from .svg import escape

FIELDS_SHOWN = 500
"""The most fields in each section of the page. The JSON output has all."""


def write_differences_page(found: Differences, path: Path) -> None:
    """Write the page. Raise OutputError if that fails."""
    above = f"{found.new.label} against {found.base.label}"
    write_page(
        path, f"replay: responses of {above}", above, [headline_of(found), *sections_of(found), _runs(found)]
    )


def headline_of(found: Differences, level: int = 1) -> str:
    """Return the verdict as the page's heading."""
    return headline(found.verdict, found.sentence, found.reasons, level=level)


def sections_of(found: Differences) -> list[Section]:
    """Return the content of the page below the verdict."""
    different, noisy = found.different, [one for one in found.fields if not one.different]
    notes = "".join(f'<p class="soft">{escape(note)}</p>' for note in found.notes)
    return [
        _cards(found),
        _fields("Fields that differ between the builds", different, found),
        _fields(f"Fields that differ {noisy_words(found, noisy)}", noisy, found),
        _ignored(found),
        notes,
    ]


def _cards(found: Differences) -> str:
    tone = TONES.get(found.verdict, OPEN)
    is_undecided = any(one.p is None and not one.different for one in found.fields)
    rest = "fields undecided" if is_undecided else "fields that are noise"
    return cards(
        [
            (found.base.label, counted(len(found.base.runs), "run") if found.base.runs else "", ""),
            (found.new.label, counted(len(found.new.runs), "run"), ""),
            ("requests", f"{found.requests:,}", ""),
            ("fields that differ", str(len(found.different)), tone),
            (rest, str(len(found.fields) - len(found.different)), SOFT),
            ("fields always equal", f"{found.equal:,}", ""),
            ("smallest detectable rate", "none" if found.smallest is None else format_share(found.smallest), ""),
        ]
    )  # fmt: skip


def _fields(title: str, listed: list[FieldFinding], found: Differences) -> str:
    """Return at most FIELDS_SHOWN blocks of fields; empty without fields. The page's script adds a search box."""
    if not listed:
        return ""
    blocks = "".join(_block(one, found) for one in listed[:FIELDS_SHOWN])
    more = len(listed) - FIELDS_SHOWN
    left = f'<p class="soft">and {more:,} more fields, which --json lists</p>' if more > 0 else ""
    return f'<h2>{escape(title)}</h2><div class="fields">{blocks}</div>{left}'


def _block(one: FieldFinding, found: Differences) -> str:
    """Return the block of a field: its name, how often it differs, and its examples side by side."""
    tone = "bad" if one.different else "soft"
    head = f'<b>{escape(named(one.field))}</b> <span class="soft">{escape(named(one.route))}</span>'
    head += f" {toned(one.kind, tone)} {barred(format_share(one.across), one.across)}"
    summary = f"{share_text(one)}{following_text(one)}"
    more = f"smallest new difference that would have been detected: {smallest_text(one)}"
    if one.p is not None:
        more += f"; p {one.p:.3g} over all fields"
    rows = [_example(example) for example in one.examples]
    labels = (found.base.label, found.new.label)
    if not one.different and found.base.runs:
        labels = ("one run", "another run")
    table = html_table(("request", "where", *labels), rows, long=(1, 2, 3), left=True)
    is_open = " open" if one.different and one.is_first else ""
    return (
        f'<details class="field"{is_open}><summary>{head}</summary><p>{escape(summary)}</p>'
        f'<p class="soft">{escape(more)}</p>{table}</details>'
    )


def _example(example: Example) -> list[str]:
    request = f"{example.number} ({example.which}), client {example.client}"
    return [request, named(example.pointer), _code(example.base), _code(example.new)]


def _code(text: str) -> Html:
    return Html(f"<code>{escape(text)}</code>")


def _ignored(found: Differences) -> str:
    rows = [
        [one.route, one.field, f"{one.rule.route} {one.rule.field}"] for one in found.ignored[:FIELDS_SHOWN]
    ]
    table = html_table(("route", "field", "rule"), rows, long=(1, 2), left=True)
    return folded(f"{counted(len(found.ignored), 'field')} ignored by rules", table)


def _runs(found: Differences) -> str:
    rows = [[run, side.label] for side in (found.base, found.new) for run in side.runs[:200]]
    exact = "" if found.exact else " (sampled)"
    design = f"{found.labellings:,} labellings{exact}" if found.labellings else ""
    return html_table(("run", "side"), rows, "Runs", reading=design, left=True)
