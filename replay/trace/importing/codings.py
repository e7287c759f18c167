"""Content codings (RFC 9110, 8.4.1) of recorded bodies: taken off to look for secrets, and put on again."""

from __future__ import annotations

import zlib
from collections.abc import Callable

from replay.trace.requests import Headers

DECODED_BYTES_MAX = 64 << 20
"""A body that is larger without its coding is not read."""

_PIECE_BYTES = 1 << 8
"""Bytes that are decoded at once: a small body may stand for gigabytes."""

_ANY_ZLIB = 32 + zlib.MAX_WBITS
"""gzip or zlib, by the header."""


class BadCoding(ValueError):
    """A body is not in its coding, or not in one that is known."""


def coding_of(headers: Headers | list[tuple[bytes, bytes]]) -> bytes:
    """The content coding that headers name, in lower case; empty for none (`identity`)."""
    named = [
        coding.strip().lower()
        for name, value in headers
        if name.lower() == b"content-encoding" and value
        for coding in value.split(b",")
    ]
    return b",".join(coding for coding in named if coding not in (b"", b"identity"))


def decoded(body: bytes, coding: bytes) -> bytes:
    """A body without its coding. BadCoding where it is none of gzip, deflate, br and zstd, or not whole."""
    if not coding or not body:
        return body
    decode = _DECODERS.get(coding)
    if decode is None:
        raise BadCoding(coding.decode("latin-1"))
    return decode(body)


def encoded(body: bytes, coding: bytes) -> bytes:
    """A body in a coding that `decoded` knows."""
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
    """zlib's format (RFC 1950), or the bare one that some servers send."""
    try:
        return _zlib(_ANY_ZLIB)(body)
    except BadCoding:
        return _zlib(-zlib.MAX_WBITS)(body)


def _streamed(name: str) -> Callable[[bytes], bytes]:
    def decode(body: bytes) -> bytes:
        import cramjam

        decoder = getattr(cramjam, name).Decompressor()
        found = bytearray()
        try:
            for at in range(0, len(body), _PIECE_BYTES):
                decoder.decompress(body[at : at + _PIECE_BYTES])
                found += bytes(decoder.flush())
                if len(found) > DECODED_BYTES_MAX:
                    raise BadCoding("too large")
            found += bytes(decoder.finish())
        except (cramjam.DecompressionError, OSError) as error:
            raise BadCoding(str(error)) from None
        return bytes(found)

    return decode


_DECODERS: dict[bytes, Callable[[bytes], bytes]] = {
    b"gzip": _zlib(_ANY_ZLIB), b"x-gzip": _zlib(_ANY_ZLIB), b"deflate": _deflate,
    b"br": _streamed("brotli"), b"zstd": _streamed("zstd"),
}  # fmt: skip
