"""What a look through a trace finds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

VALUES_MAX = 4_096
"""Values of responses that are remembered of one client, and values of one place."""

HIT_RATE_MIN = 0.9
"""A rule that would have had the recorded value less often is proposed as a comment: more often than not something else
gives the value.
"""


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


class Unique(NamedTuple):
    """Values that are new for each client or request: how they are made, the place that brings them, and all places."""

    generate: str
    first: SentPlace
    places: list[SentPlace]
    values: int


class Needed(NamedTuple):
    """Values that the replay needs and the trace does not hold: the variable's name, the places, how many there are."""

    name: str
    places: list[SentPlace]
    values: int


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

    @property
    def good(self) -> int:
        """Requests of the places that had the recorded value often enough."""
        return sum(sent for place, sent in self.sent.items() if self.hits[place] >= HIT_RATE_MIN * sent)

    @property
    def is_credential(self) -> bool:
        """Whether the value says who asks: it is sent in a header or a cookie."""
        return any(place.kind in ("header", "cookie") for place in self.places)


@dataclass(slots=True)
class Proposals:
    """What was found. `counts` are the sends of each place, `first_places` where a client's own value was first sent.
    `split` is how many sessions there are, where those of one client must be told apart (0: they need not).
    """

    events: int = 0
    responses: int = 0
    sessions: list[Session] = field(default_factory=list)
    counts: dict[SentPlace, int] = field(default_factory=dict)
    own: dict[SentPlace, OwnValues] = field(default_factory=dict)
    first_places: dict[str, SentPlace] = field(default_factory=dict)
    uniques: list[Unique] = field(default_factory=list)
    accounts: list[Needed] = field(default_factory=list)
    split: int = 0
