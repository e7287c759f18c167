"""Compares runs with the responses in their recording, although the target has other data than the recorded service.

Values then differ, and the presence of fields may differ, too. Therefore a field is reported only for something that
never occurs in the recording: a new status or type, its absence if it is always present, or its presence if it is
always absent. A share of new responses counts only if the recording is large enough: a difference as frequent as that
must have occurred in it, except with a probability of SEEN_ALMOST_SURELY. With `values`, a field is also reported if
the new runs agree on a value that differs from the recorded one.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

import numpy as np

from replay.errors import UsageError
from replay.trace import Trace
from replay.units import counted, format_share

from .counting import Aspect, RouteCounter
from .examples import Where, add_examples
from .fields import OBJECT, SOME_ABSENT
from .findings import RECORDED, ComparedSide, Differences, FieldFinding, Verdict
from .ignoring import Ignoring
from .judging import STABLE, Options, RunsOfSide, invalid_runs, refuse_unlike, rules_of
from .reading import KeptRun, Responses, RouteResponses, read_responses
from .recorded_run import write_recorded
from .values import Kind

SHARE_MIN = 0.10
STATUS_SHARE_MIN = 0.50
"""Minimum shares of new responses that are reported, for fields and types, and for statuses. The data may cause smaller
shares, and statuses depend more on data than types do."""

SEEN_ALMOST_SURELY = 1e-4
_RECORDED_MIN = 10


def compare_with_recording(new: RunsOfSide, trace_path: str | None, options: Options) -> Differences:
    """Compare runs with their recording.

    Raise UsageError if the recording is not available or has no responses, and the errors of `refuse_unlike`,
    `read_responses` and `rules_of`.
    """
    runs = new.runs
    refuse_unlike(runs)
    base = ComparedSide(RECORDED, ())
    if refused := invalid_runs([new]):
        sentence = f"these runs allow no verdict on the build: {refused[0]}"
        return Differences("INVALID", sentence, base, new.compared, tuple(refused), fail_on=options.fail_on)
    trace = _trace_of(runs[0], trace_path)
    with tempfile.TemporaryDirectory(prefix="replay-diff-") as area:
        recorded = Path(area) / RECORDED
        notes = write_recorded(trace, runs, recorded)
        document = runs[0].document
        if not KeptRun(recorded, document).answers:
            read_responses(runs)  # This raises if the runs kept no responses.
            raise UsageError(f"{trace.path} has no recorded response to any request of these runs")
        responses = read_responses([KeptRun(recorded, document), *runs])
        ignoring = Ignoring([*rules_of(runs), *options.ignore])
        found = _Comparison(responses, ignoring, options)
        found.judge()
        kinds = [finding.kind for finding in found.findings]
        add_examples(found.findings, found.places, found.counters, [KeptRun(recorded, document), *runs])
        responses.notes = [note.replace(str(recorded), "the recording") for note in responses.notes]
    for finding, kind in zip(found.findings, kinds, strict=True):
        finding.examples = [one._replace(base_run=RECORDED) for one in finding.examples]
        finding.kind = kind if finding.aspect == "shape" else finding.kind
    return _made(found, base, new, options, [*notes, *responses.notes, *found.notes, *ignoring.unused()])


def _made(
    found: _Comparison, base: ComparedSide, new: RunsOfSide, options: Options, notes: list[str]
) -> Differences:
    reasons = []
    if not found.judged:
        reasons.append("no route has enough recorded responses with a body to compare")
    if options.values and len(new.runs) < 2:
        reasons.append(
            f"only one run of {new.label}, and --values needs two or more: the variation of its own responses is not known"
        )
    findings = sorted(found.findings, key=lambda one: (-one.across, one.route, one.field))
    if reasons:
        for finding in findings:
            finding.different = False
    verdict: Verdict = "SAME"
    sentence = _same_sentence(found, new, options)
    if reasons:
        verdict, sentence = "INCONCLUSIVE", f"nothing can be concluded: {reasons[0]}"
    elif findings:
        first = findings[0]
        more = f", and {counted(len(findings) - 1, 'more field')}" if len(findings) > 1 else ""
        verdict = "DIFFERENT"
        sentence = (
            f"{new.label} answers differently from the recording: {first.route} {first.field} ({first.kind}) in"
            f" {format_share(first.across)} of the responses{more}"
        )
    return Differences(
        verdict, sentence, base, new.compared, tuple(reasons), tuple(notes), tuple(findings),
        tuple(found.ignoring.left_out.values()), requests=sum(route.requests for route in found.responses.routes),
        routes=len(found.responses.routes), equal=found.judged - len(findings),
        smallest=SHARE_MIN if found.judged else None, fail_on=options.fail_on,
    )  # fmt: skip


def _same_sentence(found: _Comparison, new: RunsOfSide, options: Options) -> str:
    what = "fields, types and values" if options.values else "fields and types"
    more = "" if options.values else "; values were not compared (--values)"
    return (
        f"{new.label} answers with the {what} of the recording ({found.judged:,} fields); a new type, or a missing or"
        f" added field, in {format_share(SHARE_MIN)} of a big route's responses would have been found{more}"
    )


def _trace_of(run: KeptRun, given: str | None) -> Trace:
    """Open the recording of a run.

    Raise UsageError if it is missing, is not the one that was replayed, or has no responses.
    """
    identity = run.document.trace
    place = given or (identity.path if identity is not None else "")
    if not place:
        raise UsageError(f"{run.path} does not record its trace", hint="give it with --trace TRACE")
    if not Path(place).is_dir():
        raise UsageError(
            f"there is no trace at {place}, the recording of {run.path}",
            hint="give the trace with --trace TRACE; if there is none, import the recording first",
        )
    trace = Trace.open(place)
    if identity is not None and trace.digest != identity.digest:
        raise UsageError(
            f"{place} is not the recording that {run.path} replayed", hint="give that one with --trace TRACE"
        )
    if not trace.manifest.responses:
        raise UsageError(
            f"{place} holds no recorded responses",
            hint="HAR files, .gor files, packet captures and recordings of the proxy can contain them",
        )
    return trace


class _Comparison:
    """The comparison, route by route. The recording is run 0."""

    def __init__(self, responses: Responses, ignoring: Ignoring, options: Options) -> None:
        self.responses, self.ignoring, self.options = responses, ignoring, options
        self.counters: dict[str, RouteCounter] = {}
        self.findings: list[FieldFinding] = []
        self.places: list[Where] = []
        self.notes: list[str] = []
        self.judged = 0

    def judge(self) -> None:
        """Judge all routes, and collect findings and notes."""
        for route in self.responses.routes:
            self.counters[route.route] = RouteCounter(route)
            self._heads(route)
            self._fields(route)
            if self.options.values and len(route.parsed) > 2:
                self._values(route)

    def _heads(self, route: RouteResponses) -> None:
        """Judge the status, and then media types of responses with the same status."""
        statuses = route.heads["status"]
        there = np.broadcast_to(statuses[0] != 0, statuses[1:].shape)
        differs = there & (statuses[1:] != statuses[0])
        unseen = differs & ~np.isin(statuses[1:], np.unique(statuses[0]))
        self._name(route, "status", "value", unseen, there, int((statuses[0] != 0).sum()), STATUS_SHARE_MIN)
        if differs.any():
            share = differs.sum() / max(there.sum(), 1)
            self.notes.append(
                f"{route.route}: {format_share(float(share))} of the responses have another status than recorded; their"
                " bodies are not compared"
            )
        if "type" in route.heads:
            types = route.heads["type"]
            same = there & ~differs
            unseen = same & ~np.isin(types[1:], np.unique(types[0]))
            self._name(route, "type", "value", unseen, same, int(same.any(axis=0).sum()), SHARE_MIN)

    def _fields(self, route: RouteResponses) -> None:
        """Judge the types and the presence of the fields of bodies, wherever the field's parent is an object."""
        statuses = route.heads["status"]
        usable = route.parsed & route.parsed[0] & (statuses == statuses[0])
        usable[0] = usable[1:].any(axis=0)
        columns = [_types_of(route, index) for index in range(len(route.names.names))]
        for index, name in enumerate(route.names.names):
            if name.startswith("line"):
                continue
            parent = route.names.parents[index]
            held = usable if parent < 0 else usable & (columns[parent] & OBJECT != 0)
            types = np.where(columns[index] == 0, SOME_ABSENT, columns[index])
            self._types(route, name, np.where(held, types, 0), held)

    def _types(self, route: RouteResponses, name: str, types: np.ndarray, held: np.ndarray) -> None:
        recorded = int(held[0].sum())
        if recorded < _RECORDED_MIN or not held[1:].any():
            return
        self.judged += 1
        seen = int(np.bitwise_or.reduce(types[0]))
        unseen = (types[1:] & ~np.uint16(seen)) != 0
        kind: Kind = "type"
        if unseen.any():
            bits = int(np.bitwise_or.reduce(types[1:][unseen])) & ~seen
            kind = "absent" if bits & SOME_ABSENT else "added" if seen == SOME_ABSENT else "type"
        self._name(route, name, kind, unseen, held[1:], recorded, SHARE_MIN)

    def _values(self, route: RouteResponses) -> None:
        """Report fields in which new runs agree on a value that differs from the recorded one."""
        counter = self.counters[route.route]
        new = len(route.parsed) - 1
        named = {(one.route, one.field) for one in self.findings}
        for rates in counter.all_rates():
            across, within = rates.rates[:new].mean(), rates.rates[new:].mean()
            if (
                within > STABLE
                or across <= STABLE
                or (route.route, rates.field) in named
                or rates.field == "status"
            ):
                continue
            if self.ignoring.takes(route.route, rates.field):
                continue
            values = counter.dense(rates.field, rates.aspect)
            if rates.field.startswith("header ") and not values[0].any():
                continue  # Many recordings keep no headers, so their absence means nothing.
            usable = counter.compared(rates.field) & counter.compared(rates.field)[0]
            usable = usable & (route.heads["status"] == route.heads["status"][0])
            differs = (values[1:] != values[0]) & usable[1:]
            self._add(route, rates.field, "value", "value", differs, float(across), float(within))
            named.add((route.route, rates.field))

    def _name(
        self,
        route: RouteResponses,
        name: str,
        kind: Kind,
        unseen: np.ndarray,
        of: np.ndarray,
        recorded: int,
        least: float,
    ) -> None:
        """Report a field if enough new responses have something that no recorded one has.

        The recording must also be so large that this would hardly be missing from it by chance.
        """
        share = float(unseen.sum() / max(of.sum(), 1))
        if share < least or recorded * -math.log1p(-min(share, 0.99)) < -math.log(SEEN_ALMOST_SURELY):
            return
        if not self.ignoring.takes(route.route, name):
            aspect: Aspect = "value" if name in route.heads else "shape"
            self._add(route, name, kind, aspect, unseen, share, 0.0)

    def _add(
        self,
        route: RouteResponses,
        name: str,
        kind: Kind,
        aspect: Aspect,
        differs: np.ndarray,
        across: float,
        within: float,
    ) -> None:
        rows = np.flatnonzero(differs.any(axis=0))
        nothing = np.zeros(len(rows), np.uint32)
        self.places.append(
            Where(rows, np.zeros(len(rows), np.int64), differs[:, rows].argmax(axis=0) + 1, nothing, nothing)
        )
        self.findings.append(
            FieldFinding(
                route.route, name, kind, aspect, within, across, True, None, SHARE_MIN, float(route.requests),
                requests=len(rows), clients=len(np.unique(route.clients[rows])),
            )
        )  # fmt: skip


def _types_of(route: RouteResponses, index: int) -> np.ndarray:
    """Return the types of a field as uint16[runs, requests]."""
    found = np.zeros(route.parsed.shape, np.uint16)
    for at, sightings in enumerate(route.sightings):
        if (one := sightings.get(index)) is not None and len(one.rows):
            found[at, np.frombuffer(one.rows, np.uint32)] = np.frombuffer(one.types, np.uint16)
    return found
