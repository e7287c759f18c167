"""Packed bodies: any body is read without the others, in little memory, and damage to any block is noticed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.errors import InputError
from replay.trace import RecordedResponse, Trace, TraceWriter, packed, packed_writer
from replay.trace.blob_writer import BlobWriter
from replay.trace.blobs import BODIES_SCHEMA, PlainBodies, open_bodies
from replay.trace.packed import PackedBodies
from replay.trace.packed_writer import DigestTable, PackedWriter
from replay.trace.sums import BLOCK_BYTES, sums_of
from tests.support.trace_data import without_checksums


def write(path: Path, bodies: list[bytes]) -> list[int]:
    """A packed file; the ids of the bodies."""
    writer = PackedWriter(path)
    ids = [writer.add(body) for body in bodies]
    writer.close()
    return ids


def opened(path: Path) -> PackedBodies:
    found = open_bodies(path, sums_of(path))
    assert isinstance(found, PackedBodies)
    return found


BODIES = st.one_of(
    st.binary(max_size=40),
    st.integers(0, 30).map(lambda size: b"a" * size * 100),
    st.binary(min_size=200, max_size=300),
)


@given(
    bodies=st.lists(BODIES, min_size=1, max_size=80), block_bytes=st.sampled_from([1, 60, 500, 1 << 14]),
    budget_bytes=st.sampled_from([1, 4_000, 1 << 28]), read_bytes=st.sampled_from([1, 300, 1 << 20]), data=st.data(),
)  # fmt: skip
@settings(deadline=None, max_examples=60)
def test_any_body_is_read_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, bodies: list[bytes], block_bytes: int, budget_bytes: int, read_bytes: int,
    data: st.DataObject,
) -> None:  # fmt: skip
    path = tmp_path_factory.mktemp("p") / "bodies.arrow"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed_writer, "BLOCK_BYTES", block_bytes)
        patch.setattr(packed_writer, "_BATCH_BLOCKS", 3)
        patch.setattr(packed, "UNPACKED_BUDGET_BYTES_MAX", budget_bytes)
        patch.setattr(packed, "READ_BYTES_MAX", read_bytes)
        ids = write(path, bodies)
        found = opened(path)
    distinct = list(dict.fromkeys(bodies))
    assert [distinct[index] for index in ids] == bodies
    assert len(found) == len(distinct)
    assert found.sizes().tolist() == [len(body) for body in distinct]
    table, mean, largest = found.table()
    assert (mean, largest) == (sum(map(len, distinct)) // len(distinct), max(map(len, distinct)))
    wanted = np.array(data.draw(st.lists(st.integers(-1, len(distinct) - 1), max_size=60)), np.int32)
    begin = 0
    while begin < len(wanted):
        count = found.load(wanted[begin:])
        assert count >= 1
        for index in wanted[begin : begin + count].tolist():
            assert index < 0 or by_address(found, table, index) == distinct[index]
        begin += count
    for index in data.draw(st.lists(st.integers(0, len(distinct) - 1), max_size=20)):
        assert found[index] == distinct[index]
    with pytest.raises(IndexError):
        found[len(distinct)]


def by_address(found: PackedBodies, table: np.ndarray, index: int) -> bytes:
    """A body as kernels read it."""
    row = int(np.searchsorted(table[:, 0], index, side="right")) - 1
    base = found._raw.ctypes.data
    place, data = table[row, 1] - base + 8 * (index - table[row, 0]), table[row, 2] - base
    begin, end = found._raw[place : place + 16].view(np.int64).tolist()
    return found._raw[data + begin : data + end].tobytes()


def test_memory_stays_within_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bodies = [hashlib.shake_128(b"%d" % number).digest(1_000) for number in range(4_000)]
    write(tmp_path / "bodies.arrow", bodies)
    monkeypatch.setattr(packed, "UNPACKED_BUDGET_BYTES_MAX", 1 << 20)
    found = opened(tmp_path / "bodies.arrow")
    assert not found.whole
    assert found._file.size > 8 * BLOCK_BYTES and found._file._loaded.sum() <= 4, (
        "the packed blocks are given back"
    )
    rng, held = np.random.default_rng(1), 0
    ids = rng.integers(0, len(bodies), 3_000).astype(np.int32)
    begin = 0
    while begin < len(ids):
        begin += found.load(ids[begin:])
        held = max(held, found._held_bytes)
        assert found._held_bytes == int(found._sizes[found._loaded].sum())
    assert 0 < held <= 1 << 20


def test_bodies_compress(tmp_path: Path) -> None:
    bodies = [
        json.dumps({"number": number, "items": ["a", "b", "c"] * 40}).encode() for number in range(2_000)
    ]
    write(tmp_path / "bodies.arrow", bodies)
    assert (tmp_path / "bodies.arrow").stat().st_size < sum(map(len, bodies)) / 5


def test_a_damaged_block_is_named_in_mid_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever overwrites a file after it was checked: the block has a checksum of its own."""
    write(tmp_path / "bodies.arrow", [b"%d" % number * 900 for number in range(200)])
    monkeypatch.setattr(packed, "UNPACKED_BUDGET_BYTES_MAX", 1 << 12)
    found = opened(tmp_path / "bodies.arrow")
    whole = bytearray((tmp_path / "bodies.arrow").read_bytes())
    middle = int(found._begins[len(found._begins) // 2])
    whole[middle + 3] ^= 1
    (tmp_path / "bodies.arrow").write_bytes(whole)
    with pytest.raises(InputError, match=r"block \d+ of bodies\) are not those that were written"):
        for index in range(len(found)):
            found[index]


def test_blocks_that_do_not_fit_their_index_are_refused(tmp_path: Path) -> None:
    """A file with checksums that are right, and places that are not: kernels would read outside of it."""
    plain = np.array([0, 1 << 40], np.int64).tobytes() + b"x" * 100
    writer = PackedWriter(tmp_path / "bodies.arrow")
    writer._blocks = [(1, 100, 100, plain)]
    writer.close()
    with pytest.raises(InputError, match=r"bodies\.arrow is damaged"):
        opened(tmp_path / "bodies.arrow")[0]


@given(st.lists(st.integers(0, 300), max_size=400))
@settings(deadline=None)
def test_equal_bodies_are_found(numbers: list[int]) -> None:
    """While the table can grow it is a dictionary."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed_writer, "_DIGESTS_MIN", 4)
        table, known = DigestTable(), dict[int, int]()
        for number in numbers:
            expected = known.setdefault(number, len(known))
            assert table.find_or_put(b"%d" % number, max(len(known) - 1, expected)) == expected


def test_a_full_table_forgets_the_oldest_and_stays_as_large() -> None:
    table = DigestTable(slots_max=1 << 12)
    for number in range(1 << 14):
        assert table.find_or_put(b"%d" % number, number) == number
    assert table._table.nbytes == 24 << 12
    recent = [
        table.find_or_put(b"%d" % number, 1 << 20) == number for number in range((1 << 14) - 500, 1 << 14)
    ]
    assert all(recent)


def test_plain_bodies_of_an_older_trace_are_read(tmp_path: Path) -> None:
    writer = BlobWriter(tmp_path / "bodies.arrow", BODIES_SCHEMA)
    for number in range(300):
        writer.add(b"%d" % number, number, 3)
    writer.close()
    found = open_bodies(tmp_path / "bodies.arrow", sums_of(tmp_path / "bodies.arrow"))
    assert isinstance(found, PlainBodies)
    assert [found[index] for index in range(300)] == [b"%d" % number for number in range(300)]
    assert found.sizes().tolist() == [len(b"%d" % number) for number in range(300)]


@pytest.mark.parametrize("checksums", [True, False])
def test_a_trace_with_bodies_is_of_the_newest_format(tmp_path: Path, checksums: bool) -> None:
    with TraceWriter(tmp_path / "t.trace") as writer:
        ids = [writer.add_request("POST", b"/", body=b"%d" % (number % 10)) for number in range(20)]
        response = writer.add_response(RecordedResponse("text/plain", (), 2, 0, b"ok"))
        at_ns = np.arange(20, dtype=np.int64)
        writer.add_events(
            at_ns, np.array(ids, np.uint32), np.zeros(20, np.uint32), response=np.full(20, response)
        )
    trace = writer.trace
    assert trace is not None and trace.manifest.format_version == 3
    if not checksums:
        without_checksums(trace.path)
        trace = Trace.open(trace.path)
    get, body = trace.requests.get, trace.requests.body
    (batch,) = trace.batches()
    assert [body(get(number).body) for number in batch.request.tolist()] == [
        b"%d" % (n % 10) for n in range(20)
    ]
