"""The notes of run.json: remarks about a run besides its figures."""

from __future__ import annotations

from collections.abc import Sequence

from replay.units import counted, format_latency, format_share

from .document import NameFigures, Note, Started, TargetStart
from .measured import OTHER, Measured

COMPUTED = (
    "RECOVERED", "LINES_REJECTED", "PORTABLE_ENGINE", "INSECURE", "NO_CLIENT_CERTIFICATE", "CLOSED_LOOP",
    "CONNECTION_LIMITED", "VALUES_MISSING", "ROUTES_MERGED", "NAME_LOST", "ADDRESS_NOT_ALLOWED", "ADDRESSES_FULL",
    "ADDRESS_LEFT_OUT", "TAIL_IS_OURS",
)  # fmt: skip
"""Codes of the notes that are computed from other figures of a run. Merging does not copy them from the agents' runs,
but computes them for the merged run."""

TAIL_NOTE_FLOOR_NS = 1_000_000
"""Generator lag with a p99 up to this needs no note: every thread that sleeps until a due time has such a lag."""


def notes_of(
    started: Started,
    measured: Measured,
    by_name: dict[str, int],
    *,
    killed: bool,
    known: Sequence[Note],
    names: Sequence[NameFigures],
) -> list[Note]:
    """Return all notes of a run.

    `by_name` holds the sums of the lanes' counters, `known` the notes made earlier, `names` the figures of the
    targets' names.
    """
    notes = []
    if killed:
        words = "the run was killed; these results were recovered from the counts of its lanes"
        notes.append(Note("RECOVERED", words))
    notes += _rejected_note(started)
    for target in started.targets:
        notes += _target_notes(target)
    if started.closed_loop:
        words = "a closed loop has no due times, so response, generator lag and wait are not measured"
        notes.append(Note("CLOSED_LOOP", words))
    notes += _counted_notes(by_name)
    return [*notes, *known, *_name_notes(names), *_tail_note(started, measured)]


def _target_notes(target: TargetStart) -> list[Note]:
    """Return notes on facts about a target that are known at the start: its engine, its certificate."""
    notes = []
    if target.portable_because:
        notes.append(Note("PORTABLE_ENGINE", target.portable_because))
    if target.tls is not None and not target.tls.verified:
        words = f"the certificate of {target.target} was not verified (--insecure)"
        notes.append(Note("INSECURE", words))
    if target.tls is not None and target.tls.asks_certificate and not target.tls.client_certificate:
        words = f"{target.target} asked for a client certificate and got none: it may refuse requests (--cert, --key)"
        notes.append(Note("NO_CLIENT_CERTIFICATE", words))
    return notes


def _counted_notes(by_name: dict[str, int]) -> list[Note]:
    """Return notes on counters of the lanes that need an explanation."""
    notes = []
    if count := by_name["cap_bound"]:
        words = f"the cap on connections (-c) was reached {counted(count, 'time')}: a request waited, or the connection"
        words += (
            " that had been idle for longest was closed for another one; that time is part of the response"
        )
        notes.append(Note("CONNECTION_LIMITED", words))
    if count := by_name["unsent_capture"]:
        words = f"{counted(count, 'request')} not sent, because a captured value was missing: "
        notes.append(Note("VALUES_MISSING", words + "see which captures found nothing"))
    if count := by_name["routes_merged"]:
        # Each lane counts a pair once, whatever its number of requests.
        words = f"the memory for histograms of routes was full: {OTHER!r} stands for up to "
        words += f"{counted(count, 'pair')} of a route and an outcome"
        notes.append(Note("ROUTES_MERGED", words))
    return notes


def rejected_words(rejected: int, lines: int) -> str:
    """Return words such as `868 of 1,868 lines of the recording were rejected`; empty if none were."""
    if not rejected:
        return ""
    were = "was" if rejected == 1 else "were"
    return f"{rejected:,} of {counted(lines, 'line')} of the recording {were} rejected"


def _rejected_note(started: Started) -> list[Note]:
    """Return a note on the lines of the recording that could not be read, by reason, if there are any."""
    trace = started.trace
    if trace is None or not trace.rejected:
        return []
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in trace.rejected.items())
    rejected = sum(trace.rejected.values())
    words = f"{rejected_words(rejected, trace.lines)} ({reasons})"
    if trace.rows + rejected != trace.lines or started.rows_in_window != trace.rows:
        words += "; it is not known how many of them belong to the part that was replayed"
    return [Note("LINES_REJECTED", words)]


def _name_notes(names: Sequence[NameFigures]) -> list[Note]:
    """Return notes on changes of the targets' names during the run."""
    notes = []
    for name in names:
        if name.failed_at_s is not None:
            words = f"{name.name} stopped resolving after {name.failed_at_s:.1f} s: {name.failure}; the run continued with "
            notes.append(
                Note(
                    "NAME_LOST",
                    words + f"the addresses it had ({counted(name.lookups_failed, 'lookup')} failed)",
                )
            )
        refused = list(dict.fromkeys(address for change in name.changes for address in change.refused))
        if refused:
            words = (
                f"{name.name} moved during the run to addresses that are not allowed, so nothing was sent there: "
                f"{', '.join(refused)}"
            )
            notes.append(Note("ADDRESS_NOT_ALLOWED", words))
        if name.no_room:
            words = f"{name.name} had more addresses than lanes can hold: {name.no_room:,} were not used"
            notes.append(Note("ADDRESSES_FULL", words))
        if name.left_out:
            words = (
                f"addresses of {name.name} that accepted no connection before the start were not used: "
                f"{', '.join(name.left_out)}"
            )
            notes.append(Note("ADDRESS_LEFT_OUT", words))
    return notes


def _tail_note(started: Started, measured: Measured) -> list[Note]:
    """Return a note if generator lag makes up much of the response's p99: more than `lateness_p99_share_suspect`.

    Lag of more than `lateness_p99_floor_suspect_ns` is left to the verdict.
    """
    late = measured.percentiles("lateness", (99.0,))
    response = measured.percentiles("response", (99.0,))
    limits = started.limits
    if late is None or response is None or started.closed_loop:
        return []
    own_ns = late[0].ns
    if not TAIL_NOTE_FLOOR_NS < own_ns <= limits.lateness_p99_floor_suspect_ns:
        return []
    if own_ns <= limits.lateness_p99_share_suspect * response[0].ns:
        return []
    share = own_ns / max(response[0].ns, 1)
    words = f"the p99 of generator lag is {format_latency(own_ns)}, {format_share(share)} of the p99 of the response: "
    return [Note("TAIL_IS_OURS", words + "this machine causes much of the tail beyond p99")]
