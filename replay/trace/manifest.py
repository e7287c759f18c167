"""Reads and writes manifest.json, which describes a trace, its sources, and what was changed or left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

from replay.decoding import examined
from replay.errors import InputError, reason_of
from replay.files import read_whole
from replay.shown import json_shown

FORMAT_VERSION = 3
"""The newest version of the trace folder that this code reads.

This code writes it for traces with bodies, recorded responses, times to the first byte or lost requests, and
PLAIN_VERSION for all others. Version 1 has no `files`.
"""

PLAIN_VERSION = 2

_FROM_VERSION_3 = ("responses", "response_bodies", "response_bodies_cut", "lost")
"""Manifest keys that exist only since version 3."""

MANIFEST = "manifest.json"

MANIFEST_BYTES_MAX = 256 << 20
"""Maximum size of a manifest in bytes: ten times the size of a manifest whose lists are all full."""

ROUTES_MAX = 1_000
"""Beyond this number of distinct routes, rare ones are grouped. A reader accepts up to METHODS_MAX more."""

METHODS_MAX = 256
"""Maximum number of distinct methods in a trace."""

HOSTS_MAX = 1 << 16
"""Maximum number of distinct hosts in a trace. Requests to further hosts are kept without their host."""

OUT_OF_TIME_ORDER = "out_of_time_order"
"""Key of `options` in a recording of Kafka topics.

It holds, by `topic/partition`, the number of records with an earlier timestamp than a record at a lower offset.
"""

CUT_BODY_MARK = "(body-cut)"
"""Suffix of the method of a request recorded without its whole body. A method with brackets is never sent."""

Stamp = Literal["start", "end", "unknown"]
"""Whether the recorded timestamps are the start or the end of a request. "unknown": the log does not show which."""


class Source(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One imported file.

    `xxh64` is the hash of its bytes as stored on disk. `wrapper` is the format of a container or log collector that
    was removed from around each line.
    """

    name: str
    bytes: int
    xxh64: str
    compression: str = ""
    wrapper: str = ""


class LeftOut(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A file that the import of a folder or a pattern skipped, because it is not a recording, and the reason."""

    name: str
    why: str


class RejectedExample(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A rejected line, one of the first for its reason; the text is shortened and has no addresses or secrets."""

    reason: str
    file: str
    line: int
    text: str


class Jitter(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Whether timestamps were spread within their recorded resolution, and the seed used."""

    done: bool = False
    seed: int = 0


class Segment(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One events file: its number of rows, and its first and last timestamp."""

    file: str
    rows: int
    start_ns: int
    end_ns: int


class FileSums(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Length and checksums of one file of the trace.

    `xxh64` has the XXH64 of each block (blocks.BLOCK_BYTES), 16 hex digits per block.
    """

    bytes: int
    xxh64: str


class Route(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """A route's label, such as `GET /users/{id}`, its number of rows, and its business action."""

    route: str
    rows: int
    action: str = ""


NO_REQUEST = frozenset(
    {
        "blank", "header", "from the browser's cache", "never sent", "client or internal span", "caused by another request",
        "of another service", "span that came before", "logs or metrics",
    }
)  # fmt: skip
"""Reject reasons for lines that record no request to the server, so that rejecting them loses nothing."""


class Manifest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The whole manifest of a trace. `rows` + the sum of `rejected` = `lines`.

    `files` lists every file of the trace except the manifest itself.

    `assumptions` are sentences on what the import assumed because the recording does not contain it.
    `unknown_values` counts invalid values by field.

    `lost` counts, by reason, requests that a live recording or a capture saw but lacks wholly or partly.

    A derived trace keeps the `lines` and `rejected` of the import in `imported_lines` and `imported_rejected`.

    `responses` counts the events with a recorded response. `response_bodies` counts those whose body was kept, and
    `response_bodies_cut` those of which only the beginning was kept.
    """

    format_version: int = PLAIN_VERSION
    written_by: str = ""
    rows: int = 0
    lines: int = 0
    rejected: dict[str, int] = {}
    rejected_examples: list[RejectedExample] = []
    imported_lines: int = 0
    imported_rejected: dict[str, int] = {}
    start_ns: int = 0
    end_ns: int = 0
    importer: str = ""
    options: dict[str, Any] = {}
    sources: list[Source] = []
    left_out: list[LeftOut] = []
    stamp: Stamp = "start"
    duration_subtracted: bool = False
    resolution_ns: int = 1
    time_zone: str = ""
    time_zone_changed: bool = False
    jitter: Jitter = msgspec.field(default_factory=Jitter)
    secrets_dropped: dict[str, int] = {}
    secrets_by_name: dict[str, int] = {}
    assumptions: list[str] = []
    unknown_values: dict[str, int] = {}
    clients: int = 0
    requests: int = 0
    methods: list[str] = []
    hosts: list[str] = []
    routes: list[Route] = []
    routes_folded: dict[str, int] = {}
    segments: list[Segment] = []
    files: dict[str, FileSums] = {}
    history: list[dict[str, Any]] = []
    lost: dict[str, int] = {}
    responses: int = 0
    response_bodies: int = 0
    response_bodies_cut: int = 0

    @property
    def scrubbed(self) -> list[dict[str, str | int]]:
        """Return how secrets were treated, most frequent first: `place`, `name`, `how` and `count` of each."""
        found: list[dict[str, str | int]] = self.options.get("scrubbed", [])
        return found

    @property
    def cut_rows(self) -> int:
        """Return the number of requests that were recorded without their whole body."""
        return sum(route.rows for route in self.routes if CUT_BODY_MARK in route.route)

    def unread(self) -> tuple[int, dict[str, int]]:
        """Return the number of lines of the imported recording, and how many could not be read, by reason.

        Lines whose reject reason is in NO_REQUEST, such as blank lines and headers, are not counted.
        """
        lines, rejected = self.lines, self.rejected
        if self.imported_lines:
            lines, rejected = self.imported_lines, self.imported_rejected
        unread = {reason: count for reason, count in rejected.items() if reason not in NO_REQUEST}
        return lines - sum(rejected.values()) + sum(unread.values()), unread

    def actions(self) -> dict[str, list[Route]]:
        """Return the routes of each business action."""
        found: dict[str, list[Route]] = {}
        for route in self.routes:
            if route.action:
                found.setdefault(route.action, []).append(route)
        return found


class _Version(msgspec.Struct):
    format_version: int


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a trace folder.

    Raises InputError if the trace is newer than this code, or if the manifest is missing or damaged.
    """
    path = folder / MANIFEST
    try:
        data = read_whole(path, MANIFEST_BYTES_MAX)
    except OSError as error:
        raise InputError(f"{path}: {reason_of(error)}") from None
    try:
        version = msgspec.json.decode(data, type=examined(_Version)).format_version
        if version > FORMAT_VERSION:
            raise InputError(
                f"{folder} was written by a newer replay"
                f" (trace format {version}; this one reads up to {FORMAT_VERSION})",
                hint="upgrade replay, or import the log again with this one",
            )
        return msgspec.json.decode(data, type=examined(Manifest))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not a trace's manifest: {error}", hint="import the log again") from None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write manifest.json into `folder`.

    Older releases of replay refuse unknown keys. Keys that exist only since version 3 are therefore left out of
    older versions.
    """
    if manifest.lost:
        manifest.format_version = FORMAT_VERSION
    keys = msgspec.to_builtins(manifest)
    if manifest.format_version < FORMAT_VERSION:
        for key in _FROM_VERSION_3:
            del keys[key]
    data = msgspec.json.format(msgspec.json.encode(keys), indent=2)
    (folder / MANIFEST).write_bytes(json_shown(data) + b"\n")
