"""Decides which entries are replayed and how often (methods, routes, samples, scaling), as they arrive.

It does the work of `replay transform` without knowing the future: with `grow = "requests"`, a copy follows its entry
by a fraction of the gap since the route's previous entry, whereas a transform places it before the entry.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from replay.errors import UsageError
from replay.naming import names_route
from replay.plan.due import method_rules
from replay.settings.scenario import Scenario
from replay.units import SECOND_NS
from replay.workload.transform import check_scale
from replay_native.plan import survey

GAP_MAX_NS = SECOND_NS
"""The maximum time by which a copy follows its entry."""

Int64s = npt.NDArray[np.int64]
Picked = npt.NDArray[np.bool_]


@dataclass(slots=True)
class Entries:
    """Entries, or copies of them, as columns of equal length.

    `start_ns` is the recorded start of the request, in ns since the Unix epoch. `request` is its id in the
    `RequestStore`.
    """

    start_ns: Int64s
    client: npt.NDArray[np.uint32]
    request: npt.NDArray[np.uint32]
    method: npt.NDArray[np.uint8]
    route: npt.NDArray[np.uint32]
    status: npt.NDArray[np.int16]
    key: Int64s
    is_copy: Picked
    has_body: Picked

    def __len__(self) -> int:
        return len(self.start_ns)

    def __getitem__(self, rows: npt.NDArray[np.int64] | Picked | slice) -> Entries:
        return Entries(
            self.start_ns[rows], self.client[rows], self.request[rows], self.method[rows], self.route[rows],
            self.status[rows], self.key[rows], self.is_copy[rows],
            self.has_body[rows],
        )  # fmt: skip


def refuse_unfit(scenario: Scenario) -> None:
    """Raise UsageError for settings that do not fit a followed source.

    Such settings need a complete recording, or would change the pace of the source.
    """
    unfit = {
        "--rate": scenario.rate_per_s is not None,
        "--speed": float(scenario.speed) != 1.0,
        "--compress-to": scenario.compress_to_ns is not None,
        "--peak": scenario.peak_per_s is not None,
        "--start-at": scenario.start_at is not None,
        "a [window]": scenario.window.from_ is not None or scenario.window.until is not None,
        "[[also]]": bool(scenario.also),
    }
    for name, given in unfit.items():
        if given:
            raise UsageError(
                f"{name} is not for a source that is followed: it needs a complete recording",
                hint="record first, then use `replay run`",
            )
    if scenario.scale and scenario.grow == "sessions":
        for route, factor in scenario.scale:
            if route or factor < 1:
                raise UsageError(
                    "--grow sessions takes one factor of at least 1 while a source is followed",
                    hint="--scale 3; --sample 50% --sample-by client keeps a share of the clients",
                )
    check_scale(scenario.scale)


def copies_max(scenario: Scenario) -> int:
    """Return how many clients one recorded client becomes at most; 1 unless sessions are scaled."""
    if scenario.grow != "sessions":
        return 1
    return max((math.ceil(factor) for _, factor in scenario.scale), default=1)


class Selecting:
    """Applies the scenario's selection to entries. `clients` is the maximum number of recorded clients."""

    def __init__(
        self, scenario: Scenario, methods: list[str], names: list[str], actions: list[str], clients: int
    ) -> None:
        self._scenario, self._clients = scenario, clients
        self._methods, self._names, self._actions = methods, names, actions
        self._rules = method_rules(methods, scenario)
        self._seed = scenario.seed
        self._numbered = 0
        self._by_row: dict[str, npt.NDArray[np.bool_]] = {}
        self._factors = np.ones(len(names))
        self._has_body = np.zeros(len(names), bool)
        self._last_ns = np.full(len(names), -1, np.int64)
        for row, name in enumerate(names):
            self.renamed(row, name, actions[row])

    def renamed(self, row: int, name: str, action: str) -> None:
        """Find the scale factor of a row whose route got this name, and whether a body rule applies to it."""
        self._by_row.clear()
        self._factors[row] = 1.0
        for route, factor in self._scenario.scale:
            if not route or _names(route, name, action):
                self._factors[row] = float(factor)
        self._has_body[row] = any(_names(rule.route, name, action) for rule in self._scenario.body)

    def _named(self, patterns: tuple[str, ...], what: str) -> npt.NDArray[np.bool_]:
        if what not in self._by_row:
            rows = zip(self._names, self._actions, strict=True)
            self._by_row[what] = np.array(
                [any(_names(each, name, action) for each in patterns) for name, action in rows]
            )
        return self._by_row[what]

    def select(self, entries: Entries, skipped: Counter[str]) -> Entries:
        """Return the entries to replay, and count the others in `skipped` by reason."""
        rules = self._rules[entries.method]
        for number in np.unique(entries.method[rules >= survey.NOT_ALLOWED]).tolist():
            skipped[f"method {self._methods[number]}"] += int(np.count_nonzero(entries.method == number))
        kept = rules < survey.NOT_ALLOWED
        if self._scenario.only:
            kept = self._drop(
                kept, ~self._named(self._scenario.only, "only")[entries.route], "not in --only", skipped
            )
        if self._scenario.without:
            named = self._named(self._scenario.without, "without")[entries.route]
            kept = self._drop(kept, named, "in --without", skipped)
        if not self._scenario.empty_bodies:
            bare = (rules == survey.NEEDS_BODY) & ~self._has_body[entries.route] & ~entries.has_body
            kept = self._drop(kept, bare, "no body (--empty-bodies, or a [[body]] rule)", skipped)
        if self._scenario.sample is not None:
            share = float(self._scenario.sample)
            names = entries.client if self._scenario.sample_by == "client" else self._numbers(len(entries))
            kept = self._drop(kept, _draws(names, self._seed, 1) > share, "not in the sample", skipped)
        return entries[kept]

    @staticmethod
    def _drop(kept: Picked, dropped: Picked, reason: str, skipped: Counter[str]) -> Picked:
        skipped[reason] += int(np.count_nonzero(kept & dropped))
        if not skipped[reason]:
            del skipped[reason]
        return kept & ~dropped

    def _numbers(self, count: int) -> Int64s:
        first, self._numbered = self._numbered, self._numbered + count
        return np.arange(first, first + count)

    def scale(self, entries: Entries, skipped: Counter[str]) -> tuple[Entries, list[Entries]]:
        """Return the entries that scaling keeps, and the copies that it adds.

        A factor below 1 drops entries, which are counted in `skipped`.
        """
        if not self._scenario.scale or not len(entries):
            return entries, []
        factors = self._factors[entries.route]
        by_client = self._scenario.grow == "sessions"
        names = entries.client.astype(np.int64) if by_client else self._numbers(len(entries))
        times = np.floor(factors).astype(np.int64)
        times += _draws(names, self._seed, 2) <= factors - times
        gaps_ns = self._gaps(entries)
        copies = []
        for copy in range(1, int(times.max(initial=0))):
            rows = np.flatnonzero(times > copy)
            copies.append(self._copied(entries[rows], names[rows], gaps_ns[rows], copy))
        gone = int(np.count_nonzero(times == 0))
        if gone:
            skipped["left out by --scale"] += gone
        return (entries[times > 0] if gone else entries), copies

    def _copied(self, entries: Entries, names: Int64s, gaps_ns: Int64s, copy: int) -> Entries:
        """Turn entries into copy number `copy` of them, shifted in time as `grow` requires.

        With `sessions`, the copied entries of a client are shifted equally and belong to a new client.
        """
        entries.is_copy = np.ones(len(entries), bool)
        if self._scenario.grow == "repeat":
            return entries
        draws = _draws(names, self._seed, 2 + copy)
        if self._scenario.grow == "sessions":
            shift_ns = (draws * GAP_MAX_NS).astype(np.int64)
            entries.client = (entries.client + np.uint32(copy * self._clients)).astype(np.uint32)
        else:
            shift_ns = (draws * gaps_ns).astype(np.int64)
        entries.start_ns = entries.start_ns + shift_ns
        return entries

    def _gaps(self, entries: Entries) -> Int64s:
        """Return the gap before each entry since the previous one of its route, in ns: 0 to GAP_MAX_NS."""
        gaps = np.zeros(len(entries), np.int64)
        for row in np.unique(entries.route).tolist():
            places = np.flatnonzero(entries.route == row)
            starts = entries.start_ns[places]
            before = np.concatenate(
                [[self._last_ns[row] if self._last_ns[row] >= 0 else starts[0]], starts[:-1]]
            )
            gaps[places] = np.clip(starts - before, 0, GAP_MAX_NS)
            self._last_ns[row] = starts.max()
        return gaps


def _names(pattern: str, name: str, action: str) -> bool:
    return (bool(action) and pattern == action) or names_route(pattern, name)


def _draws(names: npt.NDArray[Any], seed: int, purpose: int) -> npt.NDArray[np.float64]:
    """Return a pseudo-random number above 0 and up to 1 for each name (splitmix64).

    The same name, seed and purpose give the same number.
    """
    mixed = names.astype(np.uint64) + np.uint64(
        (seed * 0x9E3779B97F4A7C15 + purpose * 0xD1B54A32D192ED03) % 2**64
    )
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    return (mixed >> np.uint64(11)).astype(np.float64) / 2.0**53 + 2.0**-54
