"""Decodes the content codings of a body, up to a limit."""

from __future__ import annotations

import contextlib
import zlib

import cramjam

DECODED_BYTES_MAX = 16 << 20
"""The maximum size of a decoded body in bytes: a larger one may be a decompression bomb."""

CODINGS_MAX = 4
"""The maximum number of codings per body."""

_OVERFLOWS = "failed to write whole buffer"


class TooLargeError(Exception):
    """The decoded body is longer than the limit."""


class Decoder:
    """Decodes bodies one after another, reusing its buffers."""

    def __init__(self, limit: int = DECODED_BYTES_MAX) -> None:
        self._limit = limit
        self._buffer = bytearray(limit)

    def decode(self, body: bytes, coding: str) -> bytes:
        """Return the body without its content codings.

        Raises ValueError if it cannot be decoded, TooLargeError if the result exceeds the limit.
        """
        names = [name.strip().lower() for name in coding.split(",") if name.strip()]
        if len(names) > CODINGS_MAX:
            raise ValueError(f"{len(names)} content codings")
        for name in reversed(names):
            body = self._decode_one(body, name)
        return body

    def _decode_one(self, body: bytes, name: str) -> bytes:
        if name == "identity":
            return body
        if name in ("gzip", "x-gzip"):
            return self._inflate(body, 31)
        if name == "deflate":
            # Some servers omit the zlib header, so raw deflate data is tried as well.
            with contextlib.suppress(ValueError):
                return self._inflate(body, 15)
            return self._inflate(body, -15)
        variants = {"br": cramjam.brotli, "zstd": cramjam.zstd}
        if name not in variants:
            raise ValueError(f"unknown content coding {name}")
        try:
            size = variants[name].decompress_into(body, self._buffer)
        except cramjam.DecompressionError as error:
            if _OVERFLOWS in str(error):
                raise TooLargeError from None
            raise ValueError(str(error)) from None
        return bytes(memoryview(self._buffer)[:size])

    def _inflate(self, body: bytes, window: int) -> bytes:
        stream = zlib.decompressobj(window)
        try:
            decoded = stream.decompress(body, self._limit + 1)
        except zlib.error as error:
            raise ValueError(str(error)) from None
        if len(decoded) > self._limit:
            raise TooLargeError
        if not stream.eof:
            raise ValueError("the body ends before its content coding does")
        return decoded
