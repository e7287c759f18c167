"""Record batches from kernels are aiokafka's, byte for byte, whatever the records are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay_native.feed.ring import ENTRY
from replay_native.ground import jit
from replay_native.kafka import crc32c as crc
from replay_native.kafka import recordbatch as kernels
from tests.reference import recordbatch as naive
from tests.reference.recordbatch import Record

pytestmark = pytest.mark.boundscheck

DAY_MS = 86_400_000
NOW_MS = 1_760_000_000_000


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    jit.warm(["kafka.crc32c", "kafka.recordbatch"])


def laid_out(records: list[Record]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a feed, and a ring with the records' tails."""
    tails = [naive.tail(record) for record in records]
    size = 1 << max(sum(map(len, tails)), 1).bit_length()
    ring = np.zeros(size, np.uint8)
    rows, at = np.zeros(len(records), ENTRY), 0
    for row, record, tail in zip(rows, records, tails, strict=True):
        ring[at : at + len(tail)] = np.frombuffer(tail, np.uint8)
        row["offset"], row["length"], row["state"] = at, len(tail), record.at_ms
        at += len(tail)
    return rows, ring


def encoded(records: list[Record], pid: int = -1, epoch: int = -1, sequence: int = -1) -> bytes:
    rows, ring = laid_out(records)
    buffer = np.zeros(ring.size + kernels.HEADER_BYTES + len(records) * kernels.OVERHEAD_MAX, np.uint8)
    state = np.zeros(kernels.BATCH_WORDS, np.int64)
    kernels.begin(buffer, state)
    assert kernels.append(buffer, state, rows, ring, 0, len(rows), buffer.size) == len(rows)
    kernels.seal(buffer, state, 0, pid, epoch, sequence)
    return buffer[: state[kernels.SIZE]].tobytes()


nullable_bytes = st.none() | st.binary(max_size=300)
records = st.lists(
    st.builds(
        Record,
        key=nullable_bytes,
        value=nullable_bytes,
        at_ms=st.integers(NOW_MS - 400 * DAY_MS, NOW_MS + 400 * DAY_MS),
        headers=st.lists(st.tuples(st.text(max_size=8), nullable_bytes), max_size=3).map(tuple),
    ),
    min_size=1,
    max_size=40,
)


@given(records, st.integers(-1, 2**40), st.integers(-1, 2**15 - 1), st.integers(-1, 2**31 - 1))
@settings(max_examples=300, deadline=None)
def test_a_batch_is_aiokafkas_byte_for_byte(batch, pid, epoch, sequence):
    assert encoded(batch, pid, epoch, sequence) == naive.batch(batch, pid, epoch, sequence)


@pytest.mark.parametrize("count", [1, 63, 64, 65, 8_191, 8_192, 8_193])
def test_offsets_grow_through_their_sizes(count):
    batch = [Record(None, b"v" * (index % 200), NOW_MS + index) for index in range(count)]
    assert encoded(batch) == naive.batch(batch)


def test_a_sealed_batch_takes_another_producer_without_reading_its_records_again():
    batch = [Record(b"k", bytes(range(256)) * 8, NOW_MS + index) for index in range(50)]
    rows, ring = laid_out(batch)
    buffer, state = np.zeros(1 << 18, np.uint8), np.zeros(kernels.BATCH_WORDS, np.int64)
    kernels.begin(buffer, state)
    kernels.append(buffer, state, rows, ring, 0, 50, buffer.size)
    kernels.seal(buffer, state, 0, -1, -1, -1)
    kept = buffer[kernels.HEADER_BYTES : state[kernels.SIZE]].copy()
    buffer[kernels.HEADER_BYTES : state[kernels.SIZE]] = 0
    kernels.seal(buffer, state, 0, 7, 3, 1_000)
    buffer[kernels.HEADER_BYTES : state[kernels.SIZE]] = kept
    assert buffer[: state[kernels.SIZE]].tobytes() == naive.batch(batch, 7, 3, 1_000)


def test_a_batch_ends_at_its_limit_and_nothing_is_added_once_it_is_sealed():
    batch = [Record(None, b"v" * 100, NOW_MS)] * 20
    rows, ring = laid_out(batch)
    buffer, state = np.zeros(4_096, np.uint8), np.zeros(kernels.BATCH_WORDS, np.int64)
    kernels.begin(buffer, state)
    taken = kernels.append(buffer, state, rows, ring, 0, 20, 1_000)
    assert 0 < taken < 20 and state[kernels.SIZE] <= 1_000
    kernels.seal(buffer, state, 0, -1, -1, -1)
    assert buffer[: state[kernels.SIZE]].tobytes() == naive.batch(batch[:taken])
    assert kernels.append(buffer, state, rows, ring, taken, 20, 4_096) == taken


def test_the_first_record_may_be_over_the_limit_but_not_over_the_buffer():
    rows, ring = laid_out([Record(None, b"v" * 3_000, NOW_MS)])
    for size, taken in ((4_096, 1), (2_048, 0)):
        buffer, state = np.zeros(size, np.uint8), np.zeros(kernels.BATCH_WORDS, np.int64)
        kernels.begin(buffer, state)
        assert kernels.append(buffer, state, rows, ring, 0, 1, 1_000) == taken


@given(st.binary(max_size=2_000))
@settings(max_examples=200, deadline=None)
def test_crc32c_a_bit_at_a_time(data):
    array = np.frombuffer(data, np.uint8).copy()
    assert crc.crc32c(array) == crc.crc32c_by_table(array) == naive.crc32c(data)


@pytest.mark.parametrize("size", [0, 1, 767, 768, 24_575, 24_576, 24_577, 100_003])
def test_crc32c_by_streams_equals_the_table(size):
    data = np.random.default_rng(size).integers(0, 256, size, np.uint8)
    assert crc.crc32c(data) == crc.crc32c_by_table(data)


def test_crc32c_of_its_check_value():
    assert crc.crc32c(np.frombuffer(b"123456789", np.uint8).copy()) == 0xE3069283


@given(st.binary(max_size=300), st.binary(max_size=300))
@settings(max_examples=100, deadline=None)
def test_two_checksums_join(first, second):
    of = [naive.crc32c(piece) for piece in (first, second, first + second)]
    assert crc.joined(of[0], of[1], len(second)) == of[2]


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=20), st.integers(1, 1_000))
@settings(max_examples=200, deadline=None)
def test_keys_go_where_javas_clients_send_them(keys, partitions):
    data = np.frombuffer(b"".join(keys) or b"\0", np.uint8).copy()
    offsets = np.cumsum([0, *map(len, keys)]).astype(np.int64)
    chosen = np.empty(len(keys), np.int64)
    kernels.partitions_of(data, offsets, partitions, chosen)
    assert chosen.tolist() == [(naive.murmur2(key) & 0x7FFFFFFF) % partitions for key in keys]


@pytest.mark.parametrize(
    ("key", "hashed"),
    [
        (b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829), (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)  # fmt: skip
def test_murmur2_of_javas_own_test(key, hashed):
    """The vectors of org.apache.kafka.common.utils.UtilsTest."""
    data = np.frombuffer(key, np.uint8).copy()
    assert kernels.murmur2_at(data.ctypes.data, data.size) == hashed & 0xFFFFFFFF == naive.murmur2(key)
