"""Reads the kept responses of several runs, and aligns the responses to the same request of the trace."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from replay.errors import InputError
from replay.results.answers import FORMS, Answers
from replay.results.document import RunDocument
from replay.units import counted

from .fields import FORM_HTML, FORM_JSON, FORM_TEXT, Flattener, Names, Sightings

UNKNOWN = np.uint32(1)
"""The value in a column of hashes for a part that a response has, but whose hash is not known."""

LOST_ROWS = ("ring", "disk", "late")
"""Reasons why a run may have no row for a response that it received."""

BODIES_MAX = 2_000_000
"""Maximum number of parsed bodies over all runs. If there could be more, only every n-th request is parsed."""


_COPIES_BITS = 32
_FIELD_FORMS = (FORM_JSON, FORM_TEXT, FORM_HTML)
_HEAD = (
    "number",
    "copy",
    "client",
    "route",
    "due_ns",
    "status",
    "type",
    "encoding",
    "form",
    "digest",
    "headers",
)


@dataclass(frozen=True, slots=True)
class KeptRun:
    """A run whose kept responses are compared: its folder and its document."""

    path: Path
    document: RunDocument

    @property
    def answers(self) -> Answers:
        """The responses of the run, not yet read."""
        return Answers(self.path)


@dataclass(slots=True, eq=False)
class RouteResponses:
    """The responses to one route: `keys`, `clients` and `due_ns` by request, all other arrays by run and request.

    `heads` holds uint32 hashes of status, type, `header NAME` and body (its digest), by name; `forms` has the form of
    each body. `parsed` marks the parsed bodies, whose fields are in `sightings`. `is_lossy`: a request without a row
    may have received a response.
    """

    route: str
    keys: np.ndarray
    clients: np.ndarray
    due_ns: np.ndarray
    statuses: np.ndarray
    heads: dict[str, np.ndarray] = field(default_factory=dict)
    forms: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint8))
    parsed: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    names: Names = field(default_factory=Names)
    sightings: list[dict[int, Sightings]] = field(default_factory=list)
    is_lossy: bool = False

    @property
    def requests(self) -> int:
        """The number of requests of the route of which at least one run kept the response."""
        return len(self.keys)


@dataclass(slots=True, eq=False)
class Responses:
    """The responses of all routes, with notes from the reading."""

    routes: list[RouteResponses]
    notes: list[str] = field(default_factory=list)
    bodies: bool = False


def key_parts(key: int) -> tuple[int, int]:
    """Return number and copy of a request, from its key."""
    return key >> _COPIES_BITS, key & ((1 << _COPIES_BITS) - 1)


def read_responses(runs: Sequence[KeptRun]) -> Responses:
    """Read the responses up to the time that all runs cover.

    Raise InputError if a run kept no responses, if its files cannot be read, or if no run has a response in that time.
    """
    notes: list[str] = []
    heads = [_read_head(run, notes) for run in runs]
    horizon = _horizon(runs, heads, notes)
    universe = _universe(heads, horizon)
    if not universe.keys.size:
        raise InputError(
            f"{runs[0].path} and the other runs have no responses in the time that all of them cover",
            hint="; ".join(notes),
        )
    routes = _routes(universe, _route_names(runs[0]))
    if any(_lost_rows(run) for run in runs):
        for route in routes.values():
            route.is_lossy = True
    left_out = _headers_of_some(runs, notes)
    for at, head in enumerate(heads):
        _place_head(at, len(runs), head, universe, routes, left_out)
    _note_encodings(runs, heads, notes)
    found = Responses(list(routes.values()), notes)
    _read_bodies(runs, universe, found)
    for route in found.routes:
        if route.names.folded:
            notes.append(
                f"{route.route}: fields beyond the first {len(route.names.names) - 1:,} are judged as one field,"
                " (other fields)"
            )
    return found


def _route_names(run: KeptRun) -> Sequence[str]:
    """Return the names of the routes, in the order in which the run numbered them."""
    figures = run.document.answers
    return figures.routes if figures is not None else []


def _headers_of_some(runs: Sequence[KeptRun], notes: list[str]) -> set[str]:
    """Return the headers that only some runs kept because of their settings, so that their absence means nothing."""
    asked: list[set[str]] = [
        {f"header {str(name).lower()}" for name in settings.get("headers") or ()}
        for run in runs
        if isinstance(settings := run.document.scenario.get("answers"), dict)
    ]
    if len(asked) < len(runs):
        return set()
    left_out = asked[0].union(*asked[1:]) - asked[0].intersection(*asked[1:])
    if left_out:
        notes.append(f"not compared, because not all runs kept these fields: {', '.join(sorted(left_out))}")
    return left_out


def _lost_rows(run: KeptRun) -> bool:
    """Return whether the run may have received a response for which it has no row."""
    figures = run.document.answers
    return figures is not None and any(reason in LOST_ROWS for reason in figures.dropped)


@dataclass(slots=True, eq=False)
class _Head:
    """The columns of one run, without bodies, by ascending key. For `sound_until_ns` see `Answers`."""

    keys: np.ndarray
    table: pa.Table
    sound_until_ns: int | None


def _read_head(run: KeptRun, notes: list[str]) -> _Head:
    answers = run.answers
    if not answers:
        raise InputError(
            f"{run.path} kept no responses", hint="run it with --keep-answers all (or digest, sample)"
        )
    table = answers.by_number(*_HEAD)
    notes += [f"{run.path}/answers/{name}: {why}" for name, why in answers.problems.items()]
    numbers, copies = (table[name].to_numpy().astype(np.uint64) for name in ("number", "copy"))
    if numbers.size and int(numbers[-1]) >> (63 - _COPIES_BITS):
        raise InputError(f"{run.path}/answers holds request numbers that no trace has")
    keys = (numbers << np.uint64(_COPIES_BITS) | copies).astype(np.int64)
    last = np.append(keys[1:] != keys[:-1], True) if keys.size else np.zeros(0, bool)
    if (twice := int(keys.size - last.sum())) > 0:
        notes.append(
            f"{run.path} has {counted(twice, 'repeated response')}: the last response to a request counts"
        )
        table, keys = table.filter(pa.array(last)), keys[last]
    return _Head(keys, table, answers.sound_until_ns() if answers.problems else None)


def _horizon(runs: Sequence[KeptRun], heads: Sequence[_Head], notes: list[str]) -> int | None:
    """Return the due time up to which all runs have data; None if no run was cut short or has damaged files."""
    found: int | None = None
    for run, head in zip(runs, heads, strict=True):
        how, last = run.document.ending.how, head.sound_until_ns
        if how == "whole" and last is None:
            continue
        why = f"did not end normally ({how})" if last is None else "has damaged files of responses"
        if last is None:
            last = int(head.table["due_ns"].to_numpy().max()) if len(head.keys) else -1
        notes.append(
            f"{run.path} {why}: requests that were due after its first {max(last, 0) / 1e9:.3g} s are not compared"
        )
        found = last if found is None else min(found, last)
    return found


@dataclass(slots=True, eq=False)
class _Universe:
    """Every request, up to the horizon, of which at least one run kept the response.

    `local` is the position of a request among those of its route.
    """

    keys: np.ndarray
    clients: np.ndarray
    routes: np.ndarray
    due_ns: np.ndarray
    local: np.ndarray


def _universe(heads: Sequence[_Head], horizon: int | None) -> _Universe:
    columns = [
        np.concatenate([head.table[name].to_numpy().astype(np.int64) for head in heads])
        for name in ("client", "route", "due_ns")
    ]
    keys, first = np.unique(np.concatenate([head.keys for head in heads]), return_index=True)
    clients, routes, due_ns = (column[first] for column in columns)
    if horizon is not None:
        kept = due_ns <= horizon
        keys, clients, routes, due_ns = keys[kept], clients[kept], routes[kept], due_ns[kept]
    order = np.argsort(routes, kind="stable")
    local = np.empty(len(keys), np.int64)
    starts = np.searchsorted(routes[order], routes[order], "left")
    local[order] = np.arange(len(keys)) - starts
    return _Universe(keys, clients, routes, due_ns, local)


def _routes(universe: _Universe, names: Sequence[str]) -> dict[int, RouteResponses]:
    made: dict[int, RouteResponses] = {}
    for index in np.unique(universe.routes).tolist():
        own = universe.routes == index
        name = names[index] if index < len(names) else f"(route {index})"
        made[index] = RouteResponses(
            name, universe.keys[own], universe.clients[own], universe.due_ns[own], np.zeros(0)
        )
    return made


def _hash(data: bytes) -> int:
    """Return a hash of 32 bits that is neither ABSENT nor UNKNOWN."""
    return max(zlib.crc32(data), 2)


def _hashes(column: pa.ChunkedArray) -> np.ndarray:
    """Return the hash of each text of a dictionary column, as uint32."""
    parts = []
    for chunk in column.chunks:
        table = np.array([_hash(text.encode()) for text in chunk.dictionary.to_pylist()] or [2], np.uint32)
        parts.append(table[chunk.indices.to_numpy()])
    return np.concatenate(parts) if parts else np.zeros(0, np.uint32)


def _place_head(
    at: int,
    runs: int,
    head: _Head,
    universe: _Universe,
    routes: dict[int, RouteResponses],
    left_out: Set[str],
) -> None:
    """Copy the columns of one run to the places of its requests."""
    place = np.searchsorted(universe.keys, head.keys)
    place[place == len(universe.keys)] = 0
    kept = universe.keys[place] == head.keys
    place = place[kept]
    table = head.table
    digests = table["digest"].to_numpy()[kept]
    folded = (digests ^ digests >> np.uint64(32)).astype(np.uint32)
    forms = table["form"].to_numpy()[kept]
    columns = {
        "status": table["status"].to_numpy()[kept].astype(np.int64).astype(np.uint32) + np.uint32(2),
        "type": _hashes(table["type"])[kept],
        "body": np.where((digests == 0) & (forms != 0), UNKNOWN, np.maximum(folded, 2)),
    }
    columns |= {
        name: values for name, values in _headers(table["headers"], kept).items() if name not in left_out
    }
    for index, route in routes.items():
        own = universe.routes[place] == index
        rows = universe.local[place[own]]
        if not route.forms.size:
            route.forms = np.full((runs, route.requests), 255, np.uint8)
            route.statuses = np.zeros((runs, route.requests), np.int16)
            route.parsed = np.zeros((runs, route.requests), bool)
        route.forms[at, rows] = forms[own]
        route.statuses[at, rows] = table["status"].to_numpy()[kept][own]
        for name, values in columns.items():
            if not values[own].any():
                continue
            if name not in route.heads:
                route.heads[name] = np.zeros((runs, route.requests), np.uint32)
            route.heads[name][at, rows] = values[own]


def _headers(column: pa.ChunkedArray, kept: np.ndarray) -> dict[str, np.ndarray]:
    """Return, by `header NAME`, a hash of all its values in each response; 0 if a response lacks the header.

    Each distinct value is hashed only once.
    """
    found: dict[str, np.ndarray] = {}
    begin = 0
    for chunk in column.chunks:
        rows = begin + np.repeat(np.arange(len(chunk)), np.diff(chunk.offsets.to_numpy()))
        begin += len(chunk)
        pairs = chunk.flatten()
        names, values = (pairs.field(part).dictionary_encode() for part in ("name", "value"))
        hashes = np.array([_hash(value) for value in values.dictionary.to_pylist()], np.uint32)
        for index, name in enumerate(names.dictionary.to_pylist()):
            own = np.flatnonzero(names.indices.to_numpy() == index)
            sums = found.setdefault(f"header {name.lower()}", np.zeros(len(kept), np.uint32))
            np.add.at(sums, rows[own], hashes[values.indices.to_numpy()[own]])
    return {name: sums[kept] for name, sums in found.items()}


def _note_encodings(runs: Sequence[KeptRun], heads: Sequence[_Head], notes: list[str]) -> None:
    """Add notes if runs received different content codings, and if bodies could not be decoded."""
    by_run = []
    for head in heads:
        seen = {text for chunk in head.table["encoding"].chunks for text in chunk.unique().to_pylist()}
        by_run.append(tuple(sorted(seen)))
    if len(set(by_run)) > 1:
        other = next(at for at, seen in enumerate(by_run) if seen != by_run[0])
        sentences = [f"{runs[at].path} got {', '.join(by_run[at]) or 'no responses'}" for at in (0, other)]
        notes.append(f"content codings differ ({'; '.join(sentences)}): bodies are compared decoded")
    unreadable = sum(
        int((head.table["form"].to_numpy() == FORMS.index("unreadable")).sum()) for head in heads
    )
    if unreadable:
        notes.append(f"{counted(unreadable, 'body', 'bodies')} could not be decoded: compared as sent")


def _read_bodies(runs: Sequence[KeptRun], universe: _Universe, found: Responses) -> None:
    """Parse the kept bodies of all runs; if there could be more than BODIES_MAX, only those of every n-th request."""
    by_route = dict(zip(np.unique(universe.routes).tolist(), found.routes, strict=True))
    every = max(1, -(-len(universe.keys) * len(runs) // BODIES_MAX))
    for at, run in enumerate(runs):
        flatteners = {index: Flattener(route.names) for index, route in by_route.items()}
        for place, body, form in _bodies(run, universe):
            if place % every:
                continue
            index, row = int(universe.routes[place]), int(universe.local[place])
            flatteners[index].add(row, body, form)
            by_route[index].parsed[at, row] = True
            found.bodies = True
        for index, route in by_route.items():
            route.sightings.append(flatteners[index].sightings)
    _note_missing_bodies(runs, found)
    if found.bodies and every > 1:
        found.notes.append(
            f"there are very many responses, so the bodies of only one request in {every} are compared by field"
        )


def _note_missing_bodies(runs: Sequence[KeptRun], found: Responses) -> None:
    """Add a note if a run kept no bodies although another one did: fields are compared only if both runs kept them."""
    counts = [sum(int(route.parsed[at].sum()) for route in found.routes) for at in range(len(runs))]
    if found.bodies and min(counts) == 0:
        few, many = (runs[counts.index(extreme(counts))].path for extreme in (min, max))
        found.notes.append(f"{few} kept no bodies, {many} did: bodies are compared by their digests")


def _bodies(run: KeptRun, universe: _Universe) -> Iterator[tuple[int, bytes, int]]:
    """Yield each complete body that has fields: its position among all requests, the body, and its form."""
    for batch in run.answers.batches("number", "copy", "form", "body", "cut"):
        keys = batch["number"].to_numpy() << np.uint64(_COPIES_BITS) | batch["copy"].to_numpy()
        keys = keys.astype(np.int64)
        places = np.minimum(np.searchsorted(universe.keys, keys), len(universe.keys) - 1)
        forms = batch["form"].to_numpy()
        usable = (universe.keys[places] == keys) & np.isin(forms, _FIELD_FORMS)
        usable &= ~batch["cut"].to_numpy(zero_copy_only=False)
        usable &= batch["body"].is_valid().to_numpy(zero_copy_only=False)
        chosen = np.flatnonzero(usable)
        bodies = batch["body"].take(pa.array(chosen)).to_pylist()
        yield from zip(places[chosen].tolist(), bodies, forms[chosen].tolist(), strict=True)
