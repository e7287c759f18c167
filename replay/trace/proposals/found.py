"""The results of a search for session values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

VALUES_MAX = 4_096
"""How many response values are remembered per client, and how many sent values per place."""

HIT_RATE_MIN = 0.9
"""Below this hit rate, a rule is only a comment or a note, because the value probably has another source."""


class Giver(NamedTuple):
    """A source of values: the responses of a route, and how to find the value in them."""

    route: int
    finder: str
    name: str


class SentPlace(NamedTuple):
    """A destination of values: the requests of a route, and the kind and name of the place.

    `scheme` is the text before the value, such as `Bearer `.
    """

    route: int
    kind: str
    name: str
    scheme: str


class Unique(NamedTuple):
    """Values unique to each client or request.

    `generate` is how a replay generates them, `first` the place that introduces them, and `places` all places that
    send them. `values` is their number.
    """

    generate: str
    first: SentPlace
    places: list[SentPlace]
    values: int


class Needed(NamedTuple):
    """Values that a replay needs but the trace lacks: a variable's name, its places, and the number of values."""

    name: str
    places: list[SentPlace]
    values: int


@dataclass(slots=True)
class OwnValues:
    """The values that clients sent in one place without having received them, with the clients of each value.

    At most VALUES_MAX values are kept. `count` counts each time that a value was sent.
    """

    count: int = 0
    values: dict[str, set[int]] = field(default_factory=dict)

    def add(self, value: str, client: int) -> None:
        """Count a value that a client sent, and keep it if it is known or fewer than VALUES_MAX are kept."""
        self.count += 1
        if value in self.values or len(self.values) < VALUES_MAX:
            self.values.setdefault(value, set()).add(client)


@dataclass(slots=True)
class Session:
    """A session value: its sources, its places, and how often the simulated value was right."""

    givers: list[Giver]
    places: list[SentPlace]
    sent: dict[SentPlace, int] = field(default_factory=dict)
    hits: dict[SentPlace, int] = field(default_factory=dict)

    @property
    def good(self) -> int:
        """Return the number of requests in places where the simulated value was right often enough."""
        return sum(sent for place, sent in self.sent.items() if self.hits[place] >= HIT_RATE_MIN * sent)

    @property
    def is_credential(self) -> bool:
        """Return whether the value identifies the client, because it is sent in a header or a cookie."""
        return any(place.kind in ("header", "cookie") for place in self.places)


@dataclass(slots=True)
class Proposals:
    """The results of a search.

    `counts` has how many values were sent in each place. `first_places` has, for each value that clients did not
    receive first, the place in which any client first sent it. `split` is the number of sessions if clients had to be
    split, otherwise 0.
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
