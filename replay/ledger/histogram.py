"""A histogram: counts with their layout, its figures, and its encoding in a log."""

from __future__ import annotations

import base64
import binascii
import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from replay_native.ledger.hdr_layout import HIGHEST_NS, half_magnitude

from . import counters
from .percentiles import highest_at, values_at

_INNER = struct.Struct(">iiiiqqd")
_INNER_V0 = struct.Struct(">iiqqq")
_OUTER = struct.Struct(">ii")
_COOKIE_INNER = 0x1C849303 | 0x10
_COOKIE_OUTER = 0x1C849304 | 0x10
_WORD_BITS = 0xF0
"""The bits of a cookie that hold the size of a counter in V0 and V1 (2, 4 or 8 bytes)."""

_INNER_BY_OUTER = {0x1C849309: 0x1C849308, 0x1C849302: 0x1C849301, 0x1C849304: 0x1C849303}
"""For V0, V1 and V2: the cookie of the compressed form, and that of its content, without the bits of _WORD_BITS."""

_V0, _V2 = 0x1C849308, 0x1C849303
_COOKIES_OF_DOUBLES = (0x0C72124E, 0x0C72124F)
_UNSHIFTED_BY_JS = (1, math.ulp(0.0))
"""hdr-histogram-js writes the integer 1 as offset and as ratio, although it neither shifts nor scales."""

_COMPRESSION = 1
"""zlib's fastest level, because a run compresses a histogram every second.

The text is some 5% longer.
"""

COUNTERS_MAX = 1 << 24
"""A histogram with more counters than this (128 MiB) is refused, because its header must be damaged."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Which values each counter holds: Gil Tene's layout for a range of values at a number of significant digits."""

    digits: int = 3
    lowest: int = 1
    highest: int = HIGHEST_NS

    @property
    def half(self) -> int:
        """log2 of half the sub-bucket count."""
        return half_magnitude(self.digits)

    @property
    def unit(self) -> int:
        """log2 of the width of the smallest counter."""
        return self.lowest.bit_length() - 1

    @property
    def buckets(self) -> int:
        """Number of buckets.

        Each bucket covers twice the range of the one before it.
        """
        untrackable, buckets = 2 << (self.half + self.unit), 1
        while untrackable <= self.highest:
            untrackable <<= 1
            buckets += 1
        return buckets

    @property
    def sub_buckets(self) -> int:
        """Number of counters in the first bucket."""
        return 2 << self.half

    @property
    def length(self) -> int:
        """The total number of counters."""
        return (self.buckets + 1) << self.half


NS_3, NS_2 = Layout(3), Layout(2)
"""The layouts of this project: nanoseconds from 1 to an hour, at 3 and at 2 digits."""


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """Counters, uint64[layout.length], and the figures derived from them.

    Percentiles follow Java's rule.
    """

    counts: np.ndarray
    layout: Layout = NS_3

    @property
    def count(self) -> int:
        """Number of recorded values."""
        return int(self.counts.sum())

    def percentiles(self, percentiles: Sequence[float]) -> list[int]:
        """Return the value at each percentile (0 to 100; 0 is the minimum).

        Above 0 it is the highest value that its counter holds. If the histogram is empty, all are 0.
        """
        count = self.count
        values = values_at(self.counts, self.layout.half, count, percentiles)
        unit = self.layout.unit
        return [
            self.min if asked == 0 or not count else ((value + 1) << unit) - 1
            for asked, value in zip(percentiles, values, strict=True)
        ]

    @property
    def min(self) -> int:
        """The lowest value equivalent to the smallest recorded one; 0 if the histogram is empty."""
        used = np.flatnonzero(self.counts)
        return self._lowest_at(int(used[0])) if used.size else 0

    @property
    def max(self) -> int:
        """The highest value equivalent to the largest recorded one; 0 if the histogram is empty."""
        used = np.flatnonzero(self.counts)
        return self._lowest_at(int(used[-1])) + self._width_at(int(used[-1])) - 1 if used.size else 0

    def mean_and_deviation(self) -> tuple[float, float]:
        """Return mean and standard deviation, computed from the middle values of counters; both 0.0 if it is empty."""
        used = np.flatnonzero(self.counts)
        if not used.size:
            return 0.0, 0.0
        width = np.int64(1) << np.maximum((used >> self.layout.half) - 1, 0) + self.layout.unit
        middle = (self._highest_at(used) - (width - 1) + (width >> 1)).astype(float)
        weight = self.counts[used].astype(float)
        mean = float((weight * middle).sum() / weight.sum())
        return mean, math.sqrt(float((weight * (middle - mean) ** 2).sum() / weight.sum()))

    def merged(self, other: Histogram) -> Histogram:
        """Return the sum of both over the wider range.

        Raises ValueError if digits or units differ. Histograms of other tools may have been resized automatically, so
        that their ranges differ.
        """
        if (self.layout.half, self.layout.unit) != (other.layout.half, other.layout.unit):
            raise ValueError("histograms of different digits or units cannot be added")
        wide, narrow = (self, other) if self.counts.size >= other.counts.size else (other, self)
        counts = wide.counts.copy()
        counts[: narrow.counts.size] += narrow.counts
        return Histogram(counts, wide.layout)

    def _width_at(self, index: int) -> int:
        return 1 << (max((index >> self.layout.half) - 1, 0) + self.layout.unit)

    def _lowest_at(self, index: int) -> int:
        half = self.layout.half
        bucket = (index >> half) - 1
        sub = (index & ((1 << half) - 1)) + (1 << half)
        if bucket < 0:
            bucket, sub = 0, sub - (1 << half)
        return sub << (bucket + self.layout.unit)

    def values(self) -> np.ndarray:
        """Return the highest equivalent value of every counter, int64[layout.length]."""
        return self._highest_at(np.arange(self.counts.size, dtype=np.int64))

    def _highest_at(self, index: np.ndarray) -> np.ndarray:
        unit = self.layout.unit
        return ((highest_at(index, self.layout.half) + 1) << unit) - 1


def empty(layout: Layout = NS_3) -> Histogram:
    """Return a histogram without values."""
    return Histogram(np.zeros(layout.length, np.uint64), layout)


def encode(histogram: Histogram) -> bytes:
    """Return the V2 compressed text of a log: base64 of zlib of ZigZag LEB128 counts."""
    layout = histogram.layout
    from replay_native.ledger import hdr

    used = np.flatnonzero(histogram.counts)
    limit = int(used[-1]) + 1 if used.size else 1
    out = np.empty(9 * limit, np.uint8)
    payload = out[: hdr.encode_payload(histogram.counts, limit, out)].tobytes()
    inner = _INNER.pack(_COOKIE_INNER, len(payload), 0, layout.digits, layout.lowest, layout.highest, 1.0)
    packed = zlib.compress(inner + payload, _COMPRESSION)
    return base64.b64encode(_OUTER.pack(_COOKIE_OUTER, len(packed)) + packed)


def decode(text: bytes) -> Histogram:
    """Decode a compressed text in V0, V1 or V2 encoding, of any range and digits.

    Raises ValueError if it is invalid.
    """
    try:
        raw = base64.b64decode(text, validate=True)
        cookie, size = _OUTER.unpack_from(raw)
    except (binascii.Error, struct.error):
        raise ValueError("the text is not complete base64") from None
    expected = _INNER_BY_OUTER.get(cookie & ~_WORD_BITS)
    if expected is None:
        raise _refused(cookie)
    missing = size - (len(raw) - _OUTER.size)
    if size < 0 or (missing > 0 and missing != _OUTER.size):
        raise ValueError("the compressed part is cut short")
    return _decode_inner(raw[_OUTER.size : _OUTER.size + size], expected, is_cut=missing > 0)


def _decode_inner(packed: bytes, expected: int, *, is_cut: bool) -> Histogram:
    """Decode the compressed part of a text, whose header must have the cookie `expected`.

    `is_cut` means that its last 8 bytes are missing, as in the files of old C writers (see `_words`).
    """
    stream = zlib.decompressobj()
    header = _INNER_V0 if expected == _V0 else _INNER
    try:
        head = stream.decompress(packed, header.size)
        fields = header.unpack(head)
    except (zlib.error, struct.error) as error:
        raise ValueError(f"the compressed part is damaged ({error})") from None
    if fields[0] & ~_WORD_BITS != expected:
        raise _refused(fields[0])
    if expected == _V0:
        (cookie, digits, lowest, highest, _), length, offset, ratio = fields, None, 0, 1.0
    else:
        cookie, length, offset, digits, lowest, highest, ratio = fields
    layout = _checked_layout(digits, lowest, highest, offset, ratio)
    try:
        body = stream.decompress(stream.unconsumed_tail, _LONGEST_COUNTER * layout.length + 1)
    except zlib.error as error:
        raise ValueError(f"the compressed part is damaged ({error})") from None
    is_words = expected != _V2
    if not stream.eof and not (is_cut and is_words):
        raise ValueError(
            "the compressed part is damaged (it does not end, or holds more than its range allows)"
        )
    if length is not None and not is_cut:
        body = _payload(body, length, header.size)
    return Histogram(_words(body, cookie, layout, is_cut) if is_words else _zigzag(body, layout), layout)


_LONGEST_COUNTER = 9
"""The most bytes that one counter takes."""


def _payload(body: bytes, length: int, header: int) -> bytes:
    """Return the part of `body` that the header announces.

    Old C writers included the header in the announced length.
    """
    if length == len(body) + header:
        return body
    if not 0 <= length <= len(body):
        raise ValueError("the payload is cut short")
    return body[:length]


def _zigzag(body: bytes, layout: Layout) -> np.ndarray:
    """Decode the payload of V2: ZigZag LEB128 counters and runs of zeros."""
    try:
        return counters.decoded(np.frombuffer(body, np.uint8), layout.length)
    except ValueError:
        raise ValueError("the payload does not fit the range in its header") from None


_ZEROS_BEFORE_CUT = 512
"""Number of zero bytes that must precede a cut.

The missing 8 bytes hold a checksum and the end of the stream.
"""


def _words(body: bytes, cookie: int, layout: Layout, is_cut: bool) -> np.ndarray:
    """Decode the payload of V0 and V1: big-endian counters of one size.

    With `is_cut`, the last 8 bytes are missing, and the lost counters are taken as zeros. Raises ValueError if the
    counters before the cut are not zero, because others may have followed, or if the payload does not fit.
    """
    word = (cookie & _WORD_BITS) >> 4 & 0xE
    if word not in (2, 4, 8):
        raise ValueError(f"its header is damaged (counters of {word} bytes)")
    if is_cut and any(body[-_ZEROS_BEFORE_CUT:]):
        raise ValueError("the compressed part is cut short")
    found = np.frombuffer(body[: len(body) // word * word], f">i{word}")
    counts = np.zeros(layout.length, np.uint64)
    if (found < 0).any() or found[layout.length :].any():
        raise ValueError("the payload does not fit the range in its header")
    counts[: found.size] = found[: layout.length]
    return counts


def _refused(cookie: int) -> ValueError:
    if cookie in _COOKIES_OF_DOUBLES:
        return ValueError("it is a histogram of doubles; write one of integers (ns, us or ms) instead")
    return ValueError(f"it is not an HDR histogram (cookie {cookie & 0xFFFFFFFF:#x})")


def _checked_layout(digits: int, lowest: int, highest: int, offset: int, ratio: float) -> Layout:
    if not (0 <= digits <= 5 and lowest >= 1 and 2 * lowest <= highest):
        raise ValueError(f"its header is damaged (range {lowest} to {highest}, {digits} digits)")
    if (offset, ratio) != _UNSHIFTED_BY_JS and (offset != 0 or ratio != 1.0):
        raise ValueError("it is shifted or scaled, which is not supported")
    layout = Layout(digits, lowest, highest)
    if layout.unit + layout.half > 61 or layout.length > COUNTERS_MAX:
        raise ValueError(f"its header is damaged (range {lowest} to {highest}, {digits} digits)")
    return layout
