"""The obvious twin of how tables are cut into records: a byte at a time, by RFC 4180."""

from __future__ import annotations

RECORD_BYTES_MAX = 64 << 10


def record_at(data: bytes, begin: int, delimiter: int) -> int:
    """Where the record at `begin` of whole lines ends: the offset of its newline."""
    first_end = data.index(b"\n", begin)
    at, start, quoted = begin, True, False
    while at < len(data) and at <= begin + RECORD_BYTES_MAX:
        byte = data[at]
        if quoted:
            if data[at : at + 2] == b'""':
                at += 1
            elif byte == ord('"'):
                quoted = False
                rest = data[at + 1 :].lstrip(b" ")
                rest = rest[1:] if rest[:2] == b"\r\n" else rest
                if rest[:1] not in (bytes([delimiter]), b"\n"):
                    return first_end
        elif byte == ord("\n"):
            return at
        elif byte == ord('"') and start:
            quoted = True
        start = not quoted and (byte == delimiter or (start and byte == ord(" ")))
        at += 1
    return first_end


def records(data: bytes, delimiter: str) -> list[bytes]:
    """The records of whole lines, each with its newline."""
    found, at = [], 0
    while at < len(data):
        end = record_at(data, at, ord(delimiter)) + 1
        found.append(data[at:end])
        at = end
    return found
