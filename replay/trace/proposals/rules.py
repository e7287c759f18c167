"""Converts the session values found to scenario rules, each with the figures that support it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from replay import units

from .found import HIT_RATE_MIN, Giver, Needed, Proposals, SentPlace, Session
from .uniques import WRITES, passwords, plain_name

ROUTES_LISTED_MAX = 3
"""If more routes than this send a header, one rule sets it for all routes except those that do not send it."""

TAKEN = {"uuid", "email", "client", "n", "output"}
"""Names of variables that a scenario predefines."""


class Rule(NamedTuple):
    """A table of the scenario: its keys, the evidence for it, and whether that is strong enough to enable it."""

    table: str
    keys: dict[str, Any]
    why: str
    is_active: bool = True


@dataclass(slots=True)
class Proposed:
    """The proposed rules, and other settings that the scenario needs.

    `cookies`, if not empty, is the reason to use the cookie jar; `split` the reason to split clients. `writes`
    means that all methods must be sent. `notes` list what could not be proposed, and `needed` the environment
    variables to set.
    """

    rules: list[Rule] = field(default_factory=list)
    cookies: str = ""
    split: str = ""
    writes: bool = False
    notes: list[str] = field(default_factory=list)
    needed: list[str] = field(default_factory=list)


def propose(found: Proposals, routes: Sequence[str], *, keeps_secrets: bool, scenario: str) -> Proposed:
    """Return the scenario rules for the values found.

    With `keeps_secrets`, the trace contains passwords and keys. `scenario` prefixes the names of environment
    variables.
    """
    return _Writer(found, routes, scenario).written(keeps_secrets)


class _Writer:
    def __init__(self, found: Proposals, routes: Sequence[str], scenario: str) -> None:
        self._found, self._routes, self._scenario = found, routes, scenario
        self._names = set(TAKEN)
        self._made = Proposed()
        self._paths: dict[int, tuple[dict[int, str], list[str]]] = {}

    def written(self, keeps_secrets: bool) -> Proposed:
        """Return all rules: variables first, then captures, then the rules that set values."""
        taken: list[SentPlace] = []
        for session in self._found.sessions:
            taken += session.places
            self._session(session)
        own = [] if keeps_secrets else passwords(self._found)
        for unique in self._found.uniques:
            name = self._name(f"new_{plain_name(unique.first.name) or 'value'}")
            count = units.counted(unique.values, "value")
            why = (
                f"{count} of {self._where(unique.first)}, nearly all sent by one client only: each run sends new values"
                " instead"
            )
            keys = {"name": name, "generate": unique.generate, "by": "value", "each_run": True}
            self._made.rules.append(Rule("variable", keys, why))
            self._set_all(unique.places, name)
        if not keeps_secrets:
            for needed in [*own, *self._found.accounts, *self._secret_headers(taken)]:
                self._needed(needed)
        self._set_paths()
        if self._found.split:
            sessions = units.counted(self._found.split, "session")
            self._made.split = f"{sessions} belong to fewer clients: several people share an address"
        order = {"variable": 0, "capture": 1, "set": 2}
        self._made.rules.sort(key=lambda rule: order[rule.table])
        methods = {self._routes[place.route].split(" ")[0] for place in self._found.counts}
        self._made.writes = bool(methods & {*WRITES, "DELETE"}) and bool(
            self._made.rules or self._made.cookies
        )
        return self._made

    def _name(self, wanted: str) -> str:
        """Return a unique variable name that is similar to `wanted`."""
        name = re.sub(r"\W", "_", wanted.lower()).strip("_") or "value"
        name = name if name[0].isalpha() else f"v_{name}"
        number = 2
        base = name
        while name in self._names:
            name, number = f"{base}_{number}", number + 1
        self._names.add(name)
        return name

    def _where(self, place: SentPlace | Giver) -> str:
        kind = place.kind if isinstance(place, SentPlace) else place.finder
        return f"{kind} {place.name} of {self._routes[place.route]}".replace("  ", " ")

    def _session(self, session: Session) -> None:
        """Propose the cookie jar for the cookies of a session value, and captures and rules for its other places."""
        cookies = [place for place in session.places if place.kind == "cookie"]
        if cookies:
            sent = sum(session.sent[place] for place in cookies)
            hits = sum(session.hits[place] for place in cookies)
            names = ", ".join(dict.fromkeys(place.name for place in cookies))
            if hits >= HIT_RATE_MIN * sent:
                why = f"{names}: {_rate(hits, sent)} had the value that was set last"
                self._made.cookies = f"{self._made.cookies}; {why}" if self._made.cookies else why
            else:
                self._made.notes.append(
                    f"cookie {names} is not proposed: only {_rate(hits, sent)} had the value that was set last"
                )
        places = [place for place in session.places if place.kind != "cookie"]
        if not places:
            return
        name = self._name(self._name_of(session, places))
        good = [place for place in places if session.hits[place] >= HIT_RATE_MIN * session.sent[place]]
        for giver in session.givers:
            keys: dict[str, Any] = {"route": self._routes[giver.route], "name": name}
            keys["header" if giver.finder == "location" else giver.finder] = giver.name
            if giver.finder == "location":
                keys["as"] = "path"
            total, hits = (
                sum(session.sent[place] for place in places),
                sum(session.hits[place] for place in places),
            )
            self._made.rules.append(
                Rule(
                    "capture",
                    keys,
                    f"the same client later sent the captured value, in {_rate(hits, total)}",
                    bool(good),
                )
            )
        self._headers(session, [place for place in places if place.kind == "header"], name)
        for place in places:
            if place.kind in ("json", "form", "query"):
                self._set(place, name, session.hits[place], session.sent[place])
            elif place.kind in ("path", "target"):
                self._path(place, name, session.hits[place], session.sent[place])

    def _name_of(self, session: Session, places: list[SentPlace]) -> str:
        giver = session.givers[0]
        if giver.finder in ("json", "header", "cookie"):
            return plain_name(giver.name) or plain_name(places[0].name)
        if giver.finder == "regex":
            named = re.search(r'name="([^"]+)"', giver.name)
            return plain_name(named[1] if named else places[0].name)
        return "location"

    def _headers(self, session: Session, places: list[SentPlace], name: str) -> None:
        """Add one rule per header: for each of its routes, or for all routes but those that do not send it."""
        by_header: dict[tuple[str, str], list[SentPlace]] = {}
        for place in places:
            by_header.setdefault((place.name, place.scheme), []).append(place)
        for (header, scheme), of_header in by_header.items():
            good = [place for place in of_header if session.hits[place] >= HIT_RATE_MIN * session.sent[place]]
            for is_good, chosen in (
                (True, good),
                (False, [place for place in of_header if place not in good]),
            ):
                if not chosen:
                    continue
                sent = sum(session.sent[place] for place in chosen)
                hits = sum(session.hits[place] for place in chosen)
                keys = {"header": header, "value": f"{scheme}{{{name}}}", "when_recorded": True}
                for route in self._spread({place.route for place in chosen}, is_good):
                    self._made.rules.append(
                        Rule(
                            "set",
                            {**route, **keys},
                            f"the value captured last, in {_rate(hits, sent)}",
                            is_good,
                        )
                    )

    def _spread(self, wanted: set[int], may_gather: bool) -> Iterable[dict[str, Any]]:
        """Return the keys `route` and `without` of the rules that cover these routes."""
        if len(wanted) <= ROUTES_LISTED_MAX or not may_gather:
            return [{"route": self._routes[route]} for route in sorted(wanted)]
        others = [name for route, name in enumerate(self._routes) if route not in wanted]
        return [{"route": "*", **({"without": others} if others else {})}]

    def _set(self, place: SentPlace, name: str, hits: int, sent: int) -> None:
        keys = {
            "route": self._routes[place.route],
            place.kind: place.name,
            "value": f"{place.scheme}{{{name}}}",
        }
        self._made.rules.append(
            Rule("set", keys, f"the value captured last, in {_rate(hits, sent)}", hits >= HIT_RATE_MIN * sent)
        )

    def _set_all(self, places: list[SentPlace], name: str) -> None:
        """Add the rules that set a value that is generated or that the user supplies."""
        keys: dict[str, Any]
        for place in places:
            count = self._found.own[place].count
            if place.kind == "path":
                self._path(place, name, count, count)
            elif place.kind in ("json", "form", "query"):
                keys = {"route": self._routes[place.route], place.kind: place.name, "value": f"{{{name}}}"}
                self._made.rules.append(Rule("set", keys, f"sent {units.counted(count, 'time')}"))
            else:
                keys = {
                    "route": self._routes[place.route],
                    "header": place.name,
                    "value": f"{place.scheme}{{{name}}}",
                }
                keys["when_recorded"] = True
                self._made.rules.append(Rule("set", keys, f"sent {units.counted(count, 'time')}"))

    def _path(self, place: SentPlace, name: str, hits: int, sent: int) -> None:
        """Remember a value that fills a path segment or a whole path. `_set_paths` makes one rule for each route.

        A value that was right too rarely becomes a note instead.
        """
        if hits < HIT_RATE_MIN * sent:
            self._made.notes.append(
                f"{self._where(place)} is {{{name}}} only in {_rate(hits, sent)}: not proposed"
            )
            return
        segments, why = self._paths.setdefault(place.route, ({}, []))
        segments[-1 if place.kind == "target" else int(place.name)] = name
        why.append(f"{{{name}}} in {_rate(hits, sent)}")

    def _set_paths(self) -> None:
        for route, (segments, why) in self._paths.items():
            path = self._routes[route].partition(" ")[2]
            if "*" in path:
                self._made.notes.append(
                    f"{self._routes[route]} is not proposed, because it stands for many routes: import the recording"
                    " with --routes FILE, which gives them templates"
                )
                continue
            if -1 in segments:
                path = f"{{{segments[-1]}}}"
            else:
                steps = path.split("/")[1:]
                fixed = ["{*}" if re.search(r"\{\w+\}", step) else step for step in steps]
                path = "/" + "/".join(
                    f"{{{segments[number]}}}" if number in segments else step
                    for number, step in enumerate(fixed)
                )
            self._made.rules.append(Rule("set", {"route": self._routes[route], "path": path}, ", ".join(why)))

    def _secret_headers(self, taken: list[SentPlace]) -> list[Needed]:
        """Return the keys in headers that no response issues."""
        from replay.trace.importing.secret_names import is_secret_header

        found: dict[tuple[str, str], list[SentPlace]] = {}
        given_out = {place.name for place in taken if place.kind == "header"}
        for place in self._found.own:
            if place.kind == "header" and place.name not in given_out and is_secret_header(place.name):
                found.setdefault((place.name, place.scheme), []).append(place)
        return [
            Needed(
                plain_name(name),
                places,
                len({value for place in places for value in self._found.own[place].values}),
            )
            for (name, _), places in found.items()
        ]

    def _needed(self, needed: Needed) -> None:
        """Add a variable that the user supplies, and the rules that send it."""
        name = self._name(needed.name if needed.name not in TAKEN else f"user_{needed.name}")
        variable = re.sub(r"\W", "_", f"{self._scenario}_{name}".upper()).lstrip("_0123456789")
        why = (
            f"give a value that the target accepts; the recording had {units.counted(needed.values, 'value')}"
        )
        if needed.values > 1:
            why += ': for a different value per client, give file = "users.csv" instead of env'
        self._made.rules.append(Rule("variable", {"name": name, "env": variable}, why))
        self._made.needed.append(variable)
        self._set_all(needed.places, name)


def _rate(hits: int, sent: int) -> str:
    """Format a hit rate: `98 of 100 cases (98%)`."""
    return f"{hits:,} of {units.counted(sent, 'case')} ({units.format_share(hits / max(1, sent))})"
