"""Mutated files of every format: an import ends with a trace whose accounts balance, or with a refusal in words.

JSON lines are also held against the standard library: what it reads as this object, the cutter reads alike.
"""

from __future__ import annotations

import gzip
import json
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from replay.errors import ReplayError
from replay.formats import Found, Options, importers
from replay.formats.importing import import_files
from replay.formats.sources import HEAD_BYTES, SourceFile
from replay.formats.tabular import JsonReader

from .test_formats_records import GET, POST, _entry, gor
from .test_formats_servers import EXAMPLES

_PIECES = [
    b'"', b"\\", b"[", b"]", b" ", b"-", b",", b"\t", b"{", b"}", b":", b"\n", b"\r\n", b"\x00", b"\xff", b"\\u00e9",
    b"\\ud83d", b"null", b"-1", b"9" * 20, b"1e9", b"1969-12-31", b"2300-01-01", b"\xf0\x9f\x90\xb5", b"#Fields: date",
    b"HTTP/1.1", b"http://h/", b"?token=a", b"Z", b"+0100", b".5", b"\x16\x03\x01",
]  # fmt: skip


def _seeds() -> dict[str, tuple[bytes, str]]:
    """By format a good file, and the log_format that reads it."""
    seeds = {example.format: (example.lines.encode(), example.log_format) for example in EXAMPLES}
    at = 1_700_000_000_000_000_000
    seeds["gor"] = (
        gor((f"1 aa {at}", GET), (f"2 aa {at} 5", b"HTTP/1.1 200 OK\r\n\r\n"), (f"1 ab {at}", POST)),
        "",
    )
    seeds["har"] = (json.dumps({"log": {"entries": [_entry(0), _entry(1)]}}).encode(), "")
    seeds["vegeta"] = (b'{"method":"POST","url":"http://h/a","body":"aGk=","header":{"A":["b"]}}\n' * 2, "")
    seeds["csv"] = (b'at,method,path,status\n1700000000.5,GET,"/a""b",200\n1700000001,PUT,/b,\n', "")
    seeds["tsv"] = seeds["csv"][0].replace(b",", b"\t"), ""
    seeds["jsonl"] = (
        b'{"at":1700000000.5,"path":"/a","x":{"y":[1,"}"]}}\n{"at":"2023-11-14T22:13:20Z","path":"/"}\n',
        "",
    )
    return seeds


SEEDS = _seeds()


def _mutated(rng: random.Random, data: bytes) -> bytes:
    mutated = bytearray(data)
    for _ in range(rng.randrange(6)):
        at = rng.randrange(len(mutated) + 1)
        piece = rng.choice(_PIECES) if rng.random() < 0.7 else rng.randbytes(rng.randrange(1, 9))
        mutated[at : at + rng.choice((0, 0, 1, len(piece), 40))] = piece
    return bytes(mutated)


class InMemory(SourceFile):
    """A file that is only in memory, in blocks of whole lines."""

    def __init__(self, data: bytes) -> None:
        self.name, self.compression, self.wrapper, self.damaged, self._data = "memory", "", "", "", data
        self.head, self.bytes_done, self.bytes_total = data[:HEAD_BYTES], 0, len(data)

    def blocks(self) -> Iterator[tuple[npt.NDArray[np.uint8], int]]:
        data = self._data if self._data.endswith(b"\n") else self._data + b"\n"
        yield np.frombuffer(bytearray(data) + bytearray(64), dtype=np.uint8), len(data)

    def stream(self) -> Iterator[memoryview]:
        yield memoryview(bytearray(self._data))


_readers: dict[str, tuple[Found, object]] = {}


def _fresh(name: str, log_format: str) -> tuple[Found, object]:
    found = Found()
    return found, importers()[name].reader(found, Options(log_format=log_format))


def one_case(seed: int, name: str = "") -> str:
    """A mutated file of a format (of some, where none is named), read in memory; what was wrong, in words."""
    rng = random.Random(seed)
    name = name or rng.choice(sorted(SEEDS))
    data, log_format = SEEDS[name]
    file = InMemory(_mutated(rng, data) or b"\n")
    if name not in _readers or seed % 64 == 0:
        _readers[name] = _fresh(name, log_format)
    found, reader = _readers[name]
    rejects = found.rejects
    rejects.examples.clear()
    lines, rejected, rows = rejects.lines, sum(rejects.counts.values()), 0
    try:
        reader.probe(file.head)  # type: ignore[attr-defined]
        for part in reader.read(file):  # type: ignore[attr-defined]
            rows += len(part.at_ns)
            targets = part.data[: part.offsets[len(part.at_ns)]]
            if ((targets < 33) | (targets > 126)).any():
                return f"{name}: a target that cannot be sent: {targets.tobytes()!r}"
    except ReplayError:
        _readers.pop(name)
        return ""
    new = sum(rejects.counts.values()) - rejected
    read = rejects.lines - lines
    return (
        "" if rows + new == read else f"{name}: {rows} rows and {new} rejected of {read} lines: {file.head!r}"
    )


def whole_import(seed: int) -> str:
    """A mutated file on disk, perhaps packed and cut, imported with detection as a user does."""
    rng = random.Random(seed)
    data, log_format = SEEDS[rng.choice(sorted(SEEDS))]
    data = _mutated(rng, data * rng.choice((1, 3)))
    if rng.random() < 0.3:
        data = gzip.compress(data)[: rng.randrange(10, 400)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.log")
        path.write_bytes(data)
        try:
            manifest = import_files(
                [path], Path(folder, "a.trace"), options=Options(log_format=log_format)
            ).manifest
        except ReplayError as error:
            return "" if str(error) else "a refusal without words"
    balanced = manifest.rows + sum(manifest.rejected.values()) == manifest.lines
    return "" if balanced else f"{manifest.rows} + {manifest.rejected} is not {manifest.lines}: {data!r}"


def _random_value(rng: random.Random, depth: int) -> object:
    kind = rng.randrange(9 if depth < 3 else 6)
    if kind < 2:
        return "".join(rng.choice('ab/"\\{}[],: é€😀\n\t\x7f?=&') for _ in range(rng.randrange(8)))
    if kind < 6:
        return rng.choice([None, True, False, 0, -3, 1.5, 1e300, 10**15])
    if kind < 8:
        keys = ["p", "at", "x.y", 'q"', "é"]
        return {rng.choice(keys): _random_value(rng, depth + 1) for _ in range(rng.randrange(4))}
    return [_random_value(rng, depth + 1) for _ in range(rng.randrange(3))]


def json_case(seed: int) -> str:
    """A random object whose target is the string at p.u: read as json.loads reads it."""
    rng = random.Random(seed)
    target = "/" + "".join(rng.choice('ab/"\\ é€😀\n\t\x7f%') for _ in range(rng.randrange(10)))
    inner = {"z": _random_value(rng, 1), "u": target, "w": _random_value(rng, 1)}
    value = {
        "a": _random_value(rng, 0),
        "p": inner,
        "b": _random_value(rng, 0),
        "at": 1700000000 + rng.randrange(99),
    }
    items = list(value.items())
    rng.shuffle(items)
    text = json.dumps(
        dict(items), ensure_ascii=rng.random() < 0.5, separators=rng.choice([(",", ":"), (", ", " : ")])
    )
    found = Found()
    reader = JsonReader(found, Options(columns=(("at", "at"), ("path", "p.u"))))
    reader.probe(text.encode())
    got = [bytes(part.data[: part.offsets[1]]) for part in reader.read(InMemory(text.encode()))]
    wanted = b"".join(
        bytes([byte]) if 33 <= byte <= 126 else b"%%%02X" % byte for byte in target.strip(" ").encode()
    )
    return "" if got == [wanted] else f"{text}: {got} is not {wanted!r}: {found.rejects.counts}"
