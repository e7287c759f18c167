"""Pseudonyms for secrets: equal values get equal pseudonyms within a recording, with the same length and alphabet.

ASCII letters keep their case, digits stay digits, and punctuation is unchanged. A short value is permuted among
all values of its form, so that different values never share a pseudonym (a generalized Feistel network, as in
format-preserving encryption). A long value gets letters and digits from a keyed hash. The encoding of a value does
not matter: percent-encoded, escaped for JSON, or after the scheme of an Authorization header.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

REMEMBERED = 1 << 16
"""How many pseudonyms are cached."""

_UNIT = re.compile(
    r"(?P<percent>%(?:25){0,4})(?P<coded>[0-9A-Fa-f]{2})"
    r"|(?P<pair>\\{1,16}u[Dd][89ABab][0-9A-Fa-f]{2}\\{1,16}u[Dd][C-Fc-f][0-9A-Fa-f]{2})"
    r"|(?P<long>\\{1,16}u)(?P<code>[0-9A-Fa-f]{4})|(?P<short>\\{1,16}x)(?P<byte>[0-9A-Fa-f]{2})|.",
    re.DOTALL,
)
_SCHEME = re.compile(
    r"(?:Bearer|Basic|Digest|Negotiate|NTLM|Token|ApiKey)(?:[ +]|%(?:25)*20)+", re.IGNORECASE
)
_PERMUTED_BITS = 120
"""Forms with more bits than this are hashed, not permuted.

At that size two hashes practically never collide.
"""
_ROUNDS = 8
_LETTERS, _DIGITS, _LEADING, _OTHERS = 26, 10, 9, 64


class _Unit(NamedTuple):
    """How bytes of a value are written: literally, as `%XX`, or as an escape.

    `mark` is the text before the hexadecimal digits, empty for literal bytes.
    """

    mark: str
    text: str
    begin: int
    end: int


def _units(text: str) -> tuple[list[_Unit], bytes]:
    """Split a text into its written units and the bytes that they stand for."""
    units: list[_Unit] = []
    plain = bytearray()
    for match in _UNIT.finditer(text):
        begin = len(plain)
        mark = match["percent"] or match["short"] or match["long"] or ""
        written = match["coded"] or match["byte"] or match["code"] or match[0]
        if match["pair"]:
            high, low = (int(code, 16) for code in re.findall(r"u([0-9A-Fa-f]{4})", match[0]))
            mark = match[0][: match[0].index("u") + 1]
            plain += chr(0x10000 + ((high - 0xD800) << 10) + low - 0xDC00).encode()
        elif match["long"]:
            code = int(written, 16)
            is_half = 0xD800 <= code < 0xE000
            mark, written = ("", match[0]) if is_half else (mark, written)
            plain += b"?" if is_half else chr(code).encode()
        elif mark:
            plain.append(int(written, 16))
        else:
            plain += match[0].encode("latin-1", "replace")
        units.append(_Unit(mark, written, begin, len(plain)))
    return units, bytes(plain)


def _written(units: list[_Unit], plain: bytes) -> str:
    """Write bytes in the units of an earlier text."""
    return "".join(_in_unit(unit, plain[unit.begin : unit.end]) for unit in units)


def _in_unit(unit: _Unit, data: bytes) -> str:
    if not unit.mark:
        return unit.text if len(unit.text) > 1 else data.decode("latin-1")
    if not unit.mark.endswith("u"):
        return unit.mark + _in_case_of(f"{data[0]:02x}", unit.text)
    try:
        plain = data.decode("utf-8")
    except UnicodeDecodeError:  # The bytes were replaced one by one, and no longer form a character.
        plain = data.decode("latin-1")
    words = plain.encode("utf-16-be")
    codes = [words[at : at + 2].hex() for at in range(0, len(words), 2)]
    return "".join(
        unit.mark + _in_case_of(code, unit.text.replace("\\", "").replace("u", "")) for code in codes
    )


def _in_case_of(code: str, given: str) -> str:
    """Return the hexadecimal digits `code` in the case of `given`; in capitals if `given` has no letters."""
    return code if given == given.lower() and not given.isdigit() else code.upper()


class _Digit(NamedTuple):
    """A byte that changes.

    `place` is its position, `radix` how many values it can take, `number` its current number among them, and `first`
    the byte for the number 0.
    """

    place: int
    radix: int
    number: int
    first: int


def _digits(plain: bytes) -> Iterator[_Digit]:
    """Yield the bytes of a value that change.

    A leading digit stays above 0, so that a number remains one. A leading 0 does not change.
    """
    start = 1 if plain[:1] == b"-" else 0
    for place, byte in enumerate(plain):
        if 97 <= byte <= 122:
            yield _Digit(place, _LETTERS, byte - 97, 97)
        elif 65 <= byte <= 90:
            yield _Digit(place, _LETTERS, byte - 65, 65)
        elif 48 <= byte <= 57:
            if place > start:
                yield _Digit(place, _DIGITS, byte - 48, 48)
            elif byte > 48:
                yield _Digit(place, _LEADING, byte - 49, 49)
        elif byte >= 0x80 and _ends_letter(plain, place):
            yield _Digit(place, _OTHERS, byte & 63, byte & 0xC0)


def _ends_letter(plain: bytes, place: int) -> bool:
    """Return whether this is the last byte of a non-ASCII letter.

    In encodings other than UTF-8, any byte that may be a letter counts.
    """
    begin = place
    while begin > 0 and place - begin < 3 and plain[begin] & 0xC0 == 0x80:
        begin -= 1
    try:
        return plain[begin : place + 1].decode("utf-8").isalnum()
    except UnicodeDecodeError:
        return plain[place] >= 0xC0 and not _is_utf8(plain)


def _is_utf8(plain: bytes) -> bool:
    try:
        plain.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


class Pseudonyms:
    """Makes pseudonyms with the `key` of one recording.

    Without the key, nobody can test guesses of values against the trace.
    """

    def __init__(self, key: bytes) -> None:
        self._key = hashlib.blake2b(key, digest_size=32, person=b"replay-pseudonym").digest()
        self._made: dict[str, str] = {}

    def of(self, text: str) -> str:
        """Return the pseudonym of a value in the same encoding.

        A scheme before it (`Bearer `) is kept.
        """
        known = self._made.get(text)
        if known is None:
            scheme = _SCHEME.match(text)
            if scheme is None:
                known = self._of(text)
            elif scheme[0][:5].lower() == "basic":
                known = scheme[0] + self._basic(text[scheme.end() :])
            else:
                known = scheme[0] + self._of(text[scheme.end() :])
            if len(self._made) < REMEMBERED:
                self._made[text] = known
        return known

    def number(self, text: str, below: int) -> int:
        """Return a number below `below`, always the same for the same text, whose case is ignored."""
        return int.from_bytes(self._hash(b"number", text.lower().encode()), "big") % below

    def _of(self, text: str) -> str:
        if text.startswith("eyJ"):
            # The pseudonym of a JSON Web Token must look like one, too.
            return "eyJ" + self._written_alike(text[3:])
        return self._written_alike(text)

    def _written_alike(self, text: str) -> str:
        """Return the pseudonym of a value, percent-encoded and escaped where the value is."""
        if text.isascii() and "%" not in text and "\\" not in text:
            return self._changed(text.encode()).decode()
        units, plain = _units(text)
        return _written(units, self._changed(plain))

    def _changed(self, plain: bytes) -> bytes:
        """Return other bytes of the same form."""
        made = bytearray(plain)
        for digit, number in zip(found := list(_digits(plain)), self._others(found), strict=True):
            made[digit.place] = digit.first + number
        return bytes(made)

    def _basic(self, text: str) -> str:
        """Return the pseudonym of `user:password` in base64, in which each part has its own pseudonym.

        Either part may occur elsewhere in the recording as well. A text of another form is replaced as a whole.
        """
        try:
            user, colon, password = base64.b64decode(text, validate=True).decode("latin-1").partition(":")
        except (binascii.Error, ValueError):
            return self._of(text)
        if not colon:
            return self._of(text)
        return base64.b64encode(f"{self.of(user)}:{self.of(password)}".encode("latin-1")).decode()

    def _others(self, digits: list[_Digit]) -> list[int]:
        """Return the new numbers of the bytes that change."""
        size = 1
        for digit in digits:
            size *= digit.radix
            if size >> _PERMUTED_BITS:
                return self._hashed(digits)
        return self._permuted(digits, size) if size > 1 else [digit.number for digit in digits]

    def _hashed(self, digits: list[_Digit]) -> list[int]:
        seed = self._hash(b"stream", bytes(digit.number for digit in digits))
        stream = hashlib.shake_256(seed).digest(2 * len(digits))
        return [
            (stream[2 * place] << 8 | stream[2 * place + 1]) % digit.radix
            for place, digit in enumerate(digits)
        ]

    def _permuted(self, digits: list[_Digit], size: int) -> list[int]:
        """Return the next value in a keyed order of all values of this form, which is never the value itself."""
        radixes = bytes(digit.radix for digit in digits)
        number, right = 0, 1
        for place, digit in enumerate(digits):
            number = number * digit.radix + digit.number
            right *= digit.radix if place >= len(digits) // 2 else 1

        def f(turn: int, half: int, below: int) -> int:
            return (
                int.from_bytes(self._hash(b"round" + bytes((turn,)) + radixes, b"%x" % half), "big") % below
            )

        number = _unshuffled((_shuffled(number, size // right, right, f) + 1) % size, size // right, right, f)
        numbers = []
        for digit in reversed(digits):
            number, rest = divmod(number, digit.radix)
            numbers.append(rest)
        return numbers[::-1]

    def _hash(self, what: bytes, text: bytes) -> bytes:
        return hashlib.blake2b(what + b"\0" + text, key=self._key, digest_size=32).digest()


Round = Callable[[int, int, int], int]


def _shuffled(number: int, left: int, right: int, f: Round) -> int:
    """Permute a number with a Feistel network of two halves."""
    a, b = divmod(number, right)
    for turn in range(_ROUNDS):
        if turn % 2:
            b = (b + f(turn, a, right)) % right
        else:
            a = (a + f(turn, b, left)) % left
    return a * right + b


def _unshuffled(number: int, left: int, right: int, f: Round) -> int:
    """Invert `_shuffled`."""
    a, b = divmod(number, right)
    for turn in reversed(range(_ROUNDS)):
        if turn % 2:
            b = (b - f(turn, a, right)) % right
        else:
            a = (a - f(turn, b, left)) % left
    return a * right + b
