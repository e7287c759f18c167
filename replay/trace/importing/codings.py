"""Content codings (RFC 9110, 8.4.1) of recorded bodies.

Bodies are decoded to search them for secrets, and encoded again.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import pyarrow as pa

from replay.trace.requests import Headers

DECODED_BYTES_MAX = 64 << 20
"""Maximum decoded size of a body.

A larger body is not decoded.
"""

_PIECE_BYTES = 1 << 18
"""Decoded bytes per step of br and zstd, because a small body may expand to gigabytes."""

_ANY_ZLIB = 32 + zlib.MAX_WBITS
"""zlib's option to detect gzip or zlib from the header."""


class BadCoding(ValueError):
    """A body is not in its declared coding, the coding is unknown, or the decoded body is too large."""


def coding_of(headers: Headers | list[tuple[bytes, bytes]]) -> bytes:
    """Return the content codings in the headers, in lower case and joined by commas; empty for none or `identity`."""
    named = [
        coding.strip().lower()
        for name, value in headers
        if name.lower() == b"content-encoding" and value
        for coding in value.split(b",")
    ]
    return b",".join(coding for coding in named if coding not in (b"", b"identity"))


def decoded(body: bytes, coding: bytes) -> bytes:
    """Decode a body in gzip (also x-gzip), deflate, br or zstd; without a coding, return it unchanged.

    Raises BadCoding if the body is damaged or too large, or if it has another coding.
    """
    if not coding or not body:
        return body
    decode = _DECODERS.get(coding)
    if decode is None:
        raise BadCoding(coding.decode("latin-1"))
    return decode(body)


def encoded(body: bytes, coding: bytes) -> bytes:
    """Encode a body in a coding that `decoded` supports; an empty coding leaves it unchanged."""
    import cramjam

    if coding in (b"gzip", b"x-gzip"):
        return bytes(cramjam.gzip.compress(body))
    if coding == b"deflate":
        return zlib.compress(body)
    made = {b"br": cramjam.brotli.compress, b"zstd": cramjam.zstd.compress}[coding](body) if coding else body
    return bytes(made)


def _zlib(bits: int) -> Callable[[bytes], bytes]:
    def decode(body: bytes) -> bytes:
        decoder = zlib.decompressobj(bits)
        try:
            found = decoder.decompress(body, DECODED_BYTES_MAX + 1)
        except zlib.error as error:
            raise BadCoding(str(error)) from None
        if not decoder.eof or len(found) > DECODED_BYTES_MAX:
            raise BadCoding("not whole, or too large")
        return found

    return decode


def _deflate(body: bytes) -> bytes:
    """Decode zlib's format (RFC 1950), or the raw deflate that some servers send."""
    try:
        zlib.decompressobj(zlib.MAX_WBITS).decompress(body, 1)
    except zlib.error:
        return _zlib(-zlib.MAX_WBITS)(body)
    return _zlib(zlib.MAX_WBITS)(body)


def _streamed(name: str) -> Callable[[bytes], bytes]:
    def decode(body: bytes) -> bytes:
        found = bytearray()
        try:
            with pa.CompressedInputStream(pa.BufferReader(body), name) as stream:
                while piece := stream.read(_PIECE_BYTES):
                    found += piece
                    if len(found) > DECODED_BYTES_MAX:
                        raise BadCoding("too large")
        except (OSError, pa.ArrowException) as error:
            raise BadCoding(str(error).partition("\n")[0]) from None
        return bytes(found)

    return decode


_DECODERS: dict[bytes, Callable[[bytes], bytes]] = {
    b"gzip": _zlib(_ANY_ZLIB), b"x-gzip": _zlib(_ANY_ZLIB), b"deflate": _deflate,
    b"br": _streamed("brotli"), b"zstd": _streamed("zstd"),
}  # fmt: skip
