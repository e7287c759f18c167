"""Compares the kept responses of two sides: finds fields that differ more between the builds than within one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from replay.errors import InputError, UsageError
from replay.results.same_load import changed_settings
from replay.settings.ignore_rules import IgnoreRule
from replay.units import counted, format_share

from . import statistics
from .causes import add_causes
from .counting import Rates, RouteCounter
from .examples import FIELDS_MAX, add_examples, where_different
from .fields import BODY, OTHER
from .findings import ComparedSide, Differences, FieldFinding, Verdict
from .ignoring import Ignoring
from .reading import KeptRun, Responses, read_responses
from .statistics import RUNS_MIN, Judged
from .values import Kind

OPAQUE = 0.5
"""If digests differ in at least this share of responses between runs of base, they are no evidence on the builds."""

STABLE = 0.01
"""A field that differs in at most this share of the responses of one build counts as stable."""

MOST = 0.95
"""The detectable rate is computed on the biggest routes that together have this share of the requests."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to compare: the rules of `--ignore`, and the verdicts that change the exit code.

    `values`: also compare values with a recording.
    """

    ignore: tuple[IgnoreRule, ...] = ()
    fail_on: Sequence[str] = ("different",)
    alpha: float = statistics.ALPHA
    values: bool = False


@dataclass(frozen=True, slots=True)
class RunsOfSide:
    """A side: its label, its runs, and notes on other runs that were given and do not count."""

    label: str
    runs: tuple[KeptRun, ...]
    set_aside: tuple[str, ...] = ()

    @property
    def compared(self) -> ComparedSide:
        """The side in the form in which a result contains it."""
        return ComparedSide(self.label, tuple(str(run.path) for run in self.runs))


@dataclass(slots=True)
class _Family:
    """The rates of all fields that differ anywhere, and the counters of the routes by name."""

    rates: list[Rates] = field(default_factory=list)
    counters: dict[str, RouteCounter] = field(default_factory=dict)


def compare_responses(base: RunsOfSide, new: RunsOfSide, options: Options) -> Differences:
    """Compare the responses of two sides.

    Raise the errors of `refuse_unlike`, `read_responses` and `rules_of`.
    """
    runs = [*base.runs, *new.runs]
    refuse_unlike(runs)
    sides = base.compared, new.compared
    if refused := invalid_runs((base, new)):
        sentence = f"these runs allow no verdict on the builds: {refused[0]}"
        return Differences("INVALID", sentence, *sides, tuple(refused), fail_on=options.fail_on)
    responses = read_responses(runs)
    ignoring = Ignoring([*rules_of(runs), *options.ignore])
    family = _family(responses, ignoring)
    judged = _judge(family.rates, len(base.runs), len(new.runs), options.alpha)
    reasons = _too_few(base, new)
    findings = _findings(family, judged, options.alpha, settled=not reasons)
    _explain(findings, family, runs, len(base.runs))
    findings.sort(key=_rank)
    verdict: Verdict = "DIFFERENT" if any(found.different for found in findings) else "SAME"
    opaque, share = _opaque(findings, responses)
    if verdict == "SAME" and share > 1 - MOST:
        reasons += opaque
    if reasons:
        verdict = "INCONCLUSIVE"
    smallest = _smallest(judged, base, new, responses)
    made = Differences(
        verdict, "", *sides, tuple(reasons),
        (*(note for note in opaque if note not in reasons), *_notes(base, new), *responses.notes, *ignoring.unused()),
        tuple(findings), tuple(ignoring.left_out.values()),
        requests=sum(route.requests for route in responses.routes), routes=len(responses.routes),
        equal=_fields(responses) - len(findings), smallest=smallest, labellings=judged.labellings, exact=judged.exact,
        alpha=options.alpha, fail_on=options.fail_on,
    )  # fmt: skip
    return replace(made, sentence=sentence_of(made))


def refuse_unlike(runs: Sequence[KeptRun]) -> None:
    """Raise UsageError if runs have different recordings or scenarios, or if only some of them kept secrets.

    The requests of such runs cannot be paired or compared.
    """
    first = runs[0]
    for run in runs[1:]:
        one, two = first.document, run.document
        pair = f"{first.path} and {run.path}"
        if (one.trace and one.trace.digest) != (two.trace and two.trace.digest):
            paths = [document.trace.path if document.trace else "none" for document in (one, two)]
            raise UsageError(
                f"{pair} replayed different recordings ({paths[0]}, {paths[1]}): their requests cannot be paired",
                hint="give runs of one trace",
            )
        if _kept_secrets(run) != _kept_secrets(first):
            raise UsageError(
                f"one of {pair} kept secrets and the other did not",
                hint="run both with --keep-answer-secrets, or both without",
            )
        if changed := changed_settings(one.scenario, two.scenario):
            changes = "; ".join(
                f"{key}: {one.scenario.get(key)!r} and {two.scenario.get(key)!r}" for key in changed[:3]
            )
            raise UsageError(
                f"{pair} had different scenarios: {changes}",
                hint="give runs of one scenario against both builds",
            )


def _kept_secrets(run: KeptRun) -> bool:
    figures = run.document.answers
    return figures is not None and figures.secrets_kept


def invalid_runs(sides: Sequence[RunsOfSide]) -> list[str]:
    """Return the runs whose verdict is INVALID, with the reasons."""
    found = []
    for side in sides:
        for run in side.runs:
            if run.document.validity.verdict == "INVALID":
                why = "; ".join(reason.message for reason in run.document.validity.reasons)
                found.append(f"{run.path} ({side.label}) is INVALID: {why}")
    return found


def rules_of(runs: Sequence[KeptRun]) -> list[IgnoreRule]:
    """Return the distinct `[[ignore]]` rules of the runs' scenarios. Raise InputError if a rule has no valid field."""
    rules: list[IgnoreRule] = []
    for run in runs:
        for rule in run.document.scenario.get("ignore", []):
            if not isinstance(rule, dict) or not isinstance(rule.get("field"), str):
                raise InputError(f"{run.path}/run.json: a rule of scenario.ignore has no valid field")
            rules.append(IgnoreRule(route=str(rule.get("route", "*")), field=rule["field"]))
    return list(dict.fromkeys(rules))


def _family(responses: Responses, ignoring: Ignoring) -> _Family:
    family = _Family()
    for route in responses.routes:
        counter = family.counters[route.route] = RouteCounter(route)
        family.rates += [
            rates for rates in counter.all_rates() if not ignoring.takes(route.route, rates.field)
        ]
    return family


def _judge(rates: Sequence[Rates], base: int, new: int, alpha: float) -> Judged:
    pairs = (base + new) * (base + new - 1) // 2
    table = np.array([one.rates for one in rates]).reshape(len(rates), pairs)
    return statistics.judge(table, np.array([one.compared for one in rates]), base, new, alpha)


def _too_few(base: RunsOfSide, new: RunsOfSide) -> list[str]:
    if min(len(base.runs), len(new.runs)) >= RUNS_MIN:
        return []
    counts = f"{counted(len(base.runs), 'run')} of {base.label} and {len(new.runs)} of {new.label}"
    return [f"{counts} are too few to tell a difference from noise ({RUNS_MIN} per side are needed)"]


def _findings(family: _Family, judged: Judged, alpha: float, *, settled: bool) -> list[FieldFinding]:
    """Return one finding per field: for its most significant aspect, or for the most frequent if there is none."""
    best: dict[tuple[str, str], int] = {}
    for at, rates in enumerate(family.rates):
        key = (rates.route.route, rates.field)
        held = best.get(key)
        if held is None or _comes_before(judged, at, held, alpha):
            best[key] = at
    return [
        FieldFinding(
            route, name, _first_kind(family.rates[at]), family.rates[at].aspect,
            within=_finite(judged.within[at]), across=float(judged.across[at]),
            different=settled and bool(judged.p[at] <= alpha and judged.t[at] > 0),
            p=float(judged.p[at]) if settled else None,
            smallest=_finite(judged.smallest[at]) if settled else None,
            compared=family.rates[at].compared,
        )
        for (route, name), at in best.items()
    ]  # fmt: skip


def _comes_before(judged: Judged, at: int, held: int, alpha: float) -> bool:
    """Return whether one aspect of a field is more significant than another."""
    if min(judged.p[at], judged.p[held]) <= alpha:
        return bool((judged.p[at], -judged.t[at]) < (judged.p[held], -judged.t[held]))
    return bool(judged.across[at] > judged.across[held])


def _first_kind(rates: Rates) -> Kind:
    """Return the kind of a difference before examples are read, or if no values were kept."""
    return "order" if rates.aspect == "order" else "value"


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _explain(findings: list[FieldFinding], family: _Family, runs: Sequence[KeptRun], bases: int) -> None:
    """Add kinds and examples to the first FIELDS_MAX findings, and causes to those of them in the verdict.

    OTHER has none of these, because it combines many fields.
    """
    chosen = sorted(findings, key=_rank)[:FIELDS_MAX]
    named = [found for found in chosen if found.field != OTHER]
    places = [where_different(family.counters[found.route], found, bases) for found in named]
    add_examples(named, places, family.counters, runs)
    different = [at for at, found in enumerate(named) if found.different]
    add_causes([named[at] for at in different], [places[at] for at in different], family.counters)


def _rank(found: FieldFinding) -> tuple:
    """Return the sort key of a finding.

    Findings in the verdict come first, causes before their consequences, and then those that differ most.
    """
    return (
        not found.different,
        not found.is_first,
        (found.within or 0.0) - found.across,
        found.route,
        found.field,
    )


def _fields(responses: Responses) -> int:
    """Return the number of fields of all routes, including ignored ones."""
    return sum(
        len(route.heads) + (len(route.names.names) - 1 if route.parsed.any() else 0)
        for route in responses.routes
    )


def _smallest(judged: Judged, base: RunsOfSide, new: RunsOfSide, responses: Responses) -> float | None:
    """Return the smallest rate at which a difference would have been detected in a field that never differs.

    It holds for the routes that have most of the requests. On smaller routes only larger rates are detected. Returns
    None if no rate would have been detected.
    """
    if min(len(base.runs), len(new.runs)) < RUNS_MIN:
        return None
    compared = sorted(
        (
            int(route.parsed.sum(axis=1).min()) if route.parsed.any() else route.requests
            for route in responses.routes
        ),
        reverse=True,
    )
    before = np.cumsum(compared) - compared
    big = [count for count, above in zip(compared, before, strict=True) if above < MOST * sum(compared)]
    return _finite(max(statistics.smallest_of_equal(judged, len(new.runs), count) for count in big or [0]))


def _opaque(findings: Sequence[FieldFinding], responses: Responses) -> tuple[list[str], float]:
    """Return a warning about bodies whose digests show nothing, and the share of the requests with such bodies.

    Digests show nothing if they differ in at least OPAQUE of the responses between runs of base.
    """
    sizes = {route.route: route.requests for route in responses.routes if not route.parsed.any()}
    routes = [
        one.route
        for one in findings
        if one.field == BODY and (one.within or 0.0) >= OPAQUE and not one.different and one.route in sizes
    ]
    if not routes:
        return [], 0.0
    share = sum(sizes[route] for route in routes) / sum(route.requests for route in responses.routes)
    more = f" and {counted(len(routes) - 1, 'more route')}" if len(routes) > 1 else ""
    return [
        f"bodies of {routes[0]}{more} differ between runs of one build, and are compared only by "
        f"their digests, so nothing is known about their content; keep JSON and text bodies with --keep-answers all"
    ], share


def _notes(base: RunsOfSide, new: RunsOfSide) -> list[str]:
    """Return notes on the runs."""
    notes = [*base.set_aside, *new.set_aside]
    starts = [[run.document.start.wall_ns for run in side.runs] for side in (base, new)]
    if min(map(len, starts)) >= 2 and (max(starts[0]) < min(starts[1]) or max(starts[1]) < min(starts[0])):
        notes.append(
            "all runs of one side were made before all runs of the other, so that changes over time or of state look like"
            " differences between the builds; `replay ab` makes runs in turns"
        )
    for run in (*base.runs, *new.runs):
        figures = run.document.answers
        if figures is not None and figures.dropped:
            dropped = ", ".join(f"{count:,} {reason}" for reason, count in figures.dropped.items())
            notes.append(f"{run.path} did not keep everything; dropped: {dropped}")
    return notes


def sentence_of(made: Differences) -> str:
    """Return the result in one sentence, for readers who do not know the terms."""
    base, new = made.base.label, made.new.label
    if made.reasons:
        worst = next(iter(made.fields), None)
        glance = (
            f"; observed so far: {_evidence(worst, base)}" if worst is not None and worst.p is None else ""
        )
        return f"nothing can be concluded: {made.reasons[0]}{glance}"
    if named := made.different:
        more = f", and {counted(len(named) - 1, 'more field')}" if len(named) > 1 else ""
        return f"{new} answers differently from {base}: {_evidence(named[0], base)}{more}"
    found = "no new difference would have been found, however frequent"
    if made.smallest is not None:
        found = f"a new difference in {format_share(made.smallest)} of a big route's responses would have been found"
    return (
        f"{new} answers as {base} does: no field differs more between the builds than between runs of {base}"
        f" ({made.requests:,} requests); {found}"
    )


def _evidence(found: FieldFinding, base: str) -> str:
    within = "" if found.within is None else f" ({format_share(found.within)} between runs of {base})"
    return (
        f"{found.route} {found.field} ({found.kind}) in {format_share(found.across)} of the responses{within}"
    )
