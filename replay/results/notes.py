"""What is worth a word after a run, besides its figures: the notes of run.json, by name."""

from __future__ import annotations

from collections.abc import Sequence

from replay.units import counted, format_latency

from .document import NameFigures, Note, Started
from .measured import OTHER, Measured

TAIL_NOTE_FLOOR_NS = 1_000_000
"""A p99 of lateness below this is not worth a note: any sleeping thread sees it."""


def notes_of(
    started: Started,
    measured: Measured,
    by_name: dict[str, int],
    *,
    killed: bool,
    known: Sequence[Note],
    names: Sequence[NameFigures],
) -> list[Note]:
    """All of them; `by_name` are the sums of the lanes' counters, `known` what others noted, `names` the targets'."""
    notes = []
    if killed:
        notes.append(
            Note(
                "RECOVERED", "the run was killed; these results were rebuilt from what its lanes had counted"
            )
        )
    notes += _rejected_note(started)
    for target in started.targets:
        if target.portable_because:
            notes.append(Note("PORTABLE_ENGINE", target.portable_because))
        if target.tls is not None and not target.tls.verified:
            notes.append(
                Note("INSECURE", f"the certificate of {target.target} was not verified (--insecure)")
            )
        if target.tls is not None and target.tls.asks_certificate and not target.tls.client_certificate:
            words = f"{target.target} asked for a client certificate and got none: it may refuse requests (--cert, --key)"
            notes.append(Note("NO_CLIENT_CERTIFICATE", words))
    if started.closed_loop:
        notes.append(
            Note("CLOSED_LOOP", "a closed loop has no due times: response, lateness and wait do not exist")
        )
    if by_name["cap_bound"]:
        notes.append(
            Note(
                "CONNECTION_LIMITED",
                f"{by_name['cap_bound']:,} requests waited because the cap on connections (-c) was reached; "
                "their wait is part of the response",
            )
        )
    if by_name["unsent_capture"]:
        words = f"{counted(by_name['unsent_capture'], 'request')} took a value that their client did not have, and"
        notes.append(Note("VALUES_MISSING", f"{words} were not sent: see which captures missed"))
    if by_name["routes_merged"]:
        notes.append(
            Note(
                "ROUTES_MERGED",
                f"{by_name['routes_merged']:,} requests of rare routes stand together as {OTHER!r}",
            )
        )
    return [*notes, *known, *_name_notes(names), *_tail_note(started, measured)]


def _rejected_note(started: Started) -> list[Note]:
    """What of the recording could not be read, by reason."""
    trace = started.trace
    if trace is None or not trace.rejected:
        return []
    rejected = sum(trace.rejected.values())
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in trace.rejected.items())
    words = f"{rejected:,} of {counted(trace.lines, 'line')} of the recording were rejected ({reasons})"
    if trace.rows + rejected != trace.lines or started.rows_in_window != trace.rows:
        words += "; which of them belong to the part that was replayed is not known"
    return [Note("LINES_REJECTED", words)]


def _name_notes(names: Sequence[NameFigures]) -> list[Note]:
    """What became of the targets' names in mid-run."""
    notes = []
    for name in names:
        if name.failed_at_s is not None:
            words = f"{name.name} stopped resolving after {name.failed_at_s:.1f} s: {name.failure}; the run went on with "
            notes.append(
                Note(
                    "NAME_LOST",
                    words + f"the addresses it had ({counted(name.lookups_failed, 'lookup')} failed)",
                )
            )
        refused = list(dict.fromkeys(address for change in name.changes for address in change.refused))
        if refused:
            words = f"{name.name} moved to {', '.join(refused)} in mid-run, which is not allowed: nothing was sent there"
            notes.append(Note("ADDRESS_NOT_ALLOWED", words))
        if name.no_room:
            words = f"{name.name} had more addresses than lanes keep: {name.no_room:,} were not connected to"
            notes.append(Note("ADDRESSES_FULL", words))
        if name.left_out:
            words = f"{', '.join(name.left_out)} took no connection before the start, and was left out"
            notes.append(Note("ADDRESS_LEFT_OUT", words))
    return notes


def _tail_note(started: Started, measured: Measured) -> list[Note]:
    """Where the generator's own tail is most of the response's: a finding of its own only past the floor of
    validity.
    """
    late = measured.percentiles("lateness", (99.0,))
    felt = measured.percentiles("response", (99.0,))
    limits = started.limits
    if late is None or felt is None or started.closed_loop:
        return []
    own_ns = late[0].ns
    if not TAIL_NOTE_FLOOR_NS < own_ns <= limits.lateness_p99_floor_suspect_ns:
        return []
    if own_ns <= limits.lateness_p99_share_suspect * felt[0].ns:
        return []
    words = f"at p99 the generator itself was {format_latency(own_ns)} late, more than half of the response: "
    return [Note("TAIL_IS_OURS", words + "the tail beyond it is this machine's")]
