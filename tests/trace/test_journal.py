"""The journal of a recording: what was written whole is read, whatever became of the rest."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest

from replay.errors import InputError, OutputError
from replay.trace import Trace
from replay.trace.importing import import_files
from replay.trace.journal import (
    FIRST_BLOCK,
    MAGIC,
    NOTES_BYTES,
    JournalWriter,
    Notes,
    is_being_written,
    journal_of,
    read_notes,
)
from replay.trace.journal_columns import COLUMNS, JournalColumns, records_of
from replay.trace.journal_record import JournalRecord, JournalResponse

START_NS = 1_700_000_000_000_000_000


def record(number: int) -> JournalRecord:
    return JournalRecord(
        at_ns=START_NS + number * 1_000_000,
        method="POST" if number % 2 else "GET",
        target=b"/a/%d?x=%%C3" % number,
        host="shop.example",
        client=b"client-%d" % (number % 3),
        status=200,
        took_ns=5_000,
        first_byte_ns=2_000,
        size=3,
        headers=((b"Accept", b"*/*"),),
        body=b"body %d" % number if number % 2 else b"",
        response=JournalResponse("text/plain", (), 3, 77, b"abc", False),
    )


def written(path: Path, blocks: int = 3, each: int = 5, **notes: object) -> JournalWriter:
    writer = JournalWriter(path, Notes(started_ns=START_NS, **notes))  # type: ignore[arg-type]
    for block in range(blocks):
        writer.append([record(block * each + number) for number in range(each)])
        writer.write_notes()
    return writer


def targets(trace: Trace) -> list[bytes]:
    return [trace.requests.get(int(row)).target for batch in trace.batches() for row in batch.request]


def test_what_was_recorded_is_in_the_trace(tmp_path):
    path = tmp_path / "day.trace.journal"
    written(path, lost={"queue full": 4}, incomplete={"body over the limit": 1}, ended=True).close()
    trace = import_files([path], tmp_path / "day.trace")
    assert targets(trace) == [b"/a/%d?x=%%C3" % number for number in range(15)]
    (batch,) = trace.batches()
    assert batch.at_ns.tolist() == [record(number).at_ns for number in range(15)]
    assert batch.took_ns.tolist() == [5_000] * 15
    manifest = trace.manifest
    assert (manifest.clients, manifest.hosts, manifest.responses) == (3, ["shop.example"], 15)
    assert manifest.lost == {"queue full": 4, "only a part: body over the limit": 1}
    assert not manifest.assumptions


def columns() -> JournalColumns:
    """Two requests: one with a line of its own and no body, one with a line of the block, a host and a body."""
    rows = np.array([[START_NS, 0, -1, 0, 1, 8, 8], [START_NS + 7, 0, 0, 1, 2, 10, 14]], np.int64)
    assert rows.shape[1] == COLUMNS
    return JournalColumns(
        count=2, methods=["GET"], hosts=["shop.example"], clients=[b"one", b"two"], lines=[(b"Accept", b"*/*")],
        rows=rows.data, line_numbers=np.array([-1, 0], np.int32).data,
        new=np.array([[0, 3, 3]], np.int64).data,
    )  # fmt: skip


TEXT = b"X-Aabc/f/sbody"


def test_columns_are_the_requests_that_they_were_made_of():
    first, second = records_of(columns(), TEXT)
    assert (first.at_ns, first.target, first.host, first.client, first.body) == (
        START_NS,
        b"/f",
        "",
        b"one",
        b"",
    )
    assert first.headers == ((b"X-A", b"abc"),)
    assert (second.method, second.target, second.host, second.client) == (
        "GET",
        b"/s",
        "shop.example",
        b"two",
    )
    assert (second.headers, second.body) == (((b"Accept", b"*/*"),), b"body")


def test_a_journal_holds_records_and_columns(tmp_path):
    path = tmp_path / "day.trace.journal"
    writer = written(path, blocks=1)
    writer.append_columns(columns(), memoryview(TEXT), START_NS + 7)
    writer.close()
    assert read_notes(path).records == 7
    assert {b"/f", b"/s"} < set(targets(import_files([path], tmp_path / "day.trace")))


def test_a_journal_that_is_cut_anywhere_keeps_its_whole_blocks(tmp_path):
    path = tmp_path / "day.trace.journal"
    ends, writer = [], JournalWriter(path, Notes(started_ns=START_NS))
    for block in range(4):
        writer.append([record(block * 3 + number) for number in range(3)])
        writer.write_notes()
        ends.append(path.stat().st_size)
    writer.close()
    whole, draw = path.read_bytes(), random.Random(5)
    for number in range(40):
        cut = draw.randrange(ends[0], len(whole))
        part = tmp_path / f"{number}.journal"
        part.write_bytes(whole[:cut])
        trace = import_files([part], tmp_path / f"{number}.trace")
        assert trace.rows == 3 * sum(end <= cut for end in ends)
        assert any("did not end normally" in each for each in trace.manifest.assumptions)


def test_damage_ends_the_reading_and_is_named(tmp_path):
    path = tmp_path / "day.trace.journal"
    written(path, ended=True).close()
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    trace = import_files([path], tmp_path / "day.trace")
    assert trace.rows == 10
    assert any("cut in the middle of a block" in each for each in trace.manifest.assumptions)


def test_notes_survive_a_write_that_was_cut(tmp_path):
    path = tmp_path / "day.trace.journal"
    writer = written(path, blocks=2)
    writer.notes.lost = {"queue full": 9}
    writer.write_notes()
    slot = len(MAGIC) + writer._turn % 2 * NOTES_BYTES
    writer.close()
    newest = read_notes(path)
    assert newest.lost == {"queue full": 9}
    with path.open("r+b") as file:
        for place in (len(MAGIC), len(MAGIC) + NOTES_BYTES):
            if place != slot:
                file.seek(place + 30)
                file.write(b"\xff" * 10)
    assert read_notes(path).records == 10


def test_no_space_leaves_the_journal_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "day.trace.journal"
    writer = written(path, blocks=1)
    before, real = path.stat().st_size, os.pwrite

    def pwrite(file: int, data: bytes, at: int) -> int:
        if at >= before + 20:
            raise OSError(28, "No space left on device")
        return real(file, bytes(data)[:20], at) if at >= before else real(file, data, at)

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(OSError):
        writer.append([record(9)])
    assert path.stat().st_size == before
    monkeypatch.undo()
    writer.append([record(10)])
    writer.close()
    assert import_files([path], tmp_path / "day.trace").rows == 6


def test_a_journal_is_private_and_locked_while_it_is_written(tmp_path):
    path = journal_of(tmp_path / "day.trace")
    writer = written(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert is_being_written(path)
    with pytest.raises(OutputError, match="being written by another"):
        JournalWriter(path, Notes())
    with pytest.raises(InputError, match=r"is being recorded; .* holds 15 requests"):
        Trace.open(tmp_path / "day.trace")
    writer.close()
    assert not is_being_written(path)
    with pytest.raises(OutputError, match="unfinished recording"):
        JournalWriter(path, Notes())
    with pytest.raises(InputError, match="did not end"):
        Trace.open(tmp_path / "day.trace")


def test_a_half_trace_beside_a_journal_leads_to_the_journal(tmp_path):
    written(journal_of(tmp_path / "day.trace")).close()
    (tmp_path / "day.trace.partial-1").mkdir()
    with pytest.raises(InputError, match="did not end") as refused:
        Trace.open(tmp_path / "day.trace")
    assert "day.trace.journal" in refused.value.hint


def test_a_journal_without_requests_says_so(tmp_path):
    path = tmp_path / "day.trace.journal"
    JournalWriter(path, Notes()).close()
    assert path.stat().st_size == FIRST_BLOCK
    with pytest.raises(InputError, match="no request"):
        import_files([path], tmp_path / "day.trace")


def test_a_journal_without_requests_is_in_nobodys_way(tmp_path):
    path = tmp_path / "day.trace.journal"
    first = JournalWriter(path, Notes())
    with pytest.raises(OutputError, match="being written"):
        JournalWriter(path, Notes())
    first.close()
    written(path, blocks=1).close()
    assert read_notes(path).records == 5


def test_a_file_of_something_else_is_no_journal(tmp_path):
    (tmp_path / "x").write_bytes(b"hello")
    with pytest.raises(InputError, match="not the journal"):
        read_notes(tmp_path / "x")


def test_secrets_that_a_killed_recording_kept_are_said_and_private(tmp_path):
    """The journal knows that they were kept: the import that makes the trace of it does not have to be told."""
    for keeps in (False, True):
        path = tmp_path / f"{keeps}.trace.journal"
        bare = record(0)
        bare.response = None
        JournalWriter(path, Notes(started_ns=START_NS, options={"keep_secrets": keeps})).append([bare])
        trace = import_files([path], tmp_path / f"{keeps}.trace")
        assert trace.manifest.options["keep_secrets"] is keeps
        assert (trace.path.stat().st_mode & 0o077 == 0) is keeps
