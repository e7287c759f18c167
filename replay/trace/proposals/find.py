"""Looks through a trace for what its sessions are made of.

The first pass finds, client by client, values of responses that later requests send. The second one replays the captures
that follow from it on paper, and counts how often each would have had the value that was recorded.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from replay.trace import Trace

from .values import BITS_MIN, Given, Sent, bits_of, given_by, is_common, sent_by

EVENTS_MAX = 200_000
"""Events of a trace that are looked at: its first ones."""

VALUES_MAX = 4_096
"""Values of responses that are remembered of one client, and values of one place."""

HIT_RATE_MIN = 0.9
"""A rule that would have had the recorded value less often is proposed as a comment: more often than not something else
gives the value.
"""

MANY_CLIENTS = 3
"""A value that so many clients share is a constant, not one of a session."""


class Event(NamedTuple):
    """One event of the trace, with what it sent and what its response gave out."""

    client: int
    route: int
    sent: list[Sent]
    given: list[Given]


class Giver(NamedTuple):
    """Where values come from: responses of a route, and how they are found in them."""

    route: int
    finder: str
    name: str


class SentPlace(NamedTuple):
    """Where values go: requests of a route, the kind and name of the place, and the scheme before them."""

    route: int
    kind: str
    name: str
    scheme: str


@dataclass(slots=True)
class Link:
    """How often a value of a giver was sent in a place, by which clients."""

    hits: int = 0
    values: set[str] = field(default_factory=set)
    clients: set[int] = field(default_factory=set)

    @property
    def is_proof(self) -> bool:
        """Whether these matches are no chance, and no constant."""
        if len(self.values) == 1 and len(self.clients) >= MANY_CLIENTS:
            return False
        return sum(map(bits_of, self.values)) >= BITS_MIN


@dataclass(slots=True)
class OwnValues:
    """The values that clients sent in one place, and that no response had given them before: by value, the clients."""

    count: int = 0
    values: dict[str, set[int]] = field(default_factory=dict)

    def add(self, value: str, client: int) -> None:
        """Count one more."""
        self.count += 1
        if value in self.values or len(self.values) < VALUES_MAX:
            self.values.setdefault(value, set()).add(client)


@dataclass(slots=True)
class Session:
    """A value of a session: where it is given out, where it is sent, and how often a replay on paper had it right."""

    givers: list[Giver]
    places: list[SentPlace]
    sent: dict[SentPlace, int] = field(default_factory=dict)
    hits: dict[SentPlace, int] = field(default_factory=dict)


@dataclass(slots=True)
class Proposals:
    """What was found. `counts` are the sends of each place, `first_places` where a client's own value was first sent."""

    events: int = 0
    responses: int = 0
    sessions: list[Session] = field(default_factory=list)
    counts: dict[SentPlace, int] = field(default_factory=dict)
    own: dict[SentPlace, OwnValues] = field(default_factory=dict)
    first_places: dict[str, SentPlace] = field(default_factory=dict)


def find_proposals(trace: Trace) -> Proposals:
    """What the recording shows of sessions."""
    found = Proposals()
    events = _reader(trace)
    links = _links(events, found)
    found.sessions = _sessions(links)
    if found.sessions:
        _replay_on_paper(events, found.sessions)
    return found


def _reader(trace: Trace) -> Callable[[], Iterator[Event]]:
    """A function that reads the events of a trace, the first EVENTS_MAX."""
    requests = trace.requests

    @lru_cache(1 << 16)
    def sent(index: int) -> tuple[int, list[Sent]]:
        request = requests.get(index)
        headers = requests.headers(request.headers) if request.headers >= 0 else ()
        body = requests.body(request.body) if request.body >= 0 else b""
        values = [
            one
            for one in sent_by(request.target.decode("latin-1"), headers, body)
            if not is_common(one.value)
        ]
        return request.route, values

    @lru_cache(1 << 14)
    def given(index: int) -> list[Given]:
        return [one for one in given_by(trace.responses.get(index)) if not is_common(one.value)]

    def read() -> Iterator[Event]:
        left = EVENTS_MAX
        for batch in trace.batches():
            responses = [-1] * len(batch) if batch.response is None else batch.response.tolist()
            columns = zip(
                batch.request.tolist(), batch.client.tolist(), batch.status.tolist(), responses, strict=True
            )
            for request, client, status, response in columns:
                if left == 0:
                    return
                left -= 1
                route, values = sent(request)
                yield Event(client, route, values, given(response) if response >= 0 and status < 400 else [])

    return read


Links = dict[tuple[Giver, SentPlace], Link]


def _links(events: Callable[[], Iterator[Event]], found: Proposals) -> Links:
    """Each giver with each place to which its values went; fills in what clients sent of their own."""
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


def _sessions(links: Links) -> list[Session]:
    """The links that are no chance, gathered: givers that feed one place are one value, and so are places of one giver."""
    proofs = {key: link for key, link in links.items() if link.is_proof and _fits(*key)}
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


def _fits(giver: Giver, place: SentPlace) -> bool:
    """Whether a rule can bring a value from here to there: a link goes to a whole path, and a cookie to its own name."""
    if (giver.finder == "location") != (place.kind == "target"):
        return False
    if place.kind == "cookie":
        return giver.finder == "cookie" and giver.name == place.name
    return True


def _replay_on_paper(events: Callable[[], Iterator[Event]], sessions: list[Session]) -> None:
    """Count for each place of each session how often the last captured value was the one that was sent."""
    of_place = {place: number for number, session in enumerate(sessions) for place in session.places}
    of_giver = {giver: number for number, session in enumerate(sessions) for giver in session.givers}
    held: dict[tuple[int, int, str], str] = {}
    for event in events():
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
