"""An incremental HTTP/1.x response parser. Input may arrive in pieces of any size.

Framing follows RFC 9112, section 6.3, and agrees with h11 except for the differences listed in
`tests/oracles/http1_differences.py`. `parse` keeps its state in any record that has PARSER_FIELDS, such as a row of
the lane's connection table. Both engines use it.
"""

from __future__ import annotations

import numpy as np
from numba import from_dtype, int64, uint8

from replay_native.ground.jit import kernel
from replay_native.ground.shared import clears, peek_i64

PARSER_FIELDS = [
    ("parse_state", "i8"), ("position", "i8"), ("status", "i8"), ("minor", "i8"), ("head_bytes", "i8"),
    ("header", "i8"), ("header_flags", "i8"), ("word", "u8"), ("remaining", "i8"), ("length", "i8"),
    ("length_digits", "i8"), ("number", "i8"), ("digits", "i8"), ("body_bytes", "i8"), ("informational", "i8"),
    ("headers", "i8"), ("reason", "i8"), ("to_head", "i8"),
]  # fmt: skip
"""The parser's state between two calls.

`to_head`: the request was a HEAD. `reason`: why the response is BAD, an index of REASONS. `reset` clears all fields
as one range, so that it need not list them.
"""

PARSER = np.dtype(PARSER_FIELDS)

# Values of parse_state, in the order of a message.
VERSION, CODE, AFTER_CODE, REASON, LINE, NAME, VALUE, LINE_CR, HEAD_CR = range(9)
CHUNK_SIZE, CHUNK_SPACE, CHUNK_EXTENSION, CHUNK_CR = range(9, 13)
CHUNK_DATA, CHUNK_DATA_CR, CHUNK_DATA_LF = range(13, 16)
BODY, UNTIL_CLOSE, DONE, BAD = range(16, 20)

# Values of header: which header is being read. All but OTHER affect the framing of the message.
OTHER, CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION = range(4)

# Bits of header_flags.
SEEN_LENGTH, SEEN_CHUNKED, SAID_CLOSE, SAID_KEEP_ALIVE, SPACE_PENDING, IN_TRAILERS, VALUE_OPEN, LENGTH_COMMA = (
    1, 2, 4, 8, 16, 32, 64, 128,
)  # fmt: skip

REASONS = (
    "",
    "it does not begin with an HTTP/1 version",
    "its status is not three digits",
    "its status is outside 200 to 599",
    "it switches protocols (101), which no request asked for",
    "its head contains a control character",
    "it contains a carriage return without a line feed",
    "a header's name is empty, contains a forbidden character, or has no colon after it",
    "a continuation line does not follow a header",
    "its Content-Length is not a number below 2^63",
    "it has two different Content-Lengths",
    "its Transfer-Encoding is not chunked",
    "a chunk's size is not a number below 2^63, or its line does not end with CR LF",
    "a chunk is longer than its size, or does not end with CR LF",
    "its head is longer than the limit, or the lines between two chunks or after the last one are",
)
"""The texts of `reason`."""

(
    NO_REASON, NOT_HTTP, BAD_STATUS, STATUS_RANGE, SWITCHING, CONTROL_CHARACTER, BARE_CR, BAD_NAME, BAD_FOLD, BAD_LENGTH,
    TWO_LENGTHS, BAD_CODING, BAD_CHUNK_SIZE, BAD_CHUNK_END, TOO_LONG,
) = range(len(REASONS))  # fmt: skip

_MOST_TENTHS, _MOST_SIXTEENTHS = (2**63 - 1) // 10, (2**63 - 1) // 16
"""The largest numbers that can be followed by another digit without exceeding 63 bits.

A number that equals _MOST_TENTHS can be followed by a decimal digit up to 7.
"""

# Bits of the class of a byte, which `_classes` assigns.
IS_TOKEN, IS_VALUE, IS_DIGIT, IS_HEX = 1, 2, 4, 8


def _classes() -> np.ndarray:
    """Return the class bits of each byte.

    Tokens are those of RFC 9110, 5.6.2. Values may contain every byte except NUL, CR, LF, VT and FF.
    """
    table = np.zeros(256, np.uint8)
    for byte in b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ":
        table[byte] |= IS_TOKEN
    for byte in range(256):
        if byte not in b"\x00\r\n\x0b\x0c":
            table[byte] |= IS_VALUE
    for byte in b"0123456789":
        table[byte] |= IS_DIGIT
    for byte in b"0123456789abcdefABCDEF":
        table[byte] |= IS_HEX
    return table


_CLASS = _classes()
_PREFIX = np.frombuffer(b"HTTP/1.", np.uint8).copy()
_FNV_BASIS, _FNV_PRIME = 0xCBF29CE484222325, 0x100000001B3


def word_of(text: bytes) -> int:
    """Return the FNV-1a hash of a lower-case word, by which header names and values are recognized."""
    word = _FNV_BASIS
    for byte in text:
        word = ((word ^ byte) * _FNV_PRIME) & 0xFFFFFFFFFFFFFFFF
    return word


_EMPTY = np.uint64(_FNV_BASIS)
_PRIME = np.uint64(_FNV_PRIME)
_W_CONTENT_LENGTH = np.uint64(word_of(b"content-length"))
_W_TRANSFER_ENCODING = np.uint64(word_of(b"transfer-encoding"))
_W_CONNECTION = np.uint64(word_of(b"connection"))
_W_CHUNKED = np.uint64(word_of(b"chunked"))
_W_CLOSE = np.uint64(word_of(b"close"))
_W_KEEP_ALIVE = np.uint64(word_of(b"keep-alive"))

_ALL_SPACE, _ALL_HIGH = np.uint64(0x2020202020202020), np.uint64(0x8080808080808080)

_FRAMING_INITIALS = (67, 84, 99, 116)
"""C, T, c, t. Headers with other initials do not affect the framing, so that their names are not hashed."""

CR, LF, SPACE, TAB, COLON, COMMA, SEMICOLON = 13, 10, 32, 9, 58, 44, 59
_SEVEN = 55

_clear = clears([name for name, _ in PARSER_FIELDS])


@kernel(inlined=True)
def _mix(word, byte):
    """Update an FNV-1a hash with one more byte, in lower case."""
    if 65 <= byte <= 90:
        byte += 32
    return (word ^ np.uint64(byte)) * _PRIME


@kernel(inlined=True)
def reset(p, to_head):
    """Clear the state of an earlier response, to expect a new one."""
    _clear(p)
    p.to_head = to_head


@kernel(inlined=True)
def _refuse(p, reason):
    """Record why the response is malformed, and return False."""
    p.reason = reason
    return False


@kernel(inlined=True)
def keeps_alive(p):
    """Return whether the connection can be used for another request after this response."""
    return p.parse_state == DONE and not _is_last(p)


@kernel(inlined=True)
def _is_last(p):
    """Return whether the complete head announces that the server closes the connection."""
    if p.header_flags & SAID_CLOSE:
        return True
    return p.minor == 0 and p.header_flags & SAID_KEEP_ALIVE == 0


@kernel(inlined=True)
def is_idle_close(p):
    """Return whether the response is a 408 whose head is complete and announces the end of the connection.

    As the first response on a reused connection it does not answer a request: the server waited for one and gave up
    (RFC 9110, 15.5.9). After an informational response it does answer the request, because the server has read that.
    """
    if p.status != 408 or p.informational:
        return False
    in_head = p.parse_state <= HEAD_CR and not p.header_flags & IN_TRAILERS
    return not in_head and p.parse_state != BAD and _is_last(p)


@kernel(inlined=True)
def _version_byte(p, byte):
    """Process one byte of `HTTP/1.d `, and return False if it is malformed."""
    at = p.position
    p.position += 1
    if at < 7:
        return byte == _PREFIX[at] or _refuse(p, NOT_HTTP)
    if at == 7:
        p.minor = np.int64(byte) - 48
        return (_CLASS[byte] & IS_DIGIT) != 0 or _refuse(p, NOT_HTTP)
    p.parse_state = CODE
    p.position = 0
    return byte == SPACE or _refuse(p, NOT_HTTP)


@kernel(inlined=True)
def _code_byte(p, byte):
    """Process one digit of the status, and return False if it is malformed."""
    p.status = p.status * 10 + np.int64(byte) - 48
    p.position += 1
    if p.position == 3:
        p.parse_state = AFTER_CODE
    return (_CLASS[byte] & IS_DIGIT) != 0 or _refuse(p, BAD_STATUS)


@kernel(inlined=True)
def _name_ends(p):
    """Process the end of a header's name: record which header it is, and expect its value."""
    p.header = OTHER
    if p.word == _W_CONTENT_LENGTH:
        p.header = CONTENT_LENGTH
        p.number = 0
        p.digits = 0
        p.header_flags &= ~LENGTH_COMMA
    elif p.word == _W_TRANSFER_ENCODING:
        p.header = TRANSFER_ENCODING
    elif p.word == _W_CONNECTION:
        p.header = CONNECTION
    p.headers += 1
    p.word = _EMPTY
    p.header_flags = (p.header_flags | VALUE_OPEN) & ~SPACE_PENDING
    p.parse_state = VALUE


@kernel(inlined=True)
def _length_part_ends(p):
    """Process one of the comma-separated numbers of a Content-Length. All must be equal, including leading zeros.

    Returns False if the response is malformed.
    """
    if p.digits == 0:
        return _refuse(p, BAD_LENGTH)
    if p.header_flags & SEEN_LENGTH and (p.number != p.length or p.digits != p.length_digits):
        return _refuse(p, TWO_LENGTHS)
    p.header_flags |= SEEN_LENGTH
    p.length = p.number
    p.length_digits = p.digits
    p.number = 0
    p.digits = 0
    return True


@kernel(inlined=True)
def _connection_part_ends(p):
    """Record whether the word of a Connection header that ends here is `close` or `keep-alive`."""
    if p.word == _W_CLOSE:
        p.header_flags |= SAID_CLOSE
    elif p.word == _W_KEEP_ALIVE:
        p.header_flags |= SAID_KEEP_ALIVE
    p.word = _EMPTY


@kernel(inlined=True)
def _framing_byte(p, byte):
    """Process one byte of the value of a header that affects the framing, and return False if it is malformed."""
    if byte in (SPACE, TAB):
        if p.word != _EMPTY or p.digits:
            p.header_flags |= SPACE_PENDING
        return True
    if byte == COMMA and p.header != TRANSFER_ENCODING:
        p.header_flags &= ~SPACE_PENDING
        if p.header == CONNECTION:
            _connection_part_ends(p)
            return True
        return _length_part_ends(p)
    broken = (p.header_flags & SPACE_PENDING) != 0
    p.header_flags &= ~SPACE_PENDING
    if p.header == CONTENT_LENGTH:
        fits = p.number < _MOST_TENTHS or (p.number == _MOST_TENTHS and byte <= _SEVEN)
        if broken or not fits or not _CLASS[byte] & IS_DIGIT:
            return _refuse(p, BAD_LENGTH)
        p.digits += 1
        p.number = p.number * 10 + np.int64(byte) - 48
        return True
    if broken:
        p.word = _mix(p.word, np.uint8(SPACE))
    p.word = _mix(p.word, byte)
    return True


@kernel(inlined=True)
def _value_ends(p):
    """Process the complete value of a header, and return False if it is malformed.

    A value is complete when the next line does not continue it.
    """
    if not p.header_flags & VALUE_OPEN:
        return True
    p.header_flags &= ~VALUE_OPEN
    if p.header == CONTENT_LENGTH:
        return _length_part_ends(p)
    if p.header == CONNECTION:
        if not p.header_flags & IN_TRAILERS:
            _connection_part_ends(p)
    elif p.header == TRANSFER_ENCODING:
        # A server and its proxy may both add this header. Two equal codings count as one, as in curl and llhttp.
        if p.word != _W_CHUNKED:
            return _refuse(p, BAD_CODING)
        p.header_flags |= SEEN_CHUNKED
    return True


@kernel(inlined=True)
def _head_ends(p):
    """Decide what follows the empty line after a header section; return False if the response is malformed."""
    if not _value_ends(p):
        return False
    if p.header_flags & IN_TRAILERS:
        p.parse_state = DONE
        return True
    if p.status == 101:
        return _refuse(p, SWITCHING)
    if p.status < 100:
        return _refuse(p, STATUS_RANGE)
    if p.status < 200:
        seen, to_head, head_bytes = p.informational, p.to_head, p.head_bytes
        reset(p, to_head)
        p.informational = seen + 1
        p.head_bytes = head_bytes
        return True
    if p.to_head or p.status in (204, 304):
        p.parse_state = DONE
    elif p.header_flags & SEEN_CHUNKED:
        p.parse_state = CHUNK_SIZE
        p.number = 0
        p.digits = 0
    elif p.header_flags & SEEN_LENGTH:
        p.remaining = p.length
        p.parse_state = BODY if p.length else DONE
    else:
        p.parse_state = UNTIL_CLOSE
    return True


@kernel(inlined=True)
def _line_begins(p, byte):
    """Process the first byte of a header line or of the empty line, and return False if it is malformed."""
    if byte in (SPACE, TAB):
        if not p.header_flags & VALUE_OPEN:
            return _refuse(p, BAD_FOLD)
        if p.header != OTHER and (p.word != _EMPTY or p.digits):
            p.header_flags |= SPACE_PENDING
        p.parse_state = VALUE
        return True
    if byte == CR:
        p.parse_state = HEAD_CR
        return True
    if byte == LF:
        return _head_ends(p)
    if not _value_ends(p):
        return False
    if not _CLASS[byte] & IS_TOKEN:
        return _refuse(p, BAD_NAME)
    p.position = byte in _FRAMING_INITIALS
    p.word = _mix(_EMPTY, byte) if p.position else np.uint64(0)
    p.parse_state = NAME
    return True


@kernel(inlined=True)
def _head_byte(p, byte):
    """Process one byte of the status line, the headers or the trailers, and return False if it is malformed."""
    state = p.parse_state
    if state == NAME:
        _name_ends(p)
        return byte == COLON or _refuse(p, BAD_NAME)
    if state in (VALUE, REASON):
        if byte == LF:
            p.parse_state = LINE
            return True
        if byte == CR:
            p.parse_state = LINE_CR
            return True
        if state == VALUE and p.header != OTHER and not _framing_byte(p, byte):
            return False
        return (_CLASS[byte] & IS_VALUE) != 0 or _refuse(p, CONTROL_CHARACTER)
    if state == LINE:
        return _line_begins(p, byte)
    if state == LINE_CR:
        p.parse_state = LINE
        return byte == LF or _refuse(p, BARE_CR)
    if state == HEAD_CR:
        return _head_ends(p) if byte == LF else _refuse(p, BARE_CR)
    if state == VERSION:
        return _version_byte(p, byte)
    if state == CODE:
        return _code_byte(p, byte)
    p.parse_state = REASON if byte == SPACE else LINE_CR if byte == CR else LINE
    return byte in (SPACE, CR, LF) or _refuse(p, BAD_STATUS)


@kernel(inlined=True)
def _chunk_begins(p):
    """Process the end of a chunk's size line."""
    if p.number == 0:
        p.parse_state = LINE
        p.header_flags = (p.header_flags | IN_TRAILERS) & ~(SEEN_LENGTH | SEEN_CHUNKED | VALUE_OPEN)
    else:
        p.parse_state = CHUNK_DATA
        p.remaining = p.number
    p.number = 0
    p.digits = 0


@kernel(inlined=True)
def _chunk_byte(p, byte):
    """Process one byte of a chunk's size line, or of the line end after its data; return False if it is malformed."""
    state = p.parse_state
    if state == CHUNK_DATA_CR:
        p.parse_state = CHUNK_DATA_LF
        return byte == CR or _refuse(p, BAD_CHUNK_END)
    if state == CHUNK_DATA_LF:
        p.parse_state = CHUNK_SIZE
        return byte == LF or _refuse(p, BAD_CHUNK_END)
    if state == CHUNK_CR:
        if byte == LF:
            _chunk_begins(p)
            return True
        p.parse_state = CHUNK_EXTENSION if p.position else CHUNK_SPACE
        return _chunk_extension_byte(p, byte) if p.position else _refuse(p, BARE_CR)
    if state == CHUNK_EXTENSION:
        return _chunk_extension_byte(p, byte)
    if state == CHUNK_SIZE and _CLASS[byte] & IS_HEX:
        if p.number > _MOST_SIXTEENTHS:
            return _refuse(p, BAD_CHUNK_SIZE)
        p.digits += 1
        p.number = p.number * 16 + (np.int64(byte) - 48 if byte < 58 else (np.int64(byte) & 31) + 9)
        return True
    if p.digits == 0:
        return _refuse(p, BAD_CHUNK_SIZE)
    p.position = 0
    if byte == CR:
        p.parse_state = CHUNK_CR
        return True
    if byte == SEMICOLON:
        p.parse_state = CHUNK_EXTENSION
        p.position = 1
        return True
    p.parse_state = CHUNK_SPACE
    return byte in (SPACE, TAB) or _refuse(p, BAD_CHUNK_SIZE)


@kernel(inlined=True)
def _chunk_extension_byte(p, byte):
    """Skip one byte of a chunk's extensions, which end with CR LF, and return False if it is malformed."""
    if byte == CR:
        p.parse_state = CHUNK_CR
    return byte != LF or _refuse(p, BAD_CHUNK_SIZE)


@kernel(inlined=True)
def _token_ends(data, at, end):
    """Return where a run of token bytes ends."""
    while at < end and _CLASS[data[at]] & IS_TOKEN:
        at += 1
    return at


@kernel(inlined=True)
def _value_run_ends(data, at, end):
    """Return where a run of value bytes ends.

    It skips eight bytes at a time until a control byte is among them.
    """
    base = data.ctypes.data
    while at + 8 <= end:
        word = np.uint64(peek_i64(base + np.uint64(at)))
        if (word - _ALL_SPACE) & ~word & _ALL_HIGH:
            break
        at += 8
    while at < end and _CLASS[data[at]] & IS_VALUE:
        at += 1
    return at


@kernel(inlined=True)
def _quick(p, data, at, end):
    """Process names, values that do not affect the framing, and line ends in long steps; return where it stopped.

    It stops at `end`, or at a byte that `_head_byte` or `_chunk_byte` must decide.
    """
    if p.parse_state == NAME:
        if p.position:
            while at < end and _CLASS[data[at]] & IS_TOKEN:
                p.word = _mix(p.word, data[at])
                at += 1
        else:
            at = _token_ends(data, at, end)
        if at < end and data[at] == COLON:
            _name_ends(p)
            at += 1
    if p.parse_state == REASON or (p.parse_state == VALUE and p.header == OTHER):
        at = _value_run_ends(data, at, end)
        if at + 1 < end and data[at] == CR and data[at + 1] == LF:
            p.parse_state = LINE
            at += 2
    return at


@kernel()
def parse(p, data, at, end, header_limit, by_parts):
    """Process `data[at:end]`, and return where the parser stopped.

    It stops at `end`, after the last byte of a complete response (DONE), or where the response is malformed (BAD).
    With `by_parts` it also stops after the head, and after each piece of the body.

    A response is BAD when its head (with those of informational responses before it), the lines between two chunks,
    or the last chunk's line and the trailers exceed `header_limit` bytes.
    """
    head_ends = False
    while at < end and p.parse_state < DONE:
        state = p.parse_state
        if state < CHUNK_DATA or state in (CHUNK_DATA_CR, CHUNK_DATA_LF):
            start = at
            at = _quick(p, data, at, end)
            if at < end:
                state = p.parse_state
                fine = _head_byte(p, data[at]) if state < CHUNK_SIZE else _chunk_byte(p, data[at])
                at += 1
                if not fine:
                    p.parse_state = BAD
                head_ends = by_parts and state < CHUNK_SIZE and p.parse_state >= CHUNK_SIZE
            p.head_bytes += at - start
            if p.head_bytes > header_limit and p.parse_state != BAD:
                p.reason = TOO_LONG
                p.parse_state = BAD
            if head_ends:
                return at
        elif state == UNTIL_CLOSE:
            p.body_bytes += end - at
            return end
        else:
            step = min(end - at, p.remaining)
            at += step
            p.remaining -= step
            p.body_bytes += step
            if p.remaining == 0:
                p.parse_state = DONE if state == BODY else CHUNK_DATA_CR
                p.head_bytes = 0
            if by_parts:
                return at
    return at


@kernel(inlined=True)
def end_of_input(p):
    """Record that the peer closed the connection, and return whether the response is complete.

    A response without a length or chunks ends here.
    """
    if p.parse_state == UNTIL_CLOSE:
        p.parse_state = DONE
        p.header_flags |= SAID_CLOSE
    return p.parse_state == DONE


@kernel((from_dtype(PARSER)[::1], uint8[::1], int64), brief=True)
def parse_on(parsers, data, header_limit):
    """Call `parse` with `parsers[0]` for the portable engine; return how many bytes of `data` it processed."""
    return parse(parsers[0], data, np.int64(0), data.size, header_limit, False)


@kernel((from_dtype(PARSER)[::1], uint8[::1], int64, int64), brief=True)
def parse_part(parsers, data, at, header_limit):
    """Call `parse` by parts with `data[at:]` for the portable engine; return where it stopped."""
    return parse(parsers[0], data, at, data.size, header_limit, True)


@kernel((from_dtype(PARSER)[::1],), brief=True)
def parsed_to_end(parsers):
    """Call `end_of_input` for the portable engine."""
    return end_of_input(parsers[0])


@kernel((from_dtype(PARSER)[::1],), brief=True)
def shows_idle_close(parsers):
    """Call `is_idle_close` for the portable engine."""
    return is_idle_close(parsers[0])


@kernel((from_dtype(PARSER)[::1],), brief=True)
def allows_another(parsers):
    """Call `keeps_alive` for the portable engine."""
    return keeps_alive(parsers[0])


@kernel((from_dtype(PARSER)[::1], uint8[::1], int64[::1], int64, int64))
def parse_pieces(parsers, data, cuts, to_head, header_limit):
    """Parse one response into `parsers[0]`, as if it arrived in pieces; return how many bytes were processed.

    The pieces of `data` end at `cuts`.
    """
    p = parsers[0]
    reset(p, to_head)
    at = np.int64(0)
    for i in range(cuts.size):
        at = parse(p, data, at, cuts[i], header_limit, False)
        if p.parse_state >= DONE:
            break
    return at
