"""Completes the folder of a killed run, from the lanes' memory and the facts recorded at its start."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import msgspec
import pyarrow.compute as pc

from replay.decoding import examined
from replay.errors import InputError, damage_named, reason_of
from replay.files import (
    open_own,
    open_regular,
    read_whole,
    refuse_foreign,
)
from replay.ledger.accounts import AT
from replay.units import SECOND_NS
from replay_native.ledger.lane_metrics import LaneMetrics, open_metrics

from .answers import REDACTED, Answers
from .assemble import assemble
from .document import (
    AnswerFigures,
    Ending,
    Note,
    RunDocument,
    SourceSoFar,
    Started,
    refuse_newer,
)
from .facts import Facts
from .folder import DOCUMENT_BYTES_MAX, RunFolder
from .samples import Lookup

SOURCE_CUT = (
    "the account of the source ends with the last full second before the kill: it lacks "
    "entries that were read later"
)


def recover(folder: RunFolder, lookup: Lookup | None = None) -> RunDocument:
    """Write totals.hlog, samples.jsonl and run.json of a killed run, and mark the run as killed.

    An incomplete last line is removed from the logs. Raise InputError if started.json or the lanes' memory is missing
    or damaged, or if the run is still in progress.
    """
    refuse_foreign(folder.path)
    started = _read_started(folder)
    _refuse_if_alive(folder)
    all_metrics = [_open(path) for path in folder.lane_files()]
    if not all_metrics:
        raise InputError(
            f"{folder.path} was killed before its lanes began: there is nothing to report",
            hint="remove the folder",
        )
    if any(metrics.slots.shape[0] != len(started.routes) + 1 for metrics in all_metrics):
        raise InputError(
            f"{folder.path} cannot be recovered: its lanes and {folder.started.name} belong to different runs"
        )
    for path in (folder.latency, folder.timeline):
        cut_to_whole_lines(path)
    # A lane's memory has no checksum, so any number in it may be wrong.
    hint = "latency.hlog and timeline.jsonl in the folder hold what was measured until the run was killed"
    with damage_named(f"{folder.path} cannot be recovered: the memory of its lanes", hint):
        return _assembled(folder, all_metrics, started, lookup)


def _assembled(
    folder: RunFolder, all_metrics: list[LaneMetrics], started: Started, lookup: Lookup | None
) -> RunDocument:
    ended_ns = max(
        [started.start.monotonic_ns, *(int(metrics.counters[AT["last_done_ns"]]) for metrics in all_metrics)]
    )
    ended_s = (ended_ns - started.start.monotonic_ns) / SECOND_NS
    ending = Ending(
        how="killed", detail="the process was killed, or could not save its result", at_s=round(ended_s, 3)
    )
    so_far = _source_left(folder)
    planned = sum(int(metrics.counters[AT["planned"]]) for metrics in all_metrics)
    facts = Facts(
        ending=ending,
        ended_ns=ended_ns,
        skipped=started.skipped,
        answers=_answers_left(folder, all_metrics, started),
        source=None if so_far is None else so_far.source.with_planned(planned),
        trace=None if so_far is None else so_far.trace,
        notes=[] if so_far is None else [Note("SOURCE_CUT", SOURCE_CUT)],
    )
    return assemble(folder, all_metrics, started, facts, lookup)


def _source_left(folder: RunFolder) -> SourceSoFar | None:
    """Return the account of a followed source, as the run last saved it; None if there is none.

    Raise InputError if it cannot be read.
    """
    if not os.path.lexists(folder.source):
        return None
    try:
        return msgspec.json.decode(read_whole(folder.source, DOCUMENT_BYTES_MAX), type=examined(SourceSoFar))
    except OSError as error:
        raise InputError(f"{folder.source} cannot be read: {reason_of(error)}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(
            f"{folder.source} is damaged ({error})",
            hint="remove it; the report is then made without the account of the source",
        ) from None


def _answers_left(
    folder: RunFolder, all_metrics: list[LaneMetrics], started: Started
) -> AnswerFigures | None:
    """Return the figures of the kept responses that can still be read; None if the run kept none.

    The reasons for which other responses were lost are not known after a kill, so all of them count as late. With
    several targets their number is not known either, because some targets may not keep responses.
    """
    keep = started.scenario.get("answers", {}).get("keep") or "none"
    answers = Answers(folder.path)
    if keep == "none" or not answers:
        return None
    kept = bodies = cut = redacted = 0
    for batch in answers.batches("body", "cut"):
        kept += batch.num_rows
        bodies += batch.num_rows - batch["body"].null_count
        cut += batch["cut"].true_count
        redacted += pc.sum(pc.match_substring(batch["body"], REDACTED)).as_py() or 0
    secrets_kept = bool(started.scenario["answers"].get("keep_secrets"))
    late = sum(int(metrics.counters[AT["ok"]]) for metrics in all_metrics) - kept
    return AnswerFigures(
        keep=keep,
        kept=kept,
        bodies=bodies,
        cut=cut,
        redacted=0 if secrets_kept else redacted,
        secrets_kept=secrets_kept,
        dropped={"late": late} if late > 0 and len(started.targets) < 2 else {},
    )


def cut_to_whole_lines(path: Path) -> int:
    """Truncate a file after its last line break, and return the number of bytes removed.

    A missing file is not created. Raise InputError if the file is a link or belongs to another user.
    """
    if not os.path.lexists(path):
        return 0
    with open_own(path) as file:
        size = end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(end - 65_536, 0)
            file.seek(start)
            at = file.read(end - start).rfind(b"\n")
            if at >= 0:
                end = start + at + 1
                break
            end = start
        file.truncate(end)
    return size - end


def _read_started(folder: RunFolder) -> Started:
    try:
        data = read_whole(folder.started, DOCUMENT_BYTES_MAX)
        refuse_newer(folder.started, data)
        return msgspec.json.decode(data, type=examined(Started))
    except OSError as error:
        raise InputError(f"{folder.started} cannot be read: {reason_of(error)}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{folder.started} is damaged ({error}): the run cannot be recovered") from None


def _open(path: Path) -> LaneMetrics:
    try:
        return open_metrics(path)
    except (OSError, ValueError) as error:
        raise InputError(f"the run cannot be recovered: {error}") from None


def _refuse_if_alive(folder: RunFolder) -> None:
    """Raise InputError if the run is in progress.

    Its recorder holds a lock on started.json for as long as its process lives.
    """
    with open_regular(folder.started) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"{folder.path} is still being written: the run is in progress",
                hint="wait until it has ended",
            ) from None
