"""Captures, cookie jars, checks and patches of the portable engine.

This is the plain-Python twin of `replay_native.http1.sessions`.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from replay.protocols.http1.session_spec import Rule, SessionSpec
from replay.protocols.http1.templates import ENCODINGS, Encode, encoded
from replay_native.http1 import sessions as kernels
from replay_native.http1.json_pointer import ABSENT
from replay_native.ledger.record import Evaluation

from .cookies import Jar, cookie_parts
from .json_pointer import find, value_of

_ENCODING: dict[int, Encode] = {number: name for name, number in ENCODINGS.items()}
_PERCENT_ENCODED = re.compile(rb"%(?:25)*([0-9A-Fa-f]{2})")


def link_of(value: bytes) -> bytes | None:
    """Return the link in a value, without its fragment.

    None if it could leave this target: it must begin with exactly one slash, and have no `//`, no backslash and no
    segment `..`, encoded or not.
    """
    link = value.partition(b"#")[0]
    plain = _PERCENT_ENCODED.sub(lambda match: bytes.fromhex(match[1].decode()), link)
    if not link.startswith(b"/") or b"\\" in plain or b"//" in plain:
        return None
    segments = re.split(rb"[/?&=#]", plain)
    return None if any(segment.partition(b";")[0] == b".." for segment in segments) else link


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete response. `headers` have lower-case names; `body` is None if it was longer than the limit."""

    status: int
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes | None
    size: int


class Sessions:
    """The values of every client of a lane.

    `counts` int64[rules, 2] and `refused` int64[rules] belong to the lane's metrics.
    """

    def __init__(
        self, spec: SessionSpec, counts: object, refused: npt.NDArray[np.int64] | None = None
    ) -> None:
        self._spec, self._counts = spec, counts
        self._refused = np.zeros(max(1, len(spec.rules)), np.int64) if refused is None else refused
        self._values: dict[tuple[int, int], bytes] = {}
        self._jars: dict[int, Jar] = {}

    def patched(self, entry: bytes, patches: int, client: int) -> bytes | None:
        """Return a request of the feed with its values filled in; None if a value is absent."""
        length = len(entry) - patches * kernels.PATCH_BYTES
        out, copied, length_at = bytearray(), 0, -1
        for at, what in struct.iter_unpack("<ii", entry[length:]):
            out += entry[copied:at]
            copied = at
            if what == kernels.LENGTH_SLOT:
                length_at = len(out)
                continue
            value = self._written(client, what & 0xFFFF, what >> 16)
            if value is None:
                return None
            out += value
        out += entry[copied:length]
        if length_at >= 0:
            out[length_at:length_at] = b"%d" % (len(out) - length_at - 4)
        return bytes(out)

    def _written(self, client: int, slot: int, encoding: int) -> bytes | None:
        if slot == kernels.JAR_SLOT:
            jar = self._jars.get(client)
            return b"Cookie: " + jar.text + b"\r\n" if jar is not None and jar.text else b""
        value = self._values.get((client, slot))
        return None if value is None else encoded(value, _ENCODING[encoding])

    def evaluate(
        self, client: int, route: int, answer: Answer, recorded: int, *, is_measured: bool
    ) -> Evaluation:
        """Apply the rules of a route to a response; see the kernel."""
        cut = self._take_cookies(client, answer) if self._spec.cookies else 0
        checks, failed = 0, -1
        for number in self._spec.route_rules[route]:
            rule = self._spec.rules[number]
            if rule.kind == kernels.CAPTURE:
                self._count(number, self._capture(number, client, rule, answer))
            elif is_measured:
                holds = self._holds(rule, answer, recorded)
                self._count(number, holds)
                checks += 1
                if not holds and failed < 0:
                    failed = number
        return Evaluation(checks, failed, cut)

    def _count(self, number: int, good: bool) -> None:
        self._counts[number, 0 if good else 1] += 1  # type: ignore[index]

    def _take_cookies(self, client: int, answer: Answer) -> int:
        jar = self._jars.setdefault(client, Jar(self._spec.slot_bytes[0]))
        return sum(not jar.put(value) for name, value in answer.headers if name == b"set-cookie")

    def _capture(self, number: int, client: int, rule: Rule, answer: Answer) -> bool:
        value, _ = self._find(rule, answer)
        if value is None or len(value) > self._spec.slot_bytes[rule.slot]:
            return False
        if any(byte < 32 or byte == 127 for byte in value):
            return False
        if rule.is_link:
            value = link_of(value)
            if value is None:
                self._refused[number] += 1
                return False
        self._values[client, rule.slot] = value
        return True

    def _find(self, rule: Rule, answer: Answer) -> tuple[bytes | None, bool]:
        """Return the value that a rule selects, and whether anything was found. A JSON object or array has no value."""
        if rule.source == kernels.HEADER:
            value = next((value for name, value in answer.headers if name == rule.name), None)
            return value, value is not None
        if rule.source == kernels.COOKIE:
            parts = [cookie_parts(value) for name, value in answer.headers if name == b"set-cookie"]
            values = [part[1] for part in parts if part is not None and part[0] == rule.name]
            return (values[-1] if values else None), bool(values)
        if answer.body is None:
            return None, False
        if rule.pattern is not None:
            group = rule.pattern.group(answer.body)
            return group, group is not None
        kind, _ = find(answer.body, rule.tokens)
        return value_of(answer.body, rule.tokens), kind != ABSENT

    def _holds(self, rule: Rule, answer: Answer, recorded: int) -> bool:
        if rule.source == kernels.STATUS:
            return bool((rule.text or b"")[answer.status])
        if rule.source == kernels.RECORDED_STATUS:
            return recorded in (0, answer.status)
        if rule.source == kernels.SIZE:
            return rule.low <= answer.size <= rule.high
        if rule.source == kernels.CONTAINS:
            return answer.body is not None and (rule.text or b"") in answer.body
        if rule.source == kernels.DIGEST:
            return answer.body is not None and hashlib.sha256(answer.body).digest() == rule.text
        value, there = self._find(rule, answer)
        return there if rule.text is None else value == rule.text
