"""Twins of the record batch kernels: aiokafka's pure Python builder, and arithmetic a bit at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy, _DefaultRecordBatchPy


@dataclass(frozen=True)
class Record:
    """One record as a producer hands it over; CreateTime in ms since the epoch."""

    key: bytes | None
    value: bytes | None
    at_ms: int = 0
    headers: tuple[tuple[str, bytes | None], ...] = ()


def crc32c(data: bytes) -> int:
    """CRC-32C a bit at a time."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def varint(number: int) -> bytes:
    """Zigzag, 7 bits a byte, the lowest first."""
    word, out = (number << 1) if number >= 0 else (-number << 1) - 1, bytearray()
    while word >= 128:
        out.append(word & 127 | 128)
        word >>= 7
    return bytes(out) + bytes([word])


def nullable(data: bytes | None) -> bytes:
    return varint(-1) if data is None else varint(len(data)) + data


def tail(record: Record) -> bytes:
    """A record from its key on."""
    headers = b"".join(nullable(name.encode()) + nullable(value) for name, value in record.headers)
    return nullable(record.key) + nullable(record.value) + varint(len(record.headers)) + headers


def batch(records: Sequence[Record], pid: int = -1, epoch: int = -1, sequence: int = -1) -> bytes:
    """The batch as aiokafka's pure Python builder writes it."""
    builder = _DefaultRecordBatchBuilderPy(2, 0, 0, pid, epoch, sequence, 1 << 30)
    for offset, record in enumerate(records):
        assert (
            builder.append(offset, record.at_ms, record.key, record.value, list(record.headers)) is not None
        )
    return bytes(builder.build())


def records(data: bytes) -> list[Record]:
    """The records of a batch, as aiokafka's pure Python reader reads it."""
    found = _DefaultRecordBatchPy(data)
    assert found.validate_crc()
    return [Record(r.key, r.value, r.timestamp, tuple(r.headers)) for r in found]


def murmur2(data: bytes) -> int:
    """MurmurHash2 as Java's clients compute it (org.apache.kafka.common.utils.Utils)."""
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    hashed, whole = 0x9747B28C ^ len(data), len(data) // 4 * 4
    for at in range(0, whole, 4):
        k = int.from_bytes(data[at : at + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        hashed = hashed * m & mask ^ k
    if data[whole:]:
        hashed = (hashed ^ int.from_bytes(data[whole:], "little")) * m & mask
    hashed = (hashed ^ hashed >> 13) * m & mask
    return hashed ^ hashed >> 15
