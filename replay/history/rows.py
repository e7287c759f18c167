"""The stored figures of a run: its label, host, verdict, and the figures of its routes. Links are not followed."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec

from replay.decoding import examined
from replay.errors import InputError, reason_of
from replay.files import read_whole
from replay.results.build_label import name_of
from replay.results.same_load import load_digest
from replay.results.verdicts import verdict_word

from .finding import Kind, first_trial, kind_of
from .searches import read_peak

DOCUMENT_BYTES_MAX = 256 << 20
INTEGER_MAX = (1 << 63) - 1


class Figures(msgspec.Struct, frozen=True):
    """The figures of one route, or of all routes (`route` is empty).

    `failed` is the share of requests that ended with a 5xx or without a complete response, or were never sent.
    """

    route: str
    requests: int
    failed: float
    p50_ns: int | None = None
    p99_ns: int | None = None


class Row(msgspec.Struct, frozen=True):
    """A run, or a search for the peak.

    `name` is its path below the folder. `load` is equal for runs of the same load. `stamp` changes when its run.json
    or peak.json is written again. `peak`, of a search, is in multiples of the recorded load.
    """

    name: str
    stamp: str
    kind: Kind = "run"
    started_ns: int = 0
    scenario: str = ""
    load: str = ""
    build: str = ""
    host: str = ""
    control_ns: int | None = None
    verdict: str = ""
    validity: str = ""
    ending: str = ""
    peak: float | None = None
    peak_per_s: float | None = None
    figures: list[Figures] = []
    problem: str = ""

    @property
    def is_comparable(self) -> bool:
        """Whether the result measured the target.

        A run that ended as planned or by the circuit breaker measured it, unless the run is INVALID. A search measured
        it if it found both a load that meets the objectives and one that does not.
        """
        if self.kind == "peak":
            return not self.problem and self.verdict == "FOUND" and self.peak_per_s is not None
        return not self.problem and self.ending in ("whole", "circuit_breaker") and self.validity != "INVALID"


class _Latency(msgspec.Struct):
    count: int
    p50_ns: int
    p99_ns: int


class _Latencies(msgspec.Struct):
    response: _Latency | None = None
    service: _Latency | None = None


class _Route(msgspec.Struct):
    route: str
    count: int
    outcomes: dict[str, int] = {}
    response: _Latency | None = None
    service: _Latency | None = None


class _Start(msgspec.Struct):
    wall_ns: int


class _Word(msgspec.Struct):
    verdict: str = ""
    how: str = "whole"
    digest: str = ""
    path: str = ""
    passed: bool = True
    failed: bool = False


class _Host(msgspec.Struct):
    name: str = ""
    cpu_model: str = ""
    cores_usable: int = 0
    control_ns: int | None = None


class _Document(msgspec.Struct):
    start: _Start
    validity: _Word
    latency: _Latencies
    routes: list[_Route] = []
    ending: _Word = msgspec.field(default_factory=_Word)
    trace: _Word | None = None
    status_differs: _Word | None = None
    slo: list[_Word] = []
    scenario: dict[str, Any] = {}
    closed_loop: bool = False
    name: str = ""
    build: str = ""
    host: _Host = msgspec.field(default_factory=_Host)


def read_row(root: Path, name: str, stamp: str) -> Row:
    """Return the row of a run or search. The row has a `problem` if its document cannot be read."""
    kind = kind_of(root, name)
    try:
        if kind == "peak":
            return _of_search(root, name, stamp)
        return _of_run(name, stamp, kind, _document(root / name))
    except (OSError, InputError) as error:
        problem = reason_of(error) if isinstance(error, OSError) else str(error)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        problem = f"damaged: {error}"
    return Row(name, stamp, kind, problem=problem)


def _document(folder: Path) -> _Document:
    return msgspec.json.decode(read_whole(folder / "run.json", DOCUMENT_BYTES_MAX), type=examined(_Document))


def _of_search(root: Path, name: str, stamp: str) -> Row:
    """Return the row of a search, with start, scenario, build and host from its first trial.

    `load` is equal for searches of the same load and objectives. Raise InputError if the search has no trial.
    """
    found, trial = read_peak(root / name / "peak.json"), first_trial(root, name)
    if not trial:
        raise InputError("it has no trial")
    document = _document(root / trial)
    row = _of_run(name, stamp, "peak", document)
    goals = msgspec.json.encode(
        [row.load, document.scenario.get("slo"), not found.trials], order="deterministic"
    )
    return msgspec.structs.replace(
        row,
        load=hashlib.blake2b(goals, digest_size=8).hexdigest(),
        verdict=found.verdict,
        validity="",
        ending="",
        peak=found.peak,
        peak_per_s=found.rate_per_s,
        figures=[],
    )


def _of_run(name: str, stamp: str, kind: Kind, document: _Document) -> Row:
    if not 0 <= document.start.wall_ns <= INTEGER_MAX:
        raise ValueError("its start is not a valid time")
    missed = not all(objective.passed for objective in document.slo)
    differs = document.status_differs is not None and document.status_differs.failed
    trace = document.trace or _Word()
    host = document.host
    return Row(
        name=name,
        stamp=stamp,
        kind=kind,
        started_ns=document.start.wall_ns,
        scenario=document.name or name_of(trace.path) or "(no name)",
        load=load_digest(document.scenario, trace.digest, document.closed_loop),
        build=document.build,
        host=f"{host.name}, {host.cpu_model}, {host.cores_usable} cores",
        control_ns=_bounded(host.control_ns),
        verdict=verdict_word(document.ending.how, document.validity.verdict, failed=missed or differs),
        validity=document.validity.verdict,
        ending=document.ending.how,
        figures=_figures(document),
    )


def _bounded(value: int | None) -> int | None:
    return value if value is not None and 0 < value <= INTEGER_MAX else None


def _figures(document: _Document) -> list[Figures]:
    """Return the figures over all routes, followed by those of each route."""
    total = sum(route.count for route in document.routes)
    failed = sum(_failed(route) for route in document.routes)
    everything = _of("", total, failed, document.latency.response or document.latency.service)
    each = [
        _of(route.route, route.count, _failed(route), route.response or route.service)
        for route in document.routes
    ]
    return [everything, *each]


def _failed(route: _Route) -> int:
    """Return the number of requests that ended with a 5xx or without a complete response, or were never sent."""
    good = sum(count for outcome, count in route.outcomes.items() if outcome in ("1xx", "2xx", "3xx", "4xx"))
    return max(sum(route.outcomes.values()) - good, 0)


def _of(route: str, requests: int, failed: int, latency: _Latency | None) -> Figures:
    p50, p99 = (latency.p50_ns, latency.p99_ns) if latency is not None and latency.count > 0 else (None, None)
    share = failed / requests if requests else 0.0
    return Figures(route, min(requests, INTEGER_MAX), share, _bounded(p50), _bounded(p99))
