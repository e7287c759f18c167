"""Searches a trace for session values.

The first pass finds, client by client, response values that later requests send. The second pass simulates the
captures that follow from them, and counts how often each capture would have held the recorded value.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from replay.trace import Trace

from .events import Event, read_events
from .found import VALUES_MAX, Giver, OwnValues, Proposals, SentPlace, Session
from .splitting import Splitter, sessions_of
from .uniques import uniques
from .values import BITS_MIN, bits_of

EVENTS_MAX = 200_000
"""How many events of a trace are examined, from its start."""

MANY_CLIENTS = 3
"""A single value that at least this many clients send is a constant, not a session value."""


@dataclass(slots=True)
class Link:
    """How often values from one source were sent in one place, and by which clients."""

    hits: int = 0
    values: set[str] = field(default_factory=set)
    clients: set[int] = field(default_factory=set)

    @property
    def is_proof(self) -> bool:
        """Return whether these matches are due neither to chance nor to a constant."""
        if len(self.values) == 1 and len(self.clients) >= MANY_CLIENTS:
            return False
        return sum(map(bits_of, self.values)) >= BITS_MIN


def find_proposals(trace: Trace) -> Proposals:
    """Find the session values in the first EVENTS_MAX events of a recording."""
    found = Proposals()

    def events() -> Iterator[Event]:
        return islice((event for _, batch in read_events(trace) for event in batch), EVENTS_MAX)

    links = _links(events, found)
    found.sessions = _sessions(links, trace.requests.routes)
    found.uniques, found.accounts = uniques(found, trace.requests.routes)
    if found.sessions:
        _replay_on_paper(events(), found.sessions)
    if any(session.is_credential for session in found.sessions):
        _try_split(events, found)
    return found


def _try_split(events: Callable[[], Iterator[Event]], found: Proposals) -> None:
    """Split clients into sessions by credentials and new values, if more sent values are then right."""
    sessions = [session for session in found.sessions if session.is_credential]
    places = {place for session in sessions for place in session.places}
    places |= {place for unique in found.uniques for place in unique.places}
    givers = {giver for session in sessions for giver in session.givers}
    splitter = Splitter(
        lambda route, sent: SentPlace(route, sent.kind, sent.name, sent.scheme) in places,
        lambda route, given: Giver(route, given.finder, given.name) in givers,
    )
    again = [Session(session.givers, session.places) for session in found.sessions]
    _replay_on_paper(sessions_of(events(), splitter), again)
    if sum(session.good for session in again) > sum(session.good for session in found.sessions):
        found.sessions, found.split = again, splitter.count


Links = dict[tuple[Giver, SentPlace], Link]


def _links(events: Callable[[], Iterator[Event]], found: Proposals) -> Links:
    """Return how often each source's values were sent in each place.

    `found` gets the counts of events, responses and places, and the values that clients sent before they received them.
    """
    links: Links = defaultdict(Link)
    given: dict[int, dict[str, Giver]] = defaultdict(dict)
    own: dict[int, set[str]] = defaultdict(set)
    for event in events():
        found.events += 1
        mine, known = own[event.client], given[event.client]
        for sent in event.sent:
            place = SentPlace(event.route, sent.kind, sent.name, sent.scheme)
            found.counts[place] = found.counts.get(place, 0) + 1
            giver = known.get(sent.value)
            if giver is not None and sent.value not in mine:
                link = links[giver, place]
                link.hits += 1
                link.clients.add(event.client)
                if len(link.values) < VALUES_MAX:
                    link.values.add(sent.value)
            else:
                mine.add(sent.value)
                found.own.setdefault(place, OwnValues()).add(sent.value, event.client)
                if len(found.first_places) < EVENTS_MAX:
                    found.first_places.setdefault(sent.value, place)
        found.responses += bool(event.given)
        fresh = {
            one.value: Giver(event.route, one.finder, one.name)
            for one in reversed(event.given)
            if one.value not in mine
        }
        for value, giver in fresh.items():
            known.pop(value, None)
            known[value] = giver
        while len(known) > VALUES_MAX:
            del known[next(iter(known))]
    return links


def _sessions(links: Links, routes: Sequence[str]) -> list[Session]:
    """Group the links that are not due to chance into session values.

    Sources that feed the same place, and places fed by the same source, belong to one session value.
    """
    proofs = _proofs(links, routes)
    groups: list[Session] = []
    of: dict[Giver | SentPlace, Session] = {}
    for giver, place in sorted(proofs, key=lambda key: -proofs[key].hits):
        first, second = of.get(giver), of.get(place)
        session = first or second
        if session is None:
            session = Session([], [])
            groups.append(session)
        elif first is not None and second is not None and first is not second:
            for moved in second.givers:
                of[moved] = first
            for moved_place in second.places:
                of[moved_place] = first
            first.givers += second.givers
            first.places += second.places
            groups.remove(second)
            session = first
        if giver not in session.givers:
            session.givers.append(giver)
        if place not in session.places:
            session.places.append(place)
        of[giver] = of[place] = session
    return groups


def _proofs(links: Links, routes: Sequence[str]) -> Links:
    """Return the links that are not due to chance.

    Links to routes that differ only in the path segment with the value are judged together.
    """
    alike: dict[tuple[Giver, str], Link] = defaultdict(Link)
    shapes: dict[tuple[Giver, SentPlace], tuple[Giver, str]] = {}
    for (giver, place), link in links.items():
        shape = routes[place.route]
        if place.kind == "path":
            steps = shape.split("/")
            steps[int(place.name) + 1 : int(place.name) + 2] = ["*"]
            shape = "/".join(steps)
        key = shapes[giver, place] = giver, f"{place.kind} {place.name} {shape}"
        alike[key].hits += link.hits
        alike[key].values |= link.values
        alike[key].clients |= link.clients
    return {key: link for key, link in links.items() if alike[shapes[key]].is_proof and _fits(*key)}


def _fits(giver: Giver, place: SentPlace) -> bool:
    """Return whether a scenario rule can move a value from this source to this place.

    Only a captured link can fill a whole target, and it fills nothing else. Only a cookie of the same name can fill a
    cookie.
    """
    if (giver.finder == "location") != (place.kind == "target"):
        return False
    if place.kind == "cookie":
        return giver.finder == "cookie" and giver.name == place.name
    return True


def _replay_on_paper(events: Iterator[Event], sessions: list[Session]) -> None:
    """Simulate the captures of each session value, and count how often the captured value was the one sent."""
    of_place = {place: number for number, session in enumerate(sessions) for place in session.places}
    of_giver = {giver: number for number, session in enumerate(sessions) for giver in session.givers}
    held: dict[tuple[int, int, str], str] = {}
    for event in events:
        for sent in event.sent:
            place = SentPlace(event.route, sent.kind, sent.name, sent.scheme)
            number = of_place.get(place)
            if number is None:
                continue
            session = sessions[number]
            jar = sent.name if sent.kind == "cookie" else ""
            session.sent[place] = session.sent.get(place, 0) + 1
            right = held.get((event.client, number, jar)) == sent.value
            session.hits[place] = session.hits.get(place, 0) + right
        for given in event.given:
            number = of_giver.get(Giver(event.route, given.finder, given.name))
            if number is not None:
                held[event.client, number, ""] = given.value
                if given.finder == "cookie":
                    held[event.client, number, given.name] = given.value
