"""XXH64 as its specification puts it, in plain integers."""

from __future__ import annotations

MASK = (1 << 64) - 1
P1, P2, P3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
P4, P5 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5


def _rotated(word: int, bits: int) -> int:
    return ((word << bits) | (word >> (64 - bits))) & MASK


def _round(lane: int, word: int) -> int:
    return _rotated((lane + word * P2) & MASK, 31) * P1 & MASK


def xxh64(data: bytes) -> int:
    """The checksum of `data`, seed 0."""
    lanes, rest = [(P1 + P2) & MASK, P2, 0, -P1 & MASK], data
    while len(rest) >= 32:
        words = [int.from_bytes(rest[8 * i : 8 * i + 8], "little") for i in range(4)]
        lanes, rest = [_round(lane, word) for lane, word in zip(lanes, words, strict=True)], rest[32:]
    hashed = P5
    if len(data) >= 32:
        hashed = sum(_rotated(lane, bits) for lane, bits in zip(lanes, (1, 7, 12, 18), strict=True)) & MASK
        for lane in lanes:
            hashed = ((hashed ^ _round(0, lane)) * P1 + P4) & MASK
    hashed = (hashed + len(data)) & MASK
    while len(rest) >= 8:
        hashed = (_rotated(hashed ^ _round(0, int.from_bytes(rest[:8], "little")), 27) * P1 + P4) & MASK
        rest = rest[8:]
    if len(rest) >= 4:
        hashed = (_rotated(hashed ^ (int.from_bytes(rest[:4], "little") * P1 & MASK), 23) * P2 + P3) & MASK
        rest = rest[4:]
    for byte in rest:
        hashed = _rotated(hashed ^ (byte * P5 & MASK), 11) * P1 & MASK
    for shift, factor in ((33, P2), (29, P3)):
        hashed = (hashed ^ (hashed >> shift)) * factor & MASK
    return hashed ^ (hashed >> 32)
