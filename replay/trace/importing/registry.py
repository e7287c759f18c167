"""The registry of importers: how an importer describes itself, and the data that it delivers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from replay import units
from replay.errors import UsageError
from replay.trace.extensions import Extensions
from replay.trace.manifest import Stamp
from replay.trace.requests import Headers
from replay.trace.responses import RecordedResponse
from replay.trace.route_rules import RouteRules

from .marks import Change
from .rejects import Rejects
from .scrub_rules import ScrubRules
from .secret_names import secret_key
from .sources import SourceFile

Body = bytes

KeptResponses = Literal["none", "digest", "text", "all"]

SECRET_NAMES_MAX = 200
"""How many names of secrets are counted separately."""

OTHER_NAMES = "(other)"

CHANGES_MAX = 500
"""How many pairs of place and name are counted separately."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Log entries as columns of equal length, in file order; -1 is unknown.

    `at_ns` is the recorded instant, truncated to the format's resolution. Target i is data[offsets[i]:offsets[i +
    1]]. `method` and `host` index the reader's `methods` and `hosts`. `client_hash` is a keyed hash of the client, 0
    if unknown. `headers`, `body` and `response` index `header_sets`, `bodies` and `responses` (-1 is none). An
    optional column is None if no row has it.
    """

    at_ns: npt.NDArray[np.int64]
    data: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.int64]
    method: npt.NDArray[np.int64]
    host: npt.NDArray[np.int64]
    client_hash: npt.NDArray[np.int64]
    status: npt.NDArray[Any]
    took_ns: npt.NDArray[Any] | None
    bytes: npt.NDArray[Any]
    headers: npt.NDArray[np.int64] | None = None
    header_sets: Sequence[Headers] = ()
    body: npt.NDArray[np.int64] | None = None
    bodies: Sequence[Body] = ()
    response: npt.NDArray[np.int64] | None = None
    responses: Sequence[RecordedResponse] = ()
    first_byte_ns: npt.NDArray[np.int64] | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """The user's options for an import.

    `columns` maps roles to columns or constants (`readers.columns.parse_columns`). `log_format` is a server's own
    format string. `time_zone` applies to timestamps without a zone. `routes` are the user's route rules. `scrub` are
    the user's rules for secrets. `scrub_key` is the key of the pseudonyms, for recordings whose pseudonyms must
    agree. `responses` selects what is kept of recorded responses: nothing, sizes and digests, text bodies too, or all
    bodies. `service` selects one service of a recording of spans.
    """

    keep_secrets: bool = False
    keep_health_checks: bool = False
    columns: tuple[tuple[str, str], ...] = ()
    log_format: str = ""
    time_zone: str = ""
    routes: RouteRules = field(default_factory=RouteRules)
    scrub: ScrubRules = field(default_factory=ScrubRules)
    scrub_key: bytes = field(default=b"", repr=False)
    responses: KeptResponses = "text"
    service: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the options in the form that the manifest stores."""
        return {
            **self.routes.as_dict(),
            "keep_secrets": self.keep_secrets,
            "keep_health_checks": self.keep_health_checks,
            "columns": dict(self.columns),
            "log_format": self.log_format,
            "time_zone": self.time_zone,
            **({"scrub": self.scrub.as_list()} if self.scrub.rules else {}),
            **({"scrub_key": "from a file"} if self.scrub_key else {}),
            **({"responses": self.responses} if self.responses != "text" else {}),
            **({"service": self.service} if self.service else {}),
        }


@dataclass(frozen=True, slots=True)
class Probe:
    """The timestamps at the beginning of a file: the first one (None if there is none) and their resolution."""

    first_ns: int | None
    resolution_ns: int


@dataclass(slots=True)
class Found:
    """What a reader finds during an import, for the manifest.

    `key` is the key of the pseudonyms, unless the options have one. `assumptions` are made where the recording does
    not state a fact. `unknown_values` counts unreadable values by field. `queries_cut` counts requests whose query the
    server did not log. `lost` counts, by reason, requests that a live recording lacks wholly or partly. `bodies_left`
    counts, by reason, response bodies that were not kept. `keeps_secrets` is set if the recording states that it
    contains secrets unchanged.

    For recordings of spans, `missing` counts absent data, `queries` counts targets with a query, `topics` has the
    number of partitions of each Kafka topic, and `templates` are the routes that the recording names.
    """

    rejects: Rejects = field(default_factory=Rejects)
    key: bytes = b""
    secrets_dropped: dict[str, int] = field(default_factory=dict)
    secrets_by_name: dict[str, int] = field(default_factory=dict)
    changes: dict[Change, int] = field(default_factory=dict)
    rules_used: set[str] = field(default_factory=set)
    known_secrets: set[str] = field(default_factory=set)
    given_out: dict[str, str] = field(default_factory=dict)
    time_zone: str = ""
    time_zone_changed: bool = False
    assumptions: list[str] = field(default_factory=list)
    unknown_values: dict[str, int] = field(default_factory=dict)
    moments: dict[str, int] = field(default_factory=dict)
    queries_cut: int = 0
    lost: dict[str, int] = field(default_factory=dict)
    bodies_left: dict[str, int] = field(default_factory=dict)
    missing: Counter[str] = field(default_factory=Counter)
    queries: int = 0
    topics: dict[str, int] = field(default_factory=dict)
    templates: list[str] = field(default_factory=list)
    keeps_secrets: bool = False

    def assume(self, what: str) -> None:
        """Record an assumption, unless it was recorded before."""
        if what not in self.assumptions:
            self.assumptions.append(what)

    def count_unknown(self, what: str, count: int) -> None:
        """Count invalid values of a field, which are treated as unknown."""
        if count:
            self.unknown_values[what] = self.unknown_values.get(what, 0) + count

    def count_moments(self, what: str, count: int) -> None:
        """Count timestamps of a kind.

        The kinds are `zoneless`, `repeated` (in an hour that occurred twice) and `skipped` (in an hour that did not
        occur).
        """
        if count:
            self.moments[what] = self.moments.get(what, 0) + count

    def leave_body(self, why: str) -> None:
        """Count a response body that is not kept, by reason."""
        self.bodies_left[why] = self.bodies_left.get(why, 0) + 1

    def drop(self, what: str, count: int) -> None:
        """Count secrets or personal data of a kind that were replaced or removed."""
        if count:
            self.secrets_dropped[what] = self.secrets_dropped.get(what, 0) + count

    def note_secret(self, name: str, count: int = 1) -> None:
        """Count secrets that were replaced or removed, by the name beside them.

        Names beyond SECRET_NAMES_MAX are counted together.
        """
        name = secret_key(name) or name.lower()
        if name not in self.secrets_by_name and len(self.secrets_by_name) >= SECRET_NAMES_MAX:
            name = OTHER_NAMES
        self.secrets_by_name[name] = self.secrets_by_name.get(name, 0) + count

    def note_change(self, change: Change, count: int) -> None:
        """Count changed values by place and name.

        Beyond CHANGES_MAX pairs, all new names of a place are counted together.
        """
        if change not in self.changes and len(self.changes) >= CHANGES_MAX:
            change = change._replace(name=OTHER_NAMES)
        self.changes[change] = self.changes.get(change, 0) + count

    def scrubbed(self) -> list[dict[str, str | int]]:
        """Return the changes for the manifest, the most frequent first."""
        listed = sorted(self.changes.items(), key=lambda item: (-item[1], item[0]))
        return [{**change._asdict(), "count": count} for change, count in listed]


class Reader(Protocol):
    """Reads the files of one import, one after the other."""

    @property
    def methods(self) -> list[str]:
        """Method names by index."""
        ...

    @property
    def hosts(self) -> list[str]:
        """Hosts by index."""
        ...

    @property
    def stamp(self) -> Stamp:
        """Whether a timestamp is the start or the end of its request, or unknown."""
        ...

    @property
    def subtracts(self) -> bool:
        """Whether the start of a request is computed as its timestamp minus its duration."""
        ...

    def probe(self, head: bytes) -> Probe:
        """Return the first timestamp in the head of a file, and the resolution of its timestamps."""
        ...

    def read(self, file: SourceFile) -> Iterator[Rows]:
        """Yield the rows of a file in blocks. The arrays may be reused once the next block is requested."""
        ...


@runtime_checkable
class EndsLate(Protocol):
    """A reader that holds rows back until all files were read."""

    def rows_at_end(self) -> Iterator[Rows]:
        """Yield the rows that were held back."""
        ...


@dataclass(frozen=True, slots=True)
class Importer:
    """One format of recordings.

    `sniff(head, options)` scores how well the head of a file matches (0 to 1). If scores are equal, the highest
    `rank` wins. `reader(found, options)` creates a reader. `takes_columns`, `takes_log_format` and `takes_service`
    allow `--columns`, `--log-format` and `--service`. `names_clients` is false for formats that never identify the
    client.
    """

    name: str
    title: str
    sniff: Callable[[bytes, Options], float]
    reader: Callable[[Found, Options], Reader]
    rank: int = 0
    takes_columns: bool = False
    takes_log_format: bool = False
    takes_service: bool = False
    names_clients: bool = True


_BROUGHT = Extensions("replay.importers", "importer", Importer)
_importers: dict[str, Importer] = {}


def importer(new: Importer) -> Importer:
    """Register an importer, and return it."""
    _importers[new.name] = new
    return new


def importers() -> dict[str, Importer]:
    """Return all importers by name, those of installed packages last.

    Raises UsageError if a package's importer cannot be used.
    """
    brought = {name: _BROUGHT.get(name, is_taken=name in _importers) for name in _BROUGHT.names()}
    return {**_importers, **brought}


def importer_names() -> list[str]:
    """Return the names of all importers, without loading those of packages."""
    return [*_importers, *(name for name in _BROUGHT.names() if name not in _importers)]


def importers_that(accepts: Callable[[Importer], bool]) -> list[str]:
    """Return the sorted names of the importers that satisfy a condition."""
    return sorted(name for name, known in importers().items() if accepts(known))


def importer_named(name: str) -> Importer:
    """Return the importer for a `--format`.

    Raises UsageError if there is none, or if a package's importer cannot be used.
    """
    if name in _importers and name not in _BROUGHT.names():
        return _importers[name]
    known = importers()
    if name not in known:
        guess = units.nearest(name, sorted(known))
        meant = f" (did you mean {guess}?)" if guess else ""
        raise UsageError(f"no format {name!r}{meant}", hint=f"known: {', '.join(sorted(known))}")
    return known[name]
