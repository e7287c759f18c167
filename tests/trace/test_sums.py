"""Sums that are computed while a file is written are those of the file on disk, and those of the definition."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.trace.columns import ALL_COLUMNS, write_events
from replay.trace.sums import BLOCK_BYTES, SummedFile, sums_of
from replay_native.ground import jit
from replay_native.ground.xxh64 import STATE_WORDS, begin, digest
from replay_native.trace import blocks
from tests.reference.checksum import xxh64

jit.warm(["trace.blocks"])


@pytest.mark.boundscheck
@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=90), max_size=12), st.integers(1, 70))
def test_a_stream_in_any_pieces_has_the_checksums_of_its_blocks(
    pieces: list[bytes], block_bytes: int
) -> None:
    state, tail = np.zeros(STATE_WORDS, np.uint64), np.zeros(32, np.uint8)
    found: list[int] = []
    begin(state)
    for piece in pieces:
        hashes = np.empty(len(piece) // block_bytes + 1, np.uint64)
        data = np.frombuffer(bytearray(piece), np.uint8)
        count = blocks.hash_stream(data, block_bytes, state, tail, hashes)
        found += hashes[:count].tolist()
    whole = b"".join(pieces)
    if len(whole) % block_bytes:
        found.append(int(digest(state, tail)))
    assert found == [xxh64(whole[at : at + block_bytes]) for at in range(0, len(whole), block_bytes)]


@pytest.mark.parametrize("size", [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, 2 * BLOCK_BYTES + 7])
def test_a_file_that_is_summed_while_it_is_written_has_what_was_written(tmp_path: Path, size: int) -> None:
    data, path = os.urandom(size), tmp_path / "events.arrow"
    with SummedFile(path) as file:
        assert file.write(data[: size // 3]) == size // 3
        assert file.write(pa.py_buffer(data[size // 3 :])) == size - size // 3
        sums = file.sums()
    assert path.read_bytes() == data
    assert sums == sums_of(path)
    assert sums.bytes == size
    assert len(sums.xxh64) == 16 * -(-size // BLOCK_BYTES)


@pytest.mark.parametrize("wide", [False, True])
def test_an_events_file_has_the_sums_that_its_writer_returns(tmp_path: Path, wide: bool) -> None:
    draw = np.random.default_rng(5)
    columns = {name: draw.integers(0, 99, 100_000).astype(dtype) for name, dtype in ALL_COLUMNS.items()}
    if not wide:
        columns = {name: columns[name] for name in list(columns)[:6]}
    path = tmp_path / "events.arrow"
    assert write_events(path, columns) == sums_of(path)


def test_a_full_disk_is_an_os_error_with_its_number() -> None:
    columns = {name: np.zeros(10, dtype) for name, dtype in ALL_COLUMNS.items()}
    with pytest.raises(OSError, match="No space left") as caught:
        write_events(Path("/dev/full"), columns)
    assert caught.value.errno == errno.ENOSPC
