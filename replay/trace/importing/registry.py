"""The importers by name: what each says of itself, and what it hands on."""

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
"""Names of secrets that are counted each by itself."""

OTHER_NAMES = "(other)"

CHANGES_MAX = 500
"""Places and names that are counted each by itself."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Log lines as columns of one length, in the order of the file; -1 is unknown.

    `at_ns` is the recorded instant, cut to the format's resolution. Target i is data[offsets[i]:offsets[i +
    1]]. `method` and `host` index the reader's `methods` and `hosts`. `client_hash` is a keyed hash of who
    asked. `headers`, `body` and `response` index the sequences beside them (-1 is none).
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
    """What the user says of a recording. `columns` maps roles to columns or constants (`fields.read_columns`),
    `log_format` is a server's own format string, `time_zone` that of stamps which name none, `routes` the rules of
    the user's own. `scrub` are the user's rules for secrets, and `scrub_key` is the key of pseudonyms, where two recordings
    are to agree. `responses` says what is kept of recorded responses: nothing, sizes and digests, bodies that are text
    too, or all bodies; `service` takes the share of one service out of a recording of spans.
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
        """As the manifest keeps them."""
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
    """What the head of a file says of its stamps: the first (None: there is none) and how coarse they are."""

    first_ns: int | None
    resolution_ns: int


@dataclass(slots=True)
class Found:
    """What a reader learns on the way, for the manifest. `key` is that of pseudonyms, `assumptions` what was supposed where
    the recording says nothing, `unknown_values` counts values by field that could not be read, `queries_cut` requests whose
    query the server left out of its log, `lost` what a live recording does not have, by reason, `bodies_left` recorded
    bodies of responses that were not kept, by reason. `missing` counts what a recording of spans does not have, `queries`
    its targets that have one, `topics` the partitions of its Kafka topics; `templates` are routes that it names itself.
    `keeps_secrets` is set where the recording says that it holds secrets as they are.
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
        """Note what the recording does not say and the import supposes, once."""
        if what not in self.assumptions:
            self.assumptions.append(what)

    def count_unknown(self, what: str, count: int) -> None:
        """Count values that are not what their field should have, and so are unknown."""
        if count:
            self.unknown_values[what] = self.unknown_values.get(what, 0) + count

    def count_moments(self, what: str, count: int) -> None:
        """Count stamps: `zoneless`, `repeated` (in an hour that was there twice), `skipped` (in one that was not there)."""
        if count:
            self.moments[what] = self.moments.get(what, 0) + count

    def leave_body(self, why: str) -> None:
        """Count the body of a response that is not kept."""
        self.bodies_left[why] = self.bodies_left.get(why, 0) + 1

    def drop(self, what: str, count: int) -> None:
        """Count what was taken out."""
        if count:
            self.secrets_dropped[what] = self.secrets_dropped.get(what, 0) + count

    def note_secret(self, name: str, count: int = 1) -> None:
        """Count what was taken out because of a name, under this name; past SECRET_NAMES_MAX names together."""
        name = secret_key(name) or name.lower()
        if name not in self.secrets_by_name and len(self.secrets_by_name) >= SECRET_NAMES_MAX:
            name = OTHER_NAMES
        self.secrets_by_name[name] = self.secrets_by_name.get(name, 0) + count

    def note_change(self, change: Change, count: int) -> None:
        """Count what became of values, by place and name; past CHANGES_MAX names of a place together."""
        if change not in self.changes and len(self.changes) >= CHANGES_MAX:
            change = change._replace(name=OTHER_NAMES)
        self.changes[change] = self.changes.get(change, 0) + count

    def scrubbed(self) -> list[dict[str, str | int]]:
        """What was changed, most often first, for the manifest."""
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
        """What the recorded stamps mean."""
        ...

    @property
    def subtracts(self) -> bool:
        """Whether the start of a request is its stamp less its duration."""
        ...

    def probe(self, head: bytes) -> Probe:
        """What the first lines of a file say of its stamps."""
        ...

    def read(self, file: SourceFile) -> Iterator[Rows]:
        """The rows of a file, a block at a time; the arrays may be used again after the next block is asked
        for.
        """
        ...


@runtime_checkable
class EndsLate(Protocol):
    """A reader that has rows only when all files were read."""

    def rows_at_end(self) -> Iterator[Rows]:
        """The rows that were held back."""
        ...


@dataclass(frozen=True, slots=True)
class Importer:
    """One format. `sniff(head, options)` says how much the head of a file looks like it (0 to 1); of equals the
    one with the higher `rank` is taken. `reader(found, options)` makes a reader.

    `takes_columns`, `takes_log_format` and `takes_service` say that `--columns`, `--log-format` and `--service` may be given
    for it. `names_clients` is
    false for formats that never say who asked.
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
    """Enter an importer into the registry."""
    _importers[new.name] = new
    return new


def importers() -> dict[str, Importer]:
    """All importers by name, those of installed packages last. UsageError where one of these cannot be used."""
    brought = {name: _BROUGHT.get(name, is_taken=name in _importers) for name in _BROUGHT.names()}
    return {**_importers, **brought}


def importer_names() -> list[str]:
    """The names of all importers; those of packages are not loaded for it."""
    return [*_importers, *(name for name in _BROUGHT.names() if name not in _importers)]


def importers_that(accepts: Callable[[Importer], bool]) -> list[str]:
    """The names of the importers that accept something, in order."""
    return sorted(name for name, known in importers().items() if accepts(known))


def importer_named(name: str) -> Importer:
    """The importer of a `--format`. UsageError where there is none."""
    if name in _importers and name not in _BROUGHT.names():
        return _importers[name]
    known = importers()
    if name not in known:
        guess = units.nearest(name, sorted(known))
        meant = f" (did you mean {guess}?)" if guess else ""
        raise UsageError(f"no format {name!r}{meant}", hint=f"known: {', '.join(sorted(known))}")
    return known[name]
