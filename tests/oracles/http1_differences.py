"""Where the lane's parser differs from h11 on purpose. Each names itself when the fuzzer meets it."""

from __future__ import annotations

import re

DIFFERENCES = {
    "switching_protocols": "101 is malformed for us at once: no request asks for an upgrade. h11 reads it and pauses.",
    "version": "A version other than 1.x is malformed, as in the lane's contract; h11 takes any digit.",
    "long_length": "A Content-Length may have any number of digits and is below 2^63; h11 takes 20 digits of any value.",
    "long_chunk": "A chunk size may have any number of digits and is below 2^63; h11 takes 20 digits of any value.",
    "chunk_space": "White space may stand before a chunk's extension (RFC 9112, 7.1.1); h11 refuses it.",
    "repeated_coding": "`Transfer-Encoding: chunked` may stand twice, as for curl, llhttp and browsers; h11 refuses it.",
    "http10_keep_alive": "HTTP/1.0 with `Connection: keep-alive` keeps the connection (RFC 9112, C.2.2); h11 closes it.",
    "repeated_length": "We count every header line; h11 drops a repeated Content-Length.",
    "early": "We refuse a broken line at its first wrong byte; h11 waits for the end of the head.",
    "head_limit": "We bound the head, and each line between chunks, by one limit; h11 bounds only what is incomplete.",
}

_LONG_LENGTH = re.compile(rb"(?im)^content-length:[^\n]*\d{19}")
_LONG_CHUNK = re.compile(rb"(?m)^[0-9a-fA-F]{16}")
_KEEP_ALIVE_10 = re.compile(rb"HTTP/(0\.\d|1\.0) ")
_REPEATED_LENGTH = re.compile(rb"(?is)content-length:.*content-length:")
_VERSION = re.compile(rb"HTTP/[02-9]\.[0-9] ")
_CHUNK_SPACE = re.compile(rb"(?m)^[0-9a-fA-F]+[ \t]+;")
_REPEATED_CODING = re.compile(rb"(?is)transfer-encoding:.*transfer-encoding:")
_SWITCHING = re.compile(rb"HTTP/\d\.\d 101[ \r\n]")


def applies(name: str, data: bytes) -> bool:
    """Whether the named difference can be seen on this input."""
    pattern = {
        "switching_protocols": _SWITCHING,
        "version": _VERSION,
        "chunk_space": _CHUNK_SPACE,
        "repeated_coding": _REPEATED_CODING,
        "long_length": _LONG_LENGTH,
        "long_chunk": _LONG_CHUNK,
        "repeated_length": _REPEATED_LENGTH,
        "http10_keep_alive": _KEEP_ALIVE_10,
    }[name]
    return pattern.search(data) is not None
