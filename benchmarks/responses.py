"""Whether the fields that differ between responses are named, and only these: planted faults, A/A splits, Diffy's rule.

    python -m benchmarks.responses --seed 7 [--requests 20000] [--faults 100] [--pool 40] [--splits 200]

The service is `tests/support/response_data.py`. Its responses contain ids, dates, a shuffled set, measured floats, a token
and a cache age. Each fault is planted into 4 runs, which are compared with 4 runs of base. Diffy's rule is applied to the
same runs, written from its description: a primary, a secondary (both base) and a candidate. It names a field if raw
differences and noise differ by more than 20% of their sum, and by more than 0.03% of the requests.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from replay.differences import statistics
from replay.differences.counting import RouteCounter, run_pairs
from replay.differences.findings import Differences
from replay.differences.judging import Options, RunsOfSide, compare_responses
from replay.differences.reading import KeptRun, read_responses
from replay.results.answers import Answers
from replay.results.run import load_run
from tests.support.response_data import ROUTES, Fault, Reply, make_run

PATHS: tuple[tuple[int, str], ...] = (
    *(
        (0, f"/{name}")
        for name in ("name", "price/amount", "price/currency", "stock", "available", "rating", "tags")
    ),
    *(
        (0, f"/{name}")
        for name in ("description", "brand/id", "brand/name", "brand/country", "discount", "token")
    ),
    *(
        (1, f"/{name}")
        for name in ("query", "total", "items", "items/*/title", "items/*/price", "facets/size")
    ),
    *((1, f"/{name}") for name in ("facets/colour", "next", "meta/request_id")),
    *((2, f"/{name}") for name in ("order_id", "state", "total", "currency", "lines", "lines/*/quantity")),
    *((2, f"/{name}") for name in ("shipping/method", "shipping/days", "shipping/free", "created_at")),
)
WAYS = (
    "missing",
    "null",
    "type",
    "wrong",
    "truncated",
    "reordered",
    "rounded",
    "rare",
    "one client",
    "added",
)
RELATIVE, ABSOLUTE = 20.0, 0.03
"""Diffy's thresholds, in percent."""


class Planted(NamedTuple):
    """A fault: the field, the way in which it is changed, and the share of the route's responses."""

    route: int
    path: str
    way: str
    rate: float


def catalogue(seed: int, count: int) -> list[Planted]:
    """Draw at most `count` faults from all that make sense."""
    rng = random.Random(seed)
    made = []
    for route, path in PATHS:
        for way in WAYS:
            if way in ("truncated", "reordered") and path not in (
                "/items",
                "/lines",
                "/facets/size",
                "/tags",
            ):
                continue
            if way == "rounded" and path not in ("/price/amount", "/rating", "/total", "/items/*/price"):
                continue
            noisy = path in ("/token", "/order_id", "/created_at", "/meta/request_id", "/tags", "/lines")
            if noisy and way in ("wrong", "rare", "one client", "reordered"):
                continue
            rate = {"rare": 0.001, "one client": 1 / 97}.get(way, rng.choice([1.0, 0.2, 0.02]))
            made.append(Planted(route, path, way, rate))
    rng.shuffle(made)
    return made[:count]


def fault_of(planted: Planted) -> Fault:
    """Return a function that plants the fault into a reply."""

    def plant(reply: Reply, chance: random.Random) -> None:
        if reply.route != planted.route or reply.document is None:
            return
        if planted.way == "one client":
            if reply.client != 11:
                return
        elif chance.random() >= planted.rate:
            return
        for holder, key in _holders(reply.document, planted.path):
            _change(holder, key, planted.way)

    return plant


def _holders(document: Any, path: str) -> Iterator[tuple[Any, str]]:
    *above, key = path.split("/")[1:]
    nodes = [document]
    for token in above:
        nodes = [inner for node in nodes for inner in (node if token == "*" else [node[token]])]
    yield from ((node, key) for node in nodes)


def _change(holder: Any, key: str, way: str) -> None:
    value = holder[key]
    if way == "missing":
        del holder[key]
    elif way == "null":
        holder[key] = None
    elif way == "type":
        holder[key] = [value]
    elif way == "added":
        holder[f"{key}_new"] = "new"
    elif way == "truncated":
        holder[key] = value[:-1]
    elif way == "reordered":
        holder[key] = value[::-1]
    elif way == "rounded":
        holder[key] = round(value, 1)
    elif isinstance(value, bool):
        holder[key] = not value
    elif isinstance(value, (int, float)):
        holder[key] = value + 1
    elif isinstance(value, str):
        holder[key] = value + "?"
    else:
        holder[key] = [*value, *value[:1]] if isinstance(value, list) else 0


def side(label: str, paths: Sequence[Path]) -> RunsOfSide:
    """Return a side of the comparison from the folders of its runs."""
    return RunsOfSide(label, tuple(KeptRun(path, load_run(path).document) for path in paths))


def is_about(route: str, field: str, planted: Planted) -> bool:
    """Return whether a field is the one of the fault, contains it, or is a part of it."""
    path = planted.path + ("_new" if planted.way == "added" else "")
    return route == ROUTES[planted.route] and (
        field == path or field.startswith(f"{path}/") or path.startswith(f"{field}/")
    )


class Score:
    """Counts of faults by result.

    `false` counts faults for which an unrelated field was named, `below` those missed at a rate that may be missed.
    """

    def __init__(self) -> None:
        self.found, self.false, self.below = 0, 0, 0
        self.missed: list[Planted] = []

    def add(self, planted: Planted, named: Sequence[tuple[str, str]], smallest: float | None) -> None:
        """Count one fault by the fields that were named.

        `smallest` is the smallest rate that should be found; if it is None, a miss is not recorded.
        """
        about = [one for one in named if is_about(*one, planted)]
        self.found += bool(about)
        self.false += len(about) < len(named)
        if not about and smallest is not None:
            if planted.rate > smallest:
                self.missed.append(planted)
            else:
                self.below += 1


def ours(found: Differences, planted: Planted) -> tuple[list[tuple[str, str]], float]:
    """Return the fields that replay names, and the smallest rate that it states for the field of the fault."""
    stated = [
        1.0 if one.smallest is None else one.smallest
        for one in found.fields
        if is_about(one.route, one.field, planted)
    ]
    return [(one.route, one.field) for one in found.different], min(stated, default=found.smallest or 1.0)


def faults(args: argparse.Namespace, area: Path) -> None:
    """Plant faults, and print how many replay and Diffy's rule find."""
    base = [
        make_run(area / f"base-{n}", seed=args.seed + n, label=2 * n, requests=args.requests)
        for n in range(4)
    ]
    mine, theirs = Score(), Score()
    took = 0.0
    planted_all = catalogue(args.seed, args.faults)
    for at, planted in enumerate(planted_all):
        new = [
            make_run(
                area / f"new-{n}", seed=args.seed + 1_000 + 10 * at + n, label=2 * n + 1, requests=args.requests,
                fault=fault_of(planted),
            )
            for n in range(4)
        ]  # fmt: skip
        began = time.monotonic()
        found = compare_responses(side("base", base), side("new", new), Options())
        took += time.monotonic() - began
        mine.add(planted, *ours(found, planted))
        theirs.add(planted, diffy(base[0], base[1], new[0]), None)
        for path in new:
            shutil.rmtree(path)
    print(f"{len(planted_all)} planted faults, 4 v 4 runs of {args.requests:,} requests, seed {args.seed}")
    print(f"{'':10}found  with a false name")
    print(f"replay    {mine.found:5}  {mine.false:5}   {took / len(planted_all):.1f} s each")
    print(f"Diffy     {theirs.found:5}  {theirs.false:5}")
    print(
        f"replay missed {mine.below} faults below the smallest rate that it states, and {len(mine.missed)} above it:"
        f" {mine.missed}"
    )


def splits(args: argparse.Namespace, area: Path) -> None:
    """Split a pool of runs of one build into random sides of 4, and print how often a field is named.

    Diffy's rule is applied to a tenth of the splits.
    """
    pool = [
        make_run(area / f"pool-{n}", seed=args.seed + 50_000 + n, label=n, requests=args.requests)
        for n in range(args.pool)
    ]
    responses = read_responses([KeptRun(path, load_run(path).document) for path in pool])
    rates = [one for route in responses.routes for one in RouteCounter(route).all_rates()]
    table = np.array([one.rates for one in rates])
    compared = np.array([one.compared for one in rates])
    place = np.zeros((args.pool, args.pool), np.int64)
    one, two = run_pairs(args.pool)
    place[one, two] = place[two, one] = np.arange(len(one))
    rng = np.random.default_rng(args.seed)
    named = diffy_named = 0
    for at in range(args.splits):
        chosen = rng.permutation(args.pool)[:8]
        a, b = run_pairs(8)
        judged = statistics.judge(table[:, place[chosen[a], chosen[b]]], compared, 4, 4)
        named += bool((judged.p <= statistics.ALPHA).any())
        if at < args.splits // 10:
            diffy_named += bool(diffy(*(pool[n] for n in chosen[:3])))
    print(
        f"A/A: {named} of {args.splits} splits of {args.pool} runs name a field ({len(rates)} aspects are tested)"
    )
    print(f"Diffy: {diffy_named} of {args.splits // 10} splits name a field")


def diffy(primary: Path, secondary: Path, candidate: Path) -> list[tuple[str, str]]:
    """Return the fields that Diffy's rule names."""
    bodies = [_bodies(path) for path in (primary, secondary, candidate)]
    raw, noise, total = Counter(), Counter(), Counter()  # type: ignore[var-annotated]
    for number, (route, status, body) in bodies[0].items():
        others = [side.get(number) for side in bodies[1:]]
        total[route] += 1
        for counts, other in ((noise, others[0]), (raw, others[1])):
            if other is None or other[1] != status:
                counts[route, "status"] += 1
            else:
                counts.update((route, field) for field in set(_differences(body, other[2], "")))
    named = []
    for (route, field), count in raw.items():
        noisy = noise[route, field]
        relative = 100 * abs(count - noisy) / (count + noisy)
        absolute = 100 * abs(count - noisy) / total[route]
        if relative > RELATIVE and absolute > ABSOLUTE:
            named.append((ROUTES[route], field))
    return named


def _bodies(path: Path) -> dict[int, tuple[int, int, Any]]:
    found = {}
    for batch in Answers(path).batches("number", "route", "status", "form", "body"):
        for row in batch.to_pylist():
            body = msgspec.json.decode(row["body"]) if row["form"] == 1 else row["body"]
            found[row["number"]] = (row["route"], row["status"], body)
    return found


def _differences(one: Any, two: Any, path: str) -> Iterator[str]:
    """Yield the paths at which two documents differ.

    An index of an array is written as `*` if its item is an object, and left out otherwise.
    """
    if type(one) is not type(two):
        yield path
    elif isinstance(one, dict):
        for key in one.keys() | two.keys():
            if key not in one or key not in two:
                yield f"{path}/{key}"
            else:
                yield from _differences(one[key], two[key], f"{path}/{key}")
    elif isinstance(one, list) and len(one) == len(two):
        for left, right in zip(one, two, strict=True):
            yield from _differences(left, right, f"{path}/*" if isinstance(left, dict) else path)
    elif one != two:
        yield path or "body"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--pool", type=int, default=40)
    parser.add_argument("--splits", type=int, default=200)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="replay-responses-") as area:
        if args.faults:
            faults(args, Path(area))
        if args.splits:
            splits(args, Path(area))


if __name__ == "__main__":
    main()
