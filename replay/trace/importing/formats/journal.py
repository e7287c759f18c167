"""The journal of a recording (`replay record http`).

The final step of a recording imports it. If the recording was killed, the journal is what remains.
"""

from __future__ import annotations

from collections.abc import Iterator

from replay.trace.importing.marks import Change
from replay.trace.importing.readers.records import ROWS_AT_ONCE, Record, RecordReader
from replay.trace.importing.registry import Found, Importer, Options, Probe, Rows, importer
from replay.trace.importing.sources import SourceFile
from replay.trace.journal import (
    CutJournalError,
    Notes,
    blocks_in,
    is_journal,
    notes_in,
)
from replay.trace.journal_record import JournalRecord
from replay.trace.responses import RecordedResponse
from replay_native.ground.jit import warm

CUT = "recording cut here"


def sniff(head: bytes, options: Options) -> float:
    """Return 1 if a file begins as a journal, otherwise 0."""
    return 1.0 if is_journal(head) else 0.0


class JournalReader(RecordReader):
    """Reads journals.

    Their records were already cleaned, so that they are not changed.
    """

    def __init__(self, found: Found, options: Options) -> None:
        super().__init__(found, options)
        warm(["trace.dictionary"])

    def probe(self, head: bytes) -> Probe:
        """Return the start of the recording (None if the head does not have it), and a resolution of 1 ns."""
        return Probe(notes_in(head).started_ns or None, 1)

    def read(self, file: SourceFile) -> Iterator[Rows]:
        """Yield the rows of one journal; if it was cut off within a block, only the rows before that block."""
        rejects, held = self._found.rejects, list[JournalRecord]()
        try:
            for block in blocks_in(file.stream()):
                if isinstance(block, Notes):
                    self._note(block)
                    continue
                rejects.lines += len(block)
                held += block
                if len(held) >= ROWS_AT_ONCE:
                    yield from self.rows(map(_record, held))
                    held = []
        except CutJournalError:
            self._found.assume(
                "the recording was cut in the middle of a block: the requests in that block are lost"
            )
        yield from self.rows(map(_record, held))

    def _note(self, notes: Notes) -> None:
        """Add the notes of the recording to the notes of the import."""
        found = self._found
        for mine, theirs in (
            (found.lost, {**notes.lost, **{f"only a part: {why}": n for why, n in notes.incomplete.items()}}),
            (found.secrets_dropped, notes.secrets_dropped),
            (found.secrets_by_name, notes.secrets_by_name),
            (found.bodies_left, notes.bodies_left),
        ):
            for name, count in theirs.items():
                mine[name] = mine.get(name, 0) + count
        for place, name, how, count in notes.changes:
            found.note_change(Change(place, name, how), count)
        found.rules_used |= set(notes.rules_used)
        found.keeps_secrets |= bool(notes.options.get("keep_secrets"))
        for sentence in notes.assumptions:
            found.assume(sentence)
        if not notes.ended:
            found.assume("the recording did not end normally: its last requests may be missing")


def _record(kept: JournalRecord) -> Record:
    response = kept.response
    return Record(
        at_ns=kept.at_ns,
        method=kept.method,
        target=kept.target,
        host=kept.host,
        client=kept.client,
        status=kept.status,
        took_ns=kept.took_ns,
        size=kept.size,
        headers=kept.headers,
        body=kept.body,
        first_byte_ns=kept.first_byte_ns,
        response=None
        if response is None
        else RecordedResponse(
            response.type, response.headers, response.size, response.digest, response.body, response.cut
        ),
    )


JOURNAL = importer(
    Importer(name="journal", title="the journal of a recording", sniff=sniff, reader=JournalReader, rank=9)
)
