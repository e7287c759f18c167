"""Mutated files of every format: an import ends with a trace whose accounts balance, or with a refusal in words.

Tables and JSON lines are also held against the standard library: what it writes or reads, the cutters read alike.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import tempfile
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from replay.errors import ReplayError
from replay.trace.importing import Found, Options, importers
from replay.trace.importing.formats.gor import SEPARATOR, GorReader
from replay.trace.importing.pipeline import import_files
from replay.trace.importing.readers.fields import FieldReader
from replay.trace.importing.readers.tabular import JsonReader, TableReader
from replay.trace.importing.registry import EndsLate, Rows
from replay.trace.importing.showing import showable
from replay.trace.importing.sources import HEAD_BYTES, SourceFile
from tests.importing.test_records import (
    GET,
    POST,
    _entry,
    gor,
)
from tests.importing.test_servers import EXAMPLES
from tests.support.packets import Connection, pcapng, request, response

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
    seeds["csv"] = (
        b'at,method,path,status,x\n1700000000.5,GET,"/a""b",200,\n1700000001,PUT,/b,,"c\r\n""d\n"\n',
        "",
    )
    seeds["tsv"] = seeds["csv"][0].replace(b",", b"\t"), ""
    seeds["jsonl"] = (
        b'{"at":1700000000.5,"path":"/a","x":{"y":[1,"}"]}}\n{"at":"2023-11-14T22:13:20Z","path":"/"}\n',
        "",
    )
    made = (
        Connection()
        .open()
        .ask(request("/a", "POST", b"x" * 40))
        .answer(response(200, b"y" * 90, chunked=True))
    )
    frames = (
        made.ask(request("/b") + request("/c", "HEAD"))
        .answer(response() + response(304, b""))
        .close()
        .frames()
    )
    seeds["pcap"] = pcapng(frames, dropped=1) + pcapng(frames, order=">", resolution=6), ""
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
        parts = chain(reader.read(file), reader.rows_at_end() if isinstance(reader, EndsLate) else ())  # type: ignore[attr-defined]
        for part in parts:
            rows += len(part.at_ns)
            targets = part.data[: part.offsets[len(part.at_ns)]]
            if ((targets < 33) | (targets > 126)).any():
                return f"{name}: a target that cannot be sent: {targets.tobytes()!r}"
    except ReplayError:
        _readers.pop(name)
        return ""
    if isinstance(reader, EndsLate):
        _readers.pop(name)
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


def _shuffled(rng: random.Random, value: dict[str, object]) -> dict[str, object]:
    items = list(value.items())
    rng.shuffle(items)
    return dict(items)


def json_case(seed: int) -> str:
    """Random objects, each much like the one before, whose target is the string at p.u: read as json.loads reads them."""
    rng = random.Random(seed)
    value: dict[str, object] = {"a": 0, "p": {"z": 0, "u": "/", "w": 0}, "b": 0, "at": 0}
    lines, wanted = [], []
    for _ in range(rng.randrange(1, 6)):
        inner = value["p"]
        assert isinstance(inner, dict)
        target = "/" + "".join(rng.choice('ab/"\\ é€😀\n\t\x7f%') for _ in range(rng.randrange(10)))
        inner["u"], value["at"] = target, 1700000000 + rng.randrange(99)
        for place, key in ((value, "a"), (value, "b"), (inner, "z"), (inner, "w")):
            if rng.random() < 0.4:
                place[key] = _random_value(rng, 0 if place is value else 1)
        if rng.random() < 0.3:
            value = _shuffled(rng, {**value, "p": _shuffled(rng, inner)})
        separators = rng.choice([(",", ":")] * 3 + [(", ", " : ")])
        lines.append(json.dumps(value, ensure_ascii=rng.random() < 0.5, separators=separators) + "\n")
        wanted.append(
            b"".join(
                bytes([byte]) if 33 <= byte <= 126 else b"%%%02X" % byte
                for byte in target.strip(" ").encode()
            )
        )
    found, text = Found(), "".join(lines).encode()
    reader = JsonReader(found, Options(columns=(("at", "at"), ("path", "p.u"))))
    reader.probe(text)
    got = [
        bytes(part.data[part.offsets[row] : part.offsets[row + 1]])
        for part in reader.read(InMemory(text))
        for row in range(len(part.at_ns))
    ]
    return "" if got == wanted else f"{text!r}: {got} is not {wanted!r}: {found.rejects.counts}"


class _InBlocks(InMemory):
    """A file in memory, in blocks of whole lines: a share of them end a block."""

    def __init__(self, data: bytes, rng: random.Random, share: float = 0.5) -> None:
        super().__init__(data if data.endswith(b"\n") else data + b"\n")
        self._rng, self._share = rng, share

    def blocks(self) -> Iterator[tuple[npt.NDArray[np.uint8], int]]:
        held = b""
        for line in self._data.split(b"\n")[:-1]:
            held += line + b"\n"
            if self._rng.random() < self._share:
                yield np.frombuffer(bytearray(held) + bytearray(64), dtype=np.uint8), len(held)
                held = b""
        if held:
            yield np.frombuffer(bytearray(held) + bytearray(64), dtype=np.uint8), len(held)


_TABLE = Options(columns=(("at", "at"), ("path", "path"), ("client", "who")))


def _read_table(file: InMemory) -> tuple[list[tuple[int, bytes]], Found]:
    found = Found()
    reader = TableReader(found, _TABLE, ",")
    reader.probe(b"at,x,path,who\n1700000000,,/,\n")
    rows = [
        (int(part.at_ns[i]) // 10**9, part.data[part.offsets[i] : part.offsets[i + 1]].tobytes())
        for part in reader.read(file)
        for i in range(len(part.at_ns))
    ]
    return rows, found


def _sent(path: str) -> bytes:
    return b"".join(bytes([byte]) if 33 <= byte <= 126 else b"%%%02X" % byte for byte in path.encode())


def records_case(seed: int) -> str:
    """A table as the standard library writes it, line breaks and quotes in its fields: read as it was written."""
    rng = random.Random(seed)
    text = io.StringIO(newline="")
    quoting: Literal[0, 1] = rng.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
    writer = csv.writer(text, lineterminator=rng.choice(("\n", "\r\n")), quoting=quoting)
    writer.writerow(["at", "x", "path", "who", "y\n"])
    wanted = []
    for number in range(rng.randrange(1, 20)):
        x, path, who, y = (
            "".join(rng.choice('ab,"\n\r \u00e9;') for _ in range(rng.randrange(9))) for _ in range(4)
        )
        path = f"/{path}."
        writer.writerow([1700000000 + number, f"a{x}", path, f"b{who}.", f"a{y}"])
        wanted.append((1700000000 + number, _sent(path)))
    data = text.getvalue().encode()
    rows, found = _read_table(_InBlocks(data, rng))
    return "" if rows == wanted else f"{data!r}: {rows} is not {wanted}: {found.rejects.counts}"


def cut_case(seed: int) -> str:
    """A mutated table, in one block and in many: the same rows and rejects, whose line numbers are those of the file."""
    rng = random.Random(seed)
    lines = [b'1700000000,"a\r\n""b\n",/a,"c"\n', b'1700000001,,"/b\n/c",d\r\n', b"1700000002,x,/e,f\n"]
    data = b"".join(rng.choice(lines) for _ in range(rng.randrange(1, 9)))
    data = b"at,x,path,who\n" + _mutated(rng, data)
    found_in = []
    for share in (0, 0.5):
        rows, found = _read_table(_InBlocks(data, rng, share))
        rejects = found.rejects
        found_in.append(
            (rows, rejects.lines, rejects.counts, sorted(rejects.examples, key=lambda shown: shown.line))
        )
    if found_in[0] != found_in[1]:
        return f"{data!r}: {found_in[0]} is not {found_in[1]}"
    if len(rows) + sum(rejects.counts.values()) != rejects.lines:
        return f"{data!r}: {len(rows)} rows and {rejects.counts} of {rejects.lines} lines"
    for shown in rejects.examples:
        line = data.split(b"\n")[shown.line - 1].rstrip(b"\r")
        # A secret in an example is replaced, and a record may continue on the next line.
        before, begin = shown.text.partition("REDACTED")[0], showable(line, 9)
        compared = min(4, len(before), len(begin))
        if before[:compared] != begin[:compared]:
            return f"{data!r}: line {shown.line} is not {shown.text!r}"
    return ""


_LOGS_IN_JSON = (
    "caddy", "envoy-json", "nginx-json", "traefik-json", "gcp-lb", "cloudflare", "azure-front-door", "azure-app-gateway",
    "ecs", "kong", "pino", "api-gateway", "envoy-gateway", "cloudfront-json",
)  # fmt: skip


def _read_lines(reader: FieldReader, data: bytes) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    for part in reader.read(InMemory(data)):
        assert part.took_ns is not None
        for i in range(len(part.at_ns)):
            target = part.data[part.offsets[i] : part.offsets[i + 1]].tobytes()
            host = reader.hosts[part.host[i]] if part.host[i] >= 0 else ""
            numbers = (part.at_ns[i], part.status[i], part.took_ns[i], part.bytes[i], part.client_hash[i])
            rows.append((*map(int, numbers), reader.methods[part.method[i]], target, host))
    return rows


def alike_case(seed: int) -> str:
    """Lines of a JSON log, whole and mutated, one much like the next: read together as each is read alone."""
    rng = random.Random(seed)
    name = rng.choice(_LOGS_IN_JSON)
    whole = SEEDS[name][0].splitlines()
    lines = [rng.choice(whole)]
    for _ in range(rng.randrange(1, 8)):
        before = rng.choice(lines)
        lines.append((before if rng.random() < 0.3 else _mutated(rng, before)).replace(b"\n", b" "))
    found, reader = _fresh(name, "")
    assert isinstance(reader, FieldReader)
    reader.probe(b"\n".join(whole) + b"\n")
    together = _read_lines(reader, b"\n".join(lines) + b"\n")
    alone = []
    for line in lines:
        reader.use(reader.layout)
        alone += _read_lines(reader, line + b"\n")
    return "" if together == alone else f"{name}: {lines}: {together} is not {alone}: {found.rejects.counts}"


def _naive_pairs(line: str) -> dict[str, str] | None:
    """The pairs of a line of logfmt, as its cutter takes them; None where a quote does not close."""
    found: dict[str, str] = {}
    while line:
        if line[0] == " ":
            line = line[1:]
            continue
        word = line.split(" ", 1)[0]
        key, equals, _ = word.partition("=")
        if not equals or not key:
            line = line[max(len(key), 1) :]
            continue
        line = line[len(key) + 1 :]
        if line.startswith('"'):
            end = 1
            while end < len(line) and line[end] != '"':
                end += 2 if line[end] == "\\" else 1
            if end >= len(line):
                return None
            value, line = line[1:end], line[end + 1 :]
        else:
            value = line.split(" ", 1)[0]
            line = line[len(value) :]
        found.setdefault(key, value)
    return found


def pairs_case(seed: int) -> str:
    """A line of words, pairs and quotes: what the cutter takes for the path is what plain Python takes."""
    rng = random.Random(seed)
    parts = ["path", "at", "x", "=", " ", " ", '"', "/a", "b", "7", "\\", "=/q", 'path="/c d"', "path=/e"]
    line = "at=1700000000 " + "".join(rng.choice(parts) for _ in range(rng.randrange(14)))
    pairs = _naive_pairs(line)
    path = (pairs or {}).get("path", "").strip(" ")
    wanted = path if path.startswith("/") else ""
    options = Options(columns=(("at", "at"), ("path", "path")))
    reader = importers()["logfmt"].reader(Found(), options)
    reader.probe(b"at=1700000000 path=/x\n")
    got = [
        part.data[part.offsets[i] : part.offsets[i + 1]].tobytes()
        for part in reader.read(InMemory(line.encode() + b"\n"))
        for i in range(len(part.at_ns))
    ]
    if "\\" in wanted:
        return "" if len(got) <= 1 else f"{line!r}: {got}, more than one row"
    sent = [wanted.replace(" ", "%20").encode()] if wanted else []
    return "" if got == sent else f"{line!r}: {got} is not {sent}"


_CADDY_HEADERS = {
    "Accept": ["*/*", "text/html,application/xhtml+xml"], "Referer": ["", 'https://h/a"b', "https://h/" + "x" * 300],
    "User-Agent": ["curl/8", "kube-probe/1.29", "Mozilla/5.0 (X11; Linux x86_64)"], "Te": ["trailers"], "X": ["}", "]"],
    "Cookie": ["REDACTED"], "Accept-Encoding": ["gzip, br", "br"],
}  # fmt: skip


def orders_case(seed: int) -> str:
    """Many lines of Caddy's, whose headers come in any order, as Go's maps do: read as json.loads reads them."""
    rng = random.Random(seed)
    lines, wanted = [], []
    for number in range(rng.randrange(2, 80)):
        names = rng.sample(sorted(_CADDY_HEADERS), rng.randrange(len(_CADDY_HEADERS) + 1))
        headers = {name: [rng.choice(_CADDY_HEADERS[name])] * rng.choice((1, 1, 1, 2)) for name in names}
        request = {
            "remote_port": str(rng.randrange(9)),
            "method": "GET",
            "uri": f"/{number % 7}",
            "headers": headers,
        }
        value: dict[str, Any] = {
            "level": "info", "ts": 1_700_000_000 + number, "request": request, "bytes_read": rng.choice((0, 0, 7)),
            "duration": 0.25, "size": rng.randrange(99), "status": 200, "resp_headers": headers,
        }  # fmt: skip
        if rng.random() < 0.1:
            value = _shuffled(rng, value)
        lines.append(json.dumps(value, separators=(",", ":")).encode())
        if not headers.get("User-Agent", [""])[0].startswith("kube-probe/"):
            wanted.append((value["ts"], f"/{number % 7}".encode(), value["size"]))
    found, reader = _fresh("caddy", "")
    assert isinstance(reader, FieldReader)
    data = b"\n".join(lines) + b"\n"
    reader.probe(data)
    got = [(row[0] // 10**9, row[6], row[3]) for row in _read_lines(reader, data)]
    return "" if got == wanted else f"{lines}: {got} is not {wanted}: {found.rejects.counts}"


def _plain_part(rng: random.Random, number: int) -> bytes:
    """A request or a response, plain or not."""
    name = b"%x" % (number // 2 if rng.random() < 0.9 else rng.randrange(9))
    at = 1_700_000_000_000_000_000 + number
    if rng.random() < 0.55:
        method, target = rng.choice([b"GET", b"POST", b"x", b"A1"]), rng.choice(_TARGETS)
        line = b"%s %s %s" % (method, target, rng.choice([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2", b""]))
        return b"1 %s %d%s\n%s\r\n%s" % (name, at, rng.choice([b"", b" 0", b" -1"]), line, _message(rng))
    line = rng.choice([b"HTTP/1.1 200 OK", b"HTTP/1.1 404 ", b"HTTP/1.1 20", b"HTTP/1.1 007 X", b"nonsense"])
    kind = rng.choice([b"2", b"2", b"2", b"3"])
    return b"%s %s %d %d\n%s\r\n%s" % (kind, name, at, rng.choice([0, 5, -5, 10**9]), line, _message(rng))


_TARGETS = [
    b"/a",
    b"/a?b=1&token=x",
    b"/a b",
    b"http://H.x/p",
    b"*",
    b"x",
    b"/\xe9",
    b"/a;jsessionid=1?c",
    b"/a\\x41",
]
_HEADERS = [
    b"Host: H.example", b"hOST:\th:80 ", b"Host: a b", b"Host:", b"Content-Length: 3", b"content-length: 99",
    b"Content-Length: x", b"Transfer-Encoding: chunked", b"Cookie: a=b", b"X-A: 1", b"Accept:*/*", b"no colon",
]  # fmt: skip


def _message(rng: random.Random) -> bytes:
    headers = b"".join(
        rng.choice(_HEADERS) + rng.choice([b"\r\n"] * 9 + [b"\n"]) for _ in range(rng.randrange(5))
    )
    return (
        headers
        + rng.choice([b"\r\n", b"\r\n", b"\r\n", b""])
        + rng.choice([b"", b"abcdef", b"3\r\nabc\r\n0\r\n\r\n"])
    )


class _Slowly(GorReader):
    """Reads every record as one that is out of the ordinary."""

    def read(self, file: SourceFile) -> Iterator[Rows]:
        *whole, last = b"".join(map(bytes, file.stream())).split(SEPARATOR)
        parts = enumerate(filter(None, [*whole, last if last.strip() else b""]), 1)
        yield from self.rows(self._records(file, parts))
        yield from self._end_file(file)


def _all_of(
    reader: GorReader, found: Found, file: SourceFile
) -> tuple[list[tuple[object, ...]], dict[str, int]]:
    rows = []
    for part in reader.read(file):
        for i in range(len(part.at_ns)):
            target = part.data[part.offsets[i] : part.offsets[i + 1]].tobytes()
            assert part.headers is not None
            assert part.body is not None
            assert part.took_ns is not None
            host = reader.hosts[part.host[i]] if part.host[i] >= 0 else ""
            headers = part.header_sets[part.headers[i]] if part.headers[i] >= 0 else ()
            body = part.bodies[part.body[i]] if part.body[i] >= 0 else b""
            has_response = part.response is not None and part.response[i] >= 0
            response = repr(part.responses[part.response[i]]) if has_response else ""  # type: ignore[index]
            answer = (int(part.status[i]), int(part.took_ns[i]), int(part.bytes[i]), response)
            rows.append(
                (int(part.at_ns[i]), reader.methods[part.method[i]], target, host, headers, body, answer)
            )
    return sorted(rows), dict(found.rejects.counts)


_gor_readers: dict[type[GorReader], tuple[Found, GorReader]] = {}


def gor_case(seed: int) -> str:
    """Records plain and odd, near their responses and far: read by kernels as they are read one by one."""
    rng = random.Random(seed)
    parts = [_plain_part(rng, number) for number in range(rng.randrange(30))]
    data = (
        _mutated(rng, SEPARATOR.join([*parts, b""])) if rng.random() < 0.5 else SEPARATOR.join([*parts, b""])
    )
    read = []
    for kind in (GorReader, _Slowly):
        if kind not in _gor_readers or seed % 64 == 0:
            found = Found()
            _gor_readers[kind] = found, kind(found, Options())
        found, reader = _gor_readers[kind]
        found.rejects.counts.clear()
        read.append(_all_of(reader, found, InMemory(data)))
    return "" if read[0] == read[1] else f"{data!r}: {read[0]} is not {read[1]}"
