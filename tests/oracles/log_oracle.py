"""The log scanner and its twin on the same lines; `one_case` is what `make fuzz` repeats."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from replay.trace.importing.readers.common import CommonLog
from replay.trace.importing.registry import Found, Options
from replay.trace.importing.sources import SourceFile
from tests.reference import log as naive_log
from tests.reference.log import Line

GOOD = b'10.0.0.7 - - [01/Aug/1995:02:00:00 -0400] "GET /a?b=1 HTTP/1.0" 200 1713'


class Memory(SourceFile):
    """Lines in memory, one block."""

    def __init__(self, data: bytes) -> None:
        self.name, self._data, self.wrapper = "memory", data, ""

    def blocks(self) -> Iterator[tuple[npt.NDArray[np.uint8], int]]:
        yield np.frombuffer(bytearray(self._data), dtype=np.uint8), len(self._data)


def scan(lines: list[bytes], *, keep_secrets: bool = False) -> tuple[list[Line], dict[str, int], Found]:
    """What the scanner makes of lines: the good ones (client hashes as numbers), and counts of the others."""
    found = Found()
    reader = CommonLog(found, Options(keep_secrets=keep_secrets))
    good = []
    clients: dict[int, bytes] = {}
    for rows in reader.read(Memory(b"".join(line + b"\n" for line in lines))):
        for i in range(len(rows.at_ns)):
            client = clients.setdefault(int(rows.client_hash[i]), b"%d" % len(clients))
            host = reader.hosts[rows.host[i]] if rows.host[i] >= 0 else ""
            target = rows.data[rows.offsets[i] : rows.offsets[i + 1]].tobytes()
            seconds, rest = divmod(int(rows.at_ns[i]), 1_000_000_000)
            assert rest == 0
            method = reader.methods[rows.method[i]]
            good.append(Line(seconds, method, target, host, client, int(rows.status[i]), int(rows.bytes[i])))
    return good, dict(found.rejects.counts), found


def expected(lines: list[bytes], *, keep_secrets: bool = False) -> tuple[list[Line], dict[str, int]]:
    """The same by the twin, clients numbered by first appearance."""
    good: list[Line] = []
    counts: dict[str, int] = {}
    clients: dict[bytes, bytes] = {}
    for line in lines:
        read = naive_log.read_line(line.removesuffix(b"\r"), keep_secrets=keep_secrets)
        if isinstance(read, str):
            counts[read] = counts.get(read, 0) + 1
        else:
            client = clients.setdefault(read.client, b"%d" % len(clients))
            good.append(Line(read.at_s, read.method, read.target, read.host, client, read.status, read.size))
    return good, counts


_PIECES = [
    b'"', b"\\", b"[", b"]", b" ", b"-", b" - - ", b"HTTP/1.1", b"?token=a", b"&key=b", b";sid=c", b"http://h/",
    b"\\x41", b"29/Feb/2024", b"+0530", b"\x00", b"\xff", b"/", b"%5B", b"200", b"\r", b"\t",
    b"9" * 20, b"\n",
]  # fmt: skip


def _mutated(rng: random.Random) -> bytes:
    line = bytearray(GOOD + b' "http://referer/?a=b" "agent (x; y)"')
    for _ in range(rng.randrange(5)):
        at = rng.randrange(len(line) + 1)
        piece = rng.choice(_PIECES) if rng.random() < 0.7 else rng.randbytes(rng.randrange(1, 9))
        line[at : at + rng.choice((0, 0, 1, len(piece)))] = piece
    return bytes(line).partition(b"\n")[0]


def one_case(seed: int) -> str:
    """Mutated lines by seed; where the scanner and the twin differ, in words."""
    rng = random.Random(seed)
    lines = [_mutated(rng) for _ in range(20)]
    keep_secrets = rng.random() < 0.2
    good, counts, _ = scan(lines, keep_secrets=keep_secrets)
    wanted = expected(lines, keep_secrets=keep_secrets)
    return "" if (good, counts) == wanted else f"{lines}: {(good, counts)} is not {wanted}"


_NAMES = [
    b"token", b"key", b"Token1", b"x-user-1", b"value", b"v", b"name", b"sid", b"page", b"q", b"password_", b"a", b"[token]",
    b"t%6fken", b"cookie", b"X-Real-IP", b"%74oken%31", b"auth$", b"set-cookie", b"session.id", b"code%5B%5D", b"phone",
    b"k", b"\xc3\xa4key", b"a" * 130 + b"_token", b"param",
]  # fmt: skip
_OPERATORS = [
    b"=", b":", b"%3D", b"%3a", b"%253D", b"%22:%22", b'\\":\\"', b"=%22", b"\\x22:", b"=>", b"%3A+", b": ", b"='",
    b"&quot;:", b"&#34;=", b"%20=%20", b"+=+", b"=%7B", b":[", b"=[", b"%5Cu003d", b"\\u003d", b"\\x3d",
]  # fmt: skip
_VALUES = [
    b"abc123", b"x", b"Bearer%20abc1", b"basic+Zm9v", b"Token abc1", b"eyJhbGciOiJI.eyJz.x", b"a@b.de", b"a%40b.example.org",
    b"4111111111111111", b"4111-1111-1111-1111", b"4111 1111 1111 1111", b"+491701234567", b"%2B49%20170%20123%204567",
    b"%2b49.170.1234567", b"(555) 123-4567", b"(555)123-4567", b"DE89370400440532013000", b"GB82 WEST 1234 5698 7654 32",
    b"12:30:00", b"http://u:p@h/x", b"//u:p@h", b"%2F%2Fu:p@h", b"null", b"12", b"REDACTED", b"{}",
    b"AWS4-HMAC-SHA256:Cred1", b"ntlm%2520TlR1", b"logo@2x.png", b"a\\u0040b.de", b"\\x40", b"1700000000123",
    b"2024-01-01T12:30:00Z",
]  # fmt: skip
_SEPARATORS = [
    b"?", b"&", b";", b"/", b"#", b"%26", b"%3B", b"%2526", b"", b"", b" ", b"%20", b"+", b",", b"{", b"}", b"[", b"]",
    b"%22", b"'", b"%0a", b"\\n", b"(", b"%27", b"\\x26",
]  # fmt: skip


def _target(rng: random.Random) -> bytes:
    """A target of names, operators and values, most of them of secrets or people."""
    target = b"/"
    for _ in range(rng.randrange(1, 5)):
        target += rng.choice(_SEPARATORS)
        for words in (_NAMES, _OPERATORS, _VALUES):
            if rng.random() < 0.8:
                target += rng.choice(words)
        if rng.random() < 0.1:
            target += rng.randbytes(2).replace(b"\n", b"")
    return target


def target_case(seed: int) -> str:
    """Targets with secrets, each in a line: what the scanner leaves as it is, the cleaner would leave too."""
    rng = random.Random(seed)
    lines = [GOOD.replace(b"/a?b=1", _target(rng)) for _ in range(20)]
    good, counts, _ = scan(lines)
    wanted = expected(lines)
    return "" if (good, counts) == wanted else f"{lines}: {(good, counts)} is not {wanted}"
