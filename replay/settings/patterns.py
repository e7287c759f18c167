r"""The regular expressions of captures and checks: a subset of Python's, compiled for a kernel.

    literals   any byte; \n \t \r \f \v; a backslash before punctuation makes it a literal
    sets       .  [abc]  [^a-z]  \d \D \w \W \s \S, in brackets as well
    repeats    ? * + {n} {n,} {n,m}, each greedy, or lazy with ? after it
    choice     a|b, in groups
    groups     (?:...), and one (...), which is the result

A match is the one that Python's `re.search` finds on the bytes. Anchors, back references, look-around and flags are
refused. So are repeats of a part that can match the empty text, and of the group that captures.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from replay.errors import UsageError
from replay_native.ground.regex import (
    BYTES,
    JUMP,
    MATCH,
    PROGRAM_MAX,
    SAVE,
    SPLIT,
    WORK_ROWS,
    searched,
)

REPEATS_MAX = 100
"""The largest number that {n,m} may contain."""

_ALL = frozenset(range(256))
_DIGITS = frozenset(b"0123456789")
_WORDS = _DIGITS | frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")
_SPACES = frozenset(b" \t\n\r\f\v")
_CLASSES = {
    "d": _DIGITS, "w": _WORDS, "s": _SPACES, "D": _ALL - _DIGITS, "W": _ALL - _WORDS, "S": _ALL - _SPACES,
}  # fmt: skip
_CONTROLS = {"n": 10, "t": 9, "r": 13, "f": 12, "v": 11}
_PUNCTUATION = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ ")
_COUNTS = re.compile(r"\{(\d+)(,(\d*))?\}")
_ANCHORS = {"^": "anchors are", "$": "anchors are"}

Set = frozenset[int]
Code = list[tuple[int, int, int]]
"""Instructions with relative jumps. The argument of BYTES is the index of its set in the compiler's list."""


@dataclass(frozen=True, slots=True, eq=False)
class Pattern:
    """A compiled pattern, as `replay_native.ground.regex.search` takes it.

    `program` is int32[n, 3] and `sets` is uint8[m, 256]. `has_group` is true if the pattern has a group, whose
    match is the result.
    """

    text: str
    program: npt.NDArray[np.int32]
    sets: npt.NDArray[np.uint8]
    has_group: bool

    def group(self, data: bytes) -> bytes | None:
        """Return what the group matches in the first match in `data`; None without a match.

        The pattern must have a group. The kernel searches in time linear in `data`. Python's own expressions can take
        exponential time on a response of thirty characters.
        """
        work = np.empty((WORK_ROWS, PROGRAM_MAX + 1), np.int32)
        place = np.empty(2, np.int64)
        if searched(np.frombuffer(bytearray(data), np.uint8), self.program, self.sets, work, place) < 0:
            return None
        return data[place[0] : place[1]]


@dataclass(slots=True)
class _Piece:
    code: Code
    nullable: bool


class _Compiler:
    """A recursive descent parser of a pattern. `at` is the column of the next character, from 0."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0
        self.sets: list[Set] = []
        self.grouped = False

    def wrong(self, column: int, why: str) -> UsageError:
        return UsageError(
            f"the pattern {self.text!r}, column {column + 1}: {why}",
            hint="docs/sessions.md lists what a pattern may contain",
        )

    def peek(self) -> str:
        return self.text[self.at] if self.at < len(self.text) else ""

    def bytes_of(self, taken: Set) -> Code:
        if taken not in self.sets:
            self.sets.append(taken)
        return [(BYTES, self.sets.index(taken), 0)]

    def choice(self, depth: int) -> _Piece:
        pieces = [self.sequence(depth)]
        while self.peek() == "|":
            self.at += 1
            pieces.append(self.sequence(depth))
        code = pieces[-1].code
        for piece in reversed(pieces[:-1]):
            first = [(SPLIT, 1, len(piece.code) + 2), *piece.code, (JUMP, len(code) + 1, 0)]
            code = first + code
        return _Piece(code, any(piece.nullable for piece in pieces))

    def sequence(self, depth: int) -> _Piece:
        code: Code = []
        nullable = True
        while self.at < len(self.text) and self.peek() != "|" and not (self.peek() == ")" and depth):
            piece = self.repeated(depth)
            code += piece.code
            nullable &= piece.nullable
        return _Piece(code, nullable)

    def repeated(self, depth: int) -> _Piece:
        begin = self.at
        piece = self.atom(depth)
        least, most = 1, 1
        quantifier = self.at
        if (sign := self.peek()) and sign in "?*+":
            least, most = {"?": (0, 1), "*": (0, -1), "+": (1, -1)}[sign]
            self.at += 1
        elif counts := _COUNTS.match(self.text, self.at):
            least = int(counts[1])
            most = least if counts[2] is None else int(counts[3]) if counts[3] else -1
            self.at = counts.end()
            if max(least, most) > REPEATS_MAX or 0 <= most < least:
                raise self.wrong(
                    quantifier, f"{counts[0]}: the numbers must be in ascending order, up to {REPEATS_MAX}"
                )
        else:
            return piece
        lazy = self.peek() == "?"
        self.at += lazy
        if self.peek() and (self.peek() in "?*+" or _COUNTS.match(self.text, self.at)):
            raise self.wrong(self.at, f"{self.peek()!r} repeats a repeat")
        if piece.nullable:
            raise self.wrong(quantifier, "a part that can be empty cannot be repeated")
        if any(operation == SAVE for operation, _, _ in piece.code):
            raise self.wrong(
                quantifier, "the group that captures cannot be repeated: put the repeat inside it"
            )
        if any(ord(character) > 127 for character in self.text[begin:quantifier][:1]):
            raise self.wrong(quantifier, "only ASCII characters can be repeated; put (?:...) around this one")
        return _Piece(_repeat(piece.code, least, most, lazy), least == 0)

    def atom(self, depth: int) -> _Piece:
        column, character = self.at, self.peek()
        self.at += 1
        if character == "(":
            return self.group(column, depth)
        if character == "[":
            return _Piece(self.bytes_of(self.brackets(column)), False)
        if character == ".":
            return _Piece(self.bytes_of(_ALL - {10}), False)
        if character == "\\":
            return _Piece(self.bytes_of(self.escape(column)), False)
        if character in _ANCHORS:
            raise self.wrong(column, f"{character!r}: anchors are not supported")
        if character in "?*+" or (character == "{" and _COUNTS.match(self.text, column)):
            raise self.wrong(column, f"{character!r} has nothing to repeat")
        if character == ")":
            raise self.wrong(column, "')' closes nothing")
        code = [step for byte in character.encode() for step in self.bytes_of(frozenset((byte,)))]
        return _Piece(code, False)

    def group(self, column: int, depth: int) -> _Piece:
        taken = True
        if self.text.startswith("?", self.at):
            if not self.text.startswith("?:", self.at):
                raise self.wrong(
                    column, f"'(?{self.text[self.at + 1 : self.at + 2]}' is not supported; (?:...) is"
                )
            self.at += 2
            taken = False
        elif self.grouped:
            raise self.wrong(column, "only one group can capture; write (?:...) for the others")
        self.grouped |= taken
        inside = self.choice(depth + 1)
        if self.peek() != ")":
            raise self.wrong(column, "'(' is not closed")
        self.at += 1
        if not taken:
            return inside
        return _Piece([(SAVE, 0, 0), *inside.code, (SAVE, 1, 0)], inside.nullable)

    def escape(self, column: int) -> Set:
        """Return the set of bytes of the escape whose backslash is at `column`."""
        letter = self.peek()
        self.at += 1
        if letter in _CLASSES:
            return _CLASSES[letter]
        if letter in _CONTROLS:
            return frozenset((_CONTROLS[letter],))
        if letter and letter in _PUNCTUATION:
            return frozenset((ord(letter),))
        what = "back references are" if letter.isdigit() else "this escape is"
        raise self.wrong(column, f"'\\{letter}': {what} not supported")

    def brackets(self, column: int) -> Set:
        inverted = self.peek() == "^"
        self.at += inverted
        taken: set[int] = set()
        first = True
        while first or self.peek() != "]":
            first = False
            low_column, low = self.at, self.one_of(column)
            if self.peek() == "-" and self.text[self.at + 1 : self.at + 2] not in ("]", ""):
                self.at += 1
                high = self.one_of(column)
                if len(low) != 1 or len(high) != 1 or min(low) > min(high):
                    raise self.wrong(low_column, "a range goes from one character up to another")
                taken |= set(range(min(low), min(high) + 1))
            else:
                taken |= low
        self.at += 1
        return _ALL - taken if inverted else frozenset(taken)

    def one_of(self, column: int) -> Set:
        here, character = self.at, self.peek()
        if not character:
            raise self.wrong(column, "'[' is not closed")
        self.at += 1
        if character == "\\":
            return self.escape(here)
        if ord(character) > 127:
            raise self.wrong(here, "a set may contain only ASCII characters")
        if character == "[":
            raise self.wrong(here, "write \\[ for a bracket in a set")
        return frozenset((ord(character),))


def _repeat(code: Code, least: int, most: int, lazy: bool) -> Code:
    """Return code that matches `code` `least` to `most` times (-1: any number), as few as possible if `lazy`."""
    if most < 0:
        size = len(code)
        choice = (SPLIT, size + 2, 1) if lazy else (SPLIT, 1, size + 2)
        return code * least + [choice, *code, (JUMP, -size - 1, 0)]
    result: Code = []
    for _ in range(most - least):
        size = len(code) + len(result)
        choice = (SPLIT, size + 1, 1) if lazy else (SPLIT, 1, size + 1)
        result = [choice, *code, *result]
    return code * least + result


def _beginnings(code: Sequence[tuple[int, int, int]], sets: Sequence[Set]) -> Set:
    """Return the bytes that a match can begin with; all bytes if it can be empty."""
    found: set[int] = set()
    waiting, seen = [0], set()
    while waiting:
        at = waiting.pop()
        if at in seen:
            continue
        seen.add(at)
        operation, a, b = code[at]
        if operation == MATCH:
            return _ALL
        if operation == BYTES:
            found |= sets[a]
        elif operation == SPLIT:
            waiting += [at + a, at + b]
        else:
            waiting.append(at + (a if operation == JUMP else 1))
    return frozenset(found)


def compile_pattern(text: str) -> Pattern:
    """Compile a pattern.

    UsageError if it is empty or too long, and, with the column, if a part is invalid or not supported.
    """
    if not text:
        raise UsageError("the pattern is empty", hint='write one such as "token=([0-9a-f]+)"')
    compiler = _Compiler(text)
    code = [*compiler.choice(0).code, (MATCH, 0, 0)]
    if len(code) >= PROGRAM_MAX:
        raise UsageError(
            f"the pattern {text!r} is too long: it has {len(code)} steps, and at most {PROGRAM_MAX - 1} are allowed",
            hint="a part with {n,m} counts m times",
        )
    sets = [*compiler.sets, _beginnings(code, compiler.sets)]
    absolute = [(JUMP, 1, len(sets) - 1)]
    for at, (operation, a, b) in enumerate(code, 1):
        if operation == SPLIT:
            absolute.append((operation, at + a, at + b))
        else:
            absolute.append((operation, at + a if operation == JUMP else a, b))
    table = np.zeros((len(sets), 256), np.uint8)
    for row, taken in enumerate(sets):
        table[row, list(taken)] = 1
    return Pattern(text, np.array(absolute, np.int32), table, compiler.grouped)
