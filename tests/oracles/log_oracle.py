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
