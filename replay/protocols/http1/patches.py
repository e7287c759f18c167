"""Puts values into recorded requests: [[set]] rules for fields of bodies, parameters, paths and recorded headers.

Each recorded body, target or header set that a rule changes becomes a template, which is made once before the run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from replay import units
from replay.errors import LimitError, UsageError
from replay.settings.session_rules import SetRule
from replay.trace import Requests
from replay.trace.places import Place, form_fields, json_leaves, path_segments, pointer_matches, query_fields
from replay.trace.requests import Request
from replay_native.templates.text import LITERAL

from .templates import Encode, Part, Patches, Template, Values, is_generated_text, merged, parse_template

RECORDED_SEGMENT = "{*}"
"""A segment of a path that stays as recorded."""

PATCHED_BYTES_MAX = 1 << 30
"""Memory limit for the templates of recorded bodies. Those of targets and those of headers have the same limit."""

Heads = Callable[[int, frozenset[int]], Template]
"""Returns the template of a route's headers, given the route and the rules for recorded headers that apply."""


class RuleOfRoute(NamedTuple):
    """A [[set]] rule, and its number."""

    number: int
    rule: SetRule


class _Templates:
    """Distinct templates, numbered in order of appearance."""

    def __init__(self) -> None:
        self.numbers: dict[Template, int] = {}
        self.bytes = 0

    def number(self, template: Template) -> int:
        """Return the number of a template, added if new. LimitError if these templates together are too large."""
        if template not in self.numbers:
            self.bytes += sum(64 + len(part.text) for part in template.parts)
            if self.bytes > PATCHED_BYTES_MAX:
                raise LimitError(
                    "requests with values in their recorded bodies, targets or headers take more than"
                    f" {units.format_bytes(PATCHED_BYTES_MAX)}",
                    hint="use [[set]] rules on fewer routes, or replay a shorter part: --from, --duration",
                )
            self.numbers[template] = len(self.numbers)
        return self.numbers[template]


class _Patcher:
    """Makes the templates of a trace's requests."""

    def __init__(self, requests: Requests, rules: Sequence[Sequence[RuleOfRoute]], values: Values) -> None:
        self._requests, self._rules, self._values = requests, rules, values
        self.bodies, self.paths, self.heads = _Templates(), _Templates(), _Templates()
        self._of_body: dict[tuple[int, int, int], int] = {}
        self._names: dict[int, set[str]] = {}
        self.found: set[int] = set()
        self._content_types, self._type_of_headers = requests.content_types()

    def body(self, request: Request) -> int:
        """Return the number of the template of a request's body, or -1 if no rule changes it."""
        rules = [
            one
            for one in self._rules[request.route]
            if one.rule.json is not None or one.rule.form is not None
        ]
        if not rules or request.body < 0:
            return -1
        kind = -1
        if 0 <= request.headers < len(self._type_of_headers):
            kind = int(self._type_of_headers[request.headers])
        key = request.body, request.route, kind
        if key not in self._of_body:
            text = self._requests.body(request.body).decode("latin-1")
            parts = self._patched(text, self._in_body(text, rules))
            content_type = self._content_types[kind].decode("latin-1") if kind >= 0 else ""
            self._of_body[key] = -1 if parts is None else self.bodies.number(Template(parts, content_type))
        return self._of_body[key]

    def path(self, request: Request) -> int:
        """Return the number of the template of a request's target, or -1 if it needs none of its own."""
        queries = [one for one in self._rules[request.route] if one.rule.query is not None]
        paths = [one for one in self._rules[request.route] if one.rule.path is not None]
        target = request.target.decode("latin-1")
        before, mark, query = target.partition("?")
        changes: list[tuple[Place, SetRule, Encode]] = [
            (place, one.rule, "form")
            for place in query_fields(target)
            for one in queries
            if place.name == one.rule.query
        ]
        self._note(queries, changes)
        own = self._own_path(paths[-1], before, bool(queries)) if paths else None
        if own is None and not changes:
            return -1
        first = own if own is not None else (Part(LITERAL, before.encode("latin-1")),)
        if paths and "?" in (paths[-1].rule.path or ""):
            return self.paths.number(Template(first))
        shift = len(before)
        moved = [
            (place._replace(begin=place.begin - shift, end=place.end - shift), rule, how)
            for place, rule, how in changes
        ]
        rest = self._patched(mark + query, moved) or (Part(LITERAL, (mark + query).encode("latin-1")),)
        return self.paths.number(
            Template(merged([part for part in (*first, *rest) if part != Part(LITERAL)]))
        )

    def head(self, request: Request, heads: Heads) -> int:
        """Return the number of the template of a request's headers, or -1 if no rule for recorded headers applies."""
        rules = [one for one in self._rules[request.route] if one.rule.when_recorded]
        if not rules or request.headers < 0:
            return -1
        if request.headers not in self._names:
            pairs = self._requests.headers(request.headers)
            self._names[request.headers] = {name.decode("latin-1").lower() for name, _ in pairs}
        names = self._names[request.headers]
        recorded = frozenset(one.number for one in rules if (one.rule.header or "").lower() in names)
        self.found |= recorded
        return self.heads.number(heads(request.route, recorded)) if recorded else -1

    def _in_body(self, text: str, rules: list[RuleOfRoute]) -> list[tuple[Place, SetRule, Encode]]:
        """Find the places in a body that rules change."""
        changes: list[tuple[Place, SetRule, Encode]] = []
        if any(one.rule.json is not None for one in rules):
            for place in json_leaves(text):
                encode: Encode = "json" if place.quoted else "json_value"
                changes += [
                    (place, one.rule, encode)
                    for one in rules
                    if one.rule.json is not None and pointer_matches(one.rule.json, place.name)
                ]
        if any(one.rule.form is not None for one in rules):
            changes += [
                (place, one.rule, "form")
                for place in form_fields(text)
                for one in rules
                if place.name == one.rule.form
            ]
        self._note(rules, changes)
        return changes

    def _note(self, rules: list[RuleOfRoute], changes: Sequence[tuple[Place, SetRule, str]]) -> None:
        """Record which rules change something, because a rule that changes nothing is an error."""
        used = [rule for _, rule, _ in changes]
        self.found |= {one.number for one in rules if one.rule in used}

    def _patched(
        self, text: str, changes: Sequence[tuple[Place, SetRule, Encode]]
    ) -> tuple[Part, ...] | None:
        """Return the parts of a text with values in these places; None without places. A later rule wins a place."""
        if not changes:
            return None
        parts: list[Part] = []
        at = 0
        last = {place.begin: (place, rule, encode) for place, rule, encode in changes}
        for begin in sorted(last):
            place, rule, encode = last[begin]
            parts.append(Part(LITERAL, text[at:begin].encode("latin-1")))
            self._values.recorded = place.value.encode("utf-8", "surrogatepass")
            parts += self._value(rule.value or "", encode)
            at = place.end
        self._values.recorded = None
        parts.append(Part(LITERAL, text[at:].encode("latin-1")))
        return merged([part for part in parts if part != Part(LITERAL)])

    def _value(self, value: str, encode: Encode) -> list[Part]:
        """Return the parts of a value, encoded for its place.

        In place of a JSON value without quotes, a single `{name}` is written as a JSON value, and any other text in
        quotes. A generated value is written in quotes, too, unless it is a number like the recorded one.
        """
        if encode not in ("json", "json_value"):
            return list(parse_template(value.encode(), self._values, encode))
        quoted = parse_template(b'"' + value.encode() + b'"', self._values, "json")
        if encode == "json":
            return _without_quotes(quoted)
        if re.fullmatch(r"\{[A-Za-z_]\w*\}", value) is None:
            return list(quoted)
        parts = parse_template(value.encode(), self._values, "json")
        recorded = self._values.recorded or b""
        return list(quoted if any(is_generated_text(part, recorded) for part in parts) else parts)

    def _own_path(self, one: RuleOfRoute, before: str, has_queries: bool) -> tuple[Part, ...] | None:
        """Return the path of a rule, segment by segment, if requests need different paths; otherwise None.

        They do if the rule uses parts of the recorded path, or if parameters of the recorded query are also
        set.
        """
        path = (one.rule.path or "").partition("?")
        if not (has_queries or is_by_request(one.rule.path or "", self._values)):
            return None
        places = list(path_segments(before))
        recorded, raw = (
            [place.value for place in places],
            [before[place.begin : place.end] for place in places],
        )
        parts: list[Part] = []
        # A path without a leading slash is a captured link, which is the whole path.
        first = [] if path[0].startswith("/") else [path[0]]
        for number, segment in enumerate(first or path[0].split("/")[1:]):
            value = recorded[number] if number < len(recorded) else ""
            self._values.recorded = value.encode("utf-8", "surrogatepass")
            parts += [] if first else [Part(LITERAL, b"/")]
            if segment == RECORDED_SEGMENT:
                parts.append(Part(LITERAL, raw[number].encode("latin-1") if number < len(raw) else b""))
            else:
                parts += parse_template(segment.encode("ascii"), self._values, "segment")
        self._values.recorded = None
        parts += parse_template((path[1] + path[2]).encode("ascii"), self._values, "form")
        self.found.add(one.number)
        return merged(parts)


def _without_quotes(parts: Sequence[Part]) -> list[Part]:
    """Return the content of a JSON string, without its quotes, as parts."""
    first, last = parts[0], parts[-1]
    if len(parts) == 1:
        return [first._replace(text=first.text[1:-1])]
    return [first._replace(text=first.text[1:]), *parts[1:-1], last._replace(text=last.text[:-1])]


def is_by_request(path: str, values: Values) -> bool:
    """Return whether a path uses parts of the recorded one: a segment (`{*}`), or the recorded value."""
    return RECORDED_SEGMENT in path or values.has_by_value(path)


def needs_patches(rules: Sequence[RuleOfRoute], values: Values) -> bool:
    """Return whether each request of a route with these rules needs a template of its own."""
    return any(
        one.rule.json is not None
        or one.rule.form is not None
        or one.rule.query is not None
        or one.rule.when_recorded
        or (one.rule.path is not None and is_by_request(one.rule.path, values))
        for one in rules
    )


def make_patches(
    requests: Requests, rules: Sequence[Sequence[RuleOfRoute]], values: Values, heads: Heads
) -> Patches:
    """Make the templates of single requests.

    UsageError if a rule changes no request of its routes, LimitError if the templates are too large.
    """
    routes = np.array([needs_patches(of_route, values) for of_route in rules], bool)
    if not routes.any():
        return Patches()
    patcher = _Patcher(requests, rules, values)
    body, path, head = (np.full(requests.rows, -1, np.int32) for _ in range(3))
    first = 0
    for batch in requests.loaded_batches():
        rows = len(batch.route)
        for row in np.flatnonzero(routes[batch.route]).tolist():
            number = first + row
            request = requests.get(number)
            body[number], path[number] = patcher.body(request), patcher.path(request)
            head[number] = patcher.head(request, heads)
        first += rows
    _check_all_used(rules, patcher.found, values)
    return Patches(
        tuple(patcher.bodies.numbers),
        tuple(patcher.paths.numbers),
        tuple(patcher.heads.numbers),
        body,
        path,
        head,
    )


def _check_all_used(rules: Sequence[Sequence[RuleOfRoute]], found: set[int], values: Values) -> None:
    for one in dict.fromkeys(one for of_route in rules for one in of_route):
        rule = one.rule
        place = next((key for key in ("json", "form", "query") if getattr(rule, key) is not None), "header")
        if one.number not in found and needs_patches([one], values) and rule.path is None:
            raise UsageError(
                f"set[{one.number}].{place}: no recorded request of {rule.route} has {getattr(rule, place)!r}",
                hint="`replay inspect TRACE` lists routes, and `replay export TRACE -o FILE.gor` shows their requests",
            )
