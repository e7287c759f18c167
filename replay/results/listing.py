"""Lists the runs of a folder, newest first, with one line each.

Only the needed fields of each run.json are decoded, so that a list of a thousand runs is fast.
"""

from __future__ import annotations

import fcntl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import msgspec

from replay.decoding import examined
from replay.errors import InputError, reason_of
from replay.files import is_own_file, read_whole

from .build_label import name_of
from .verdicts import verdict_word

T = TypeVar("T")

DOCUMENT_BYTES_MAX = 256 << 20
"""Maximum size of a run.json that is read."""


class _Start(msgspec.Struct):
    wall_ns: int


class _Ending(msgspec.Struct):
    how: str = "whole"


class _Verdict(msgspec.Struct):
    verdict: str


class _Latency(msgspec.Struct):
    count: int
    p99_ns: int
    at_least: list[str] = []


class _Latencies(msgspec.Struct):
    response: _Latency | None = None
    service: _Latency | None = None


class _Objective(msgspec.Struct):
    passed: bool


class _Differs(msgspec.Struct):
    failed: bool = False


class _Trace(msgspec.Struct):
    path: str = ""


class _Host(msgspec.Struct):
    name: str = ""
    control_ns: int | None = None


class _Document(msgspec.Struct):
    start: _Start
    target: str
    validity: _Verdict
    latency: _Latencies
    ending: _Ending = msgspec.field(default_factory=_Ending)
    status_differs: _Differs | None = None
    slo: list[_Objective] = []
    duration_s: float = 0.0
    name: str = ""
    build: str = ""
    trace: _Trace | None = None
    host: _Host = msgspec.field(default_factory=_Host)


class _Begun(msgspec.Struct):
    start: _Start
    target: str = ""


@dataclass(frozen=True, slots=True)
class ListedRun:
    """One run of a list.

    `verdict` is one word (`verdict_word`), or RUNNING for a run in progress and KILLED for one to be recovered.
    `p99_ns` is that of the response, or of the service time in a closed loop. `problem` is the reason why a folder
    cannot be read; the other fields are then unknown.
    """

    path: Path
    started_ns: int = 0
    target: str = ""
    verdict: str = ""
    validity: str = ""
    ending: str = ""
    duration_s: float = 0.0
    p99_ns: int | None = None
    p99_at_least: bool = False
    objectives: int = 0
    objectives_met: int = 0
    scenario: str = ""
    build: str = ""
    host: str = ""
    control_ns: int | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Listing:
    """The runs of a folder, newest first.

    `others` are its folders that are no runs but contain some (of `replay peak` and `ab`). `links` are links to
    folders, and links in place of a run.json; they are not followed.
    """

    runs: list[ListedRun] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    links: list[str] = field(default_factory=list)


def list_runs(parent: Path) -> Listing:
    """List the runs of `parent`; the list is empty if `parent` does not exist.

    Raise InputError if `parent` cannot be read.
    """
    listing = Listing()
    if not parent.exists():
        return listing
    try:
        children = sorted(child for child in parent.iterdir() if not child.name.startswith("."))
    except OSError as error:
        raise InputError(f"{parent} cannot be read: {reason_of(error)}") from None
    for child in children:
        if child.is_symlink():
            if child.is_dir():
                listing.links.append(child.name)
        elif (child / "run.json").is_symlink():
            listing.links.append(f"{child.name}/run.json")
        elif is_own_file(child / "run.json") or is_own_file(child / "started.json"):
            listing.runs.append(listed(child))
        elif child.is_dir() and any(map(is_own_file, child.glob("*/run.json"))):
            listing.others.append(child)
    listing.runs.sort(key=lambda run: (-run.started_ns, run.path.name))
    return listing


def listed(path: Path) -> ListedRun:
    """Return the line for one run folder, with a `problem` if it cannot be read."""
    try:
        if is_own_file(path / "run.json"):
            return _of_document(path, _read(path / "run.json", _Document))
        begun = _read(path / "started.json", _Begun)
        verdict = "RUNNING" if _is_locked(path / "started.json") else "KILLED"
        return ListedRun(path, begun.start.wall_ns, begun.target, verdict, ending=verdict.lower())
    except (OSError, InputError) as error:
        return ListedRun(path, problem=reason_of(error) if isinstance(error, OSError) else str(error))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return ListedRun(path, problem=f"damaged: {error}")


def _read(path: Path, kind: type[T]) -> T:
    return msgspec.json.decode(read_whole(path, DOCUMENT_BYTES_MAX), type=examined(kind))


def _of_document(path: Path, document: _Document) -> ListedRun:
    latency = document.latency.response or document.latency.service
    known = latency is not None and latency.count > 0
    met = sum(objective.passed for objective in document.slo)
    differs = document.status_differs is not None and document.status_differs.failed
    how, validity = document.ending.how, document.validity.verdict
    return ListedRun(
        path=path,
        started_ns=document.start.wall_ns,
        target=document.target,
        verdict=verdict_word(how, validity, failed=differs or met < len(document.slo)),
        validity=validity,
        ending=how,
        duration_s=document.duration_s,
        p99_ns=latency.p99_ns if latency is not None and known else None,
        p99_at_least=latency is not None and "p99_ns" in latency.at_least,
        objectives=len(document.slo),
        objectives_met=met,
        scenario=document.name or name_of(document.trace.path if document.trace is not None else ""),
        build=document.build,
        host=document.host.name,
        control_ns=document.host.control_ns,
    )


def _is_locked(path: Path) -> bool:
    """Return whether a run holds the lock on its started.json, which means that it is in progress."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
