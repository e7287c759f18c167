"""Assigns a route to every distinct request of a trace; reports group requests by route.

A route is a method and a path template (`GET /users/{id}`). The kernel `replay_native.trace.routes` decides which
segments are variable. Two decisions need the whole recording and are made here. If a path position has very many
rare values, they become {slug}. Beyond ROUTES_MAX routes, the rarest routes are grouped by their first segment.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from replay_native.ground.jit import warm
from replay_native.trace import dictionary
from replay_native.trace import routes as kernels

from .blocks import EditedFile
from .dictionary import Int64s, StringTable, flatten
from .manifest import ROUTES_MAX, Route
from .requests import REQUESTS_BUDGET_BYTES, RequestBatch, request_batches
from .route_rules import RouteRules

SLUG_CHILDREN = 100
"""If a path position has more rare values (children) than this, they become {slug}."""

RARE_SHARE = 0.01
"""A child is rare if its share of its parent's rows is smaller than this."""

TEMPLATES_MAX = 1 << 16
"""Maximum number of templates in memory. When it is reached, rare children are folded at once."""

_UNLIMITED = 1 << 62
_FOLDED = b"{*"


def _split(template: bytes) -> tuple[bytes, list[bytes]]:
    """Return a template's method and its path segments; there are none for `METHOD *`."""
    method, _, path = template.partition(b" ")
    return method, path.split(b"/")[1:]


def _text(label: bytes) -> str:
    return label.decode("utf-8", "backslashreplace")


def gathered(template: bytes) -> bytes:
    """Return the label of a rare template: `METHOD /first-segment/*`, or `METHOD *` if it has no deeper segments."""
    method, _, path = template.partition(b" ")
    parts = path.split(b"/", 2)
    return b"%s /%s/*" % (method, parts[1]) if len(parts) > 2 else method + b" *"


@dataclass(frozen=True, slots=True)
class _OwnTemplates:
    """The user's templates in the form that kernels take, and their labels."""

    arrays: tuple[npt.NDArray[np.uint8], Int64s, Int64s]
    labels: frozenset[bytes]


def _own_templates(rules: RouteRules, methods: dict[bytes, int]) -> _OwnTemplates:
    paths, kinds, labels = [], [], set[bytes]()
    for method, path in rules.split():
        if method and method not in methods:
            continue
        paths.append(path)
        kinds.append(methods[method] if method else -1)
        labels.update(b"%s %s" % (name, path) for name in ([method] if method else methods))
    data, ends = flatten(paths)
    return _OwnTemplates((data, ends, np.array(kinds, dtype=np.int64)), frozenset(labels))


class RouteFinder:
    """Learns the routes of all requests in one pass over the dictionary, then labels the requests.

    While it learns, a request's `route` is the id of its template in the table at that time. When the table is
    rebuilt, `_maps` gets the new ids for the templates of each earlier table.
    """

    def __init__(self, methods: list[str], rules: RouteRules | None = None) -> None:
        warm(["trace.dictionary", "trace.routes"])
        self._rules = rules or RouteRules()
        self._methods = {name.encode(): index for index, name in enumerate(methods)}
        self._names, self._name_ends = flatten(list(self._methods))
        self._own = _own_templates(self._rules, self._methods)
        self._depth = kernels.FULL
        self._slugs: set[bytes] = set()
        self._kept: set[bytes] = set()
        self._slug_hashes = self._kept_hashes = np.empty(0, dtype=np.int64)
        self._scratch = np.empty(kernels.TEMPLATE_BYTES_MAX, dtype=np.uint8)
        self._new_table()
        self.folded: dict[str, int] = {}
        self._maps: list[npt.NDArray[np.uint32]] = []
        self._learned: list[tuple[npt.NDArray[np.uint32], int]] = []

    def _new_table(self) -> None:
        self._table = StringTable(TEMPLATES_MAX + 1, kernels.TEMPLATE_BYTES_MAX * (TEMPLATES_MAX + 1))
        self._rows = np.zeros(TEMPLATES_MAX + 1, dtype=np.int64)

    def _number(
        self,
        offsets: Int64s,
        data: npt.NDArray[np.uint8],
        method: npt.NDArray[np.uint8],
        first: int,
        entries_max: int,
    ) -> tuple[int, npt.NDArray[np.uint32]]:
        """Assign template ids to the requests from `first` on, until `entries_max` templates exist.

        Returns the first request without an id, and the ids.
        """
        ids = np.empty(len(method), dtype=np.uint32)
        rules = kernels.TemplateRules(
            self._depth, self._names, self._name_ends, self._slug_hashes, self._kept_hashes, *self._own.arrays
        )
        table = self._table.arrays(len(method))
        targets = dictionary.Strings(data, offsets)
        stop = kernels.templates(targets, method, first, rules, entries_max, self._scratch, table, ids)
        return stop, ids[first:stop]

    def _tally(self, ids: npt.NDArray[np.uint32], weights: Int64s) -> None:
        counts = np.bincount(ids, weights).astype(np.int64)
        self._rows[: len(counts)] += counts

    def learn(self, batch: RequestBatch, weights: Int64s) -> None:
        """Find the templates of a batch of requests, and count their rows.

        weights[i] is the number of rows of request i.
        """
        first, rows = 0, len(batch.method)
        while first < rows:
            stop, ids = self._number(batch.offsets, batch.data, batch.method, first, TEMPLATES_MAX)
            self._tally(ids, weights[first:stop])
            batch.route[first:stop] = ids
            self._learned.append((batch.route[first:stop], len(self._maps)))
            if stop < rows:
                self._fold_to(TEMPLATES_MAX // 2)
            first = stop

    def _fold_to(self, limit: int) -> None:
        """Fold rare children until at most `limit` templates are left.

        If folding the positions with more than SLUG_CHILDREN of them is not enough, positions with fewer and fewer
        are folded; then templates lose depth.
        """
        children = SLUG_CHILDREN
        while self._fold(children) or len(self._table) > limit:
            if len(self._table) <= limit:
                continue
            children //= 2
            if children < 4:
                self._depth += 1
                self._rebuild()

    def _families(self) -> dict[bytes, dict[bytes, int]]:
        """Return the number of rows of every literal child, by the template prefix (with its slash) before it."""
        families: dict[bytes, dict[bytes, int]] = defaultdict(dict)
        for template, rows in zip(self._table.strings(), self._rows.tolist(), strict=False):
            if template in self._own.labels:
                continue
            method, segments = _split(template)
            prefix = method + b" /"
            for segment in segments:
                if segment and segment[0] not in _FOLDED:
                    family = families[prefix]
                    family[segment] = family.get(segment, 0) + rows
                prefix += segment + b"/"
        return families

    def _fold(self, children: int) -> bool:
        """Fold every position that has more than `children` rare children, and return whether there was one."""
        found = False
        for prefix, family in self._families().items():
            if len(family) <= children or prefix in self._slugs:
                continue
            least = RARE_SHARE * sum(family.values())
            kept = {prefix + child for child, rows in family.items() if rows >= least}
            if len(family) - len(kept) > children:
                found = True
                self._slugs.add(prefix)
                self._kept |= kept
                self.folded[_text(prefix) + "{slug}"] = len(family) - len(kept)
        if found:
            self._close_rules()
            self._rebuild()
        return found

    def _close_rules(self) -> None:
        """Add the forms that folded prefixes get when other prefixes are folded, too, until there is no new form."""
        while True:
            self._slug_hashes, self._kept_hashes = self._hashed(self._slugs), self._hashed(self._kept)
            become = set(self._retemplated(sorted(self._slugs)))
            if become <= self._slugs:
                return
            self._slugs |= become

    @staticmethod
    def _hashed(prefixes: set[bytes]) -> Int64s:
        data, offsets = flatten(sorted(prefixes))
        hashes = np.empty(len(prefixes), dtype=np.int64)
        dictionary.hash_all(data, offsets, kernels.HASH_SEED, hashes)
        return np.sort(hashes)

    def _requests_of(
        self, templates: list[bytes]
    ) -> tuple[Int64s, npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """Return templates in the form of requests, so that they can be numbered again: offsets, data and methods."""
        parts = [template.partition(b" ") for template in templates]
        data, offsets = flatten([path for _, _, path in parts])
        return offsets, data, np.array([self._methods[method] for method, _, _ in parts], dtype=np.uint8)

    def _retemplated(self, templates: list[bytes]) -> list[bytes]:
        """Return what these templates become under the current rules."""
        table, rows = self._table, self._rows
        self._new_table()
        _, ids = self._number(*self._requests_of(templates), 0, _UNLIMITED)
        strings = self._table.strings()
        self._table, self._rows = table, rows
        return [strings[index] for index in ids]

    def _rebuild(self) -> None:
        """Rebuild the table of templates under the current rules."""
        templates, rows = self._table.strings(), self._rows[: len(self._table)]
        self._new_table()
        _, ids = self._number(*self._requests_of(templates), 0, _UNLIMITED)
        self._tally(ids, rows)
        self._maps = [*(ids[became] for became in self._maps), ids]

    def settle(self) -> list[Route]:
        """Finish folding, and return the routes by index with their rows, largest first.

        Beyond ROUTES_MAX templates, the rare ones are grouped.
        """
        self._fold_to(TEMPLATES_MAX)
        templates, rows = self._table.strings(), self._rows[: len(self._table)].tolist()
        labels = self._labels(templates, rows)
        counts: Counter[bytes] = Counter()
        for label, count in zip(labels, rows, strict=True):
            counts[label] += count
        ordered = [label for label, _ in counts.most_common()]
        index_of = {label: index for index, label in enumerate(ordered)}
        self._routes = np.array([index_of[label] for label in labels], dtype=np.uint32)
        return [
            Route(route=_text(label), rows=counts[label], action=self._rules.action_of(_text(label)))
            for label in ordered
        ]

    def _labels(self, templates: list[bytes], rows: list[int]) -> list[bytes]:
        """Return the route of each template: the template itself, or the group that it was folded into."""
        if len(templates) <= ROUTES_MAX:
            return templates
        heaviest = sorted(range(len(templates)), key=lambda index: -rows[index])
        own = self._own.labels.intersection(templates)
        kept = own | {templates[index] for index in heaviest[: max(ROUTES_MAX // 2 - len(own), 0)]}
        groups = [gathered(template) for template in templates]
        first_segments = Counter(
            group for template, group in zip(templates, groups, strict=True) if template not in kept
        )
        places = {label for label, _ in first_segments.most_common(ROUTES_MAX // 2 - len(self._methods))}
        labels = []
        for template, label in zip(templates, groups, strict=True):
            if template in kept:
                label = template
            elif label not in places:
                label = template.partition(b" ")[0] + b" *"
            if label != template:
                name = _text(label)
                self.folded[name] = self.folded.get(name, 0) + 1
            labels.append(label)
        return labels

    def label(self) -> Iterator[tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]]:
        """Yield each learned range of a `route` column, with the route of every template id in it."""
        routes = [*(self._routes[became] for became in self._maps), self._routes]
        for column, table in self._learned:
            yield column, routes[table]


def assign_routes(
    path: Path, methods: list[str], weights: Int64s, rules: RouteRules | None = None
) -> tuple[list[Route], dict[str, int]]:
    """Set the route of every request of the dictionary at `path`, in place.

    weights[i] is the number of rows of request i; it is 1 for requests past the end of `weights`. Returns the
    routes with their rows, largest first, and the folded labels with the number of different names that each
    replaces.
    """
    file = EditedFile(path, REQUESTS_BUDGET_BYTES)
    try:
        finder = RouteFinder(methods, rules)
        done = 0
        for batch in request_batches(file):
            rows = len(batch.method)
            known = weights[done : done + rows]
            finder.learn(batch, np.concatenate([known, np.ones(rows - len(known), dtype=np.int64)]))
            file.write_back(batch.route)
            done += rows
        routes = finder.settle()
        for column, route_of in finder.label():
            file.load_view(column)
            column[:] = route_of[column]
            file.write_back(column)
    finally:
        file.close()
    return routes, finder.folded
