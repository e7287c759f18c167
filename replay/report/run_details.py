"""The detailed parts of a run's page: single requests, the machine, the settings."""

from __future__ import annotations

import datetime as dt
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from replay.results.document import RunDocument
from replay.results.measured import FAILED
from replay.results.run import Run
from replay.results.samples import Sample
from replay.settings.scenario import Scenario
from replay.settings.trace_url import link_of
from replay.units import counted, format_bytes, format_latency, to_datetime

from .html import BAD, facts_table, html_table, linked, named, toned

SAMPLES_SHOWN = 15
PROBLEM_CHARS = 200

_TITLES = (
    ("slowest", "Slowest requests"),
    ("failed", "First failed requests"),
    ("mismatched", "First mismatches"),
)


def samples_sections(run: Run) -> list[str]:
    """Return tables of the slowest requests, the first failed requests and the first mismatches.

    Times are on both clocks.
    """
    samples = run.samples()
    sections = []
    head: tuple[str, ...]
    for kind, title in _TITLES:
        found = [sample for sample in samples if sample.kind == kind]
        found.sort(key=lambda s: -(s.response_ns or 0) if s.kind == "slowest" else s.due_ns)
        found = found[:SAMPLES_SHOWN]
        rows = [_sample_row(run.document, sample) for sample in found]
        head = ("request", "recorded", "due (UTC)", "response", "wait", "service", "ended")
        if any(sample.trace_id for sample in found):
            head = (*head, "trace")
            rows = [[*row, _trace(run.document, sample)] for row, sample in zip(rows, found, strict=True)]
        sections.append(html_table(head, rows, title, long=(6, 7)))
    return sections


def _sample_row(document: RunDocument, sample: Sample) -> list[str]:
    zone = document.recorded_clock.utc_offset_s if document.recorded_clock else 0
    waited = _between(sample.taken_ns, sample.sent_ns)
    service = _between(sample.sent_ns, sample.done_ns)
    response = "" if sample.response_ns is None else format_latency(sample.response_ns)
    ended = _ended(sample)
    is_bad = sample.kind == "mismatched" or sample.outcome in FAILED
    return [
        named(f"{sample.method} {sample.path}".strip() or sample.route),
        "" if sample.recorded_ns is None else _clock(sample.recorded_ns, zone),
        _clock(sample.due_wall_ns),
        ("≥" if sample.at_least else "") + response,
        waited,
        service,
        toned(ended, BAD) if is_bad else ended,
    ]


def _trace(document: RunDocument, sample: Sample) -> str:
    """Return the trace id of a request, with a link to its page if the run has a `trace_url`."""
    return linked(sample.trace_id, link_of(document.scenario.get("trace_url"), sample.trace_id))


def _between(start_ns: int | None, end_ns: int | None) -> str:
    return "" if start_ns is None or end_ns is None else format_latency(end_ns - start_ns)


def _ended(sample: Sample) -> str:
    """Return the check that a response failed, or else its status or outcome, with the reason if one is known.

    A malformed response also has its fault and its first bytes. The text has at most PROBLEM_CHARS characters.
    """
    words = sample.rule or str(sample.status or sample.outcome)
    words += f" ({sample.reason})" if sample.reason else ""
    if sample.problem:
        words += f": {sample.problem}; it begins “{sample.begins}”"
    return words[:PROBLEM_CHARS]


def _clock(at_ns: int, utc_offset_s: int = 0) -> str:
    zone = dt.timezone(dt.timedelta(seconds=utc_offset_s))
    return to_datetime(at_ns, zone).strftime("%m-%d %H:%M:%S.%f")[:-3]


def machine_section(document: RunDocument) -> str:
    """Return the section about the generator's machine and versions."""
    host, generator = document.host, document.generator
    usable = f", {host.cores_usable} usable" if host.cores_usable and host.cores_usable != host.cores else ""
    versions = ", ".join(f"{name} {version}" for name, version in host.versions.items())
    used = f"{generator.cpu_s:.2f} s of CPU time"
    if generator.peak_rss_bytes:
        used += f", {format_bytes(generator.peak_rss_bytes)} of memory at most"
    facts = [
        ("machine", host.name),
        ("processor", f"{host.cpu_model}, {counted(host.cores, 'core')}{usable}" if host.cores else ""),
        ("memory", format_bytes(host.memory_bytes) if host.memory_bytes else ""),
        ("system", host.kernel),
        ("generator", f"{generator.engine} engine, {counted(generator.lanes, 'lane')}; {used}"),
        ("versions", f"replay {document.replay_version}; Python {host.python}; {versions}"),
        ("run", f"{document.run_id}, {document.started_at} to {document.ended_at}".strip(", ")),
    ]
    return facts_table("Machine and versions", facts)


def settings_section(document: RunDocument) -> str:
    """Return the command that repeats the run, and the settings that are not the defaults."""
    changed = list(_changed(document.scenario, _defaults()))
    recording = document.trace.path if document.trace else ""
    words = ["replay", "run", recording or "TRACE", "--target", document.target]
    facts = [("command", shlex.join(words) + (" (with the settings below)" if changed else ""))]
    facts += [(name, value) for name, value in changed if name not in ("target", "trace")]
    return facts_table("Command and settings", facts)


def _defaults() -> dict[str, Any]:
    made: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(Scenario(target="").saved()))
    return made


def _changed(
    given: Mapping[str, Any], usual: Mapping[str, Any], above: str = ""
) -> Iterator[tuple[str, str]]:
    """Yield each setting that differs from its default, with its value as JSON."""
    for name, value in given.items():
        if isinstance(value, dict) and isinstance(usual.get(name), dict):
            yield from _changed(value, usual[name], f"{above}{name}.")
        elif name not in usual or value != usual[name]:
            yield above + name, named(msgspec.json.encode(value).decode())
