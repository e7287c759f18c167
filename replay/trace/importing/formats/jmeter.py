"""JMeter's results (JTL), as CSV and as XML.

`timeStamp` (`ts`) is the start of a sample, because JMeter's jmeter.properties sets
sampleresult.timestamp.start=true; `elapsed` (`t`) is its duration in ms. `URL` holds a sample's URL; the label is
only a display name. The CSV has no method, so every sample is taken as a GET. In XML a sample may contain others
(redirects, embedded resources): the innermost ones are the requests. A thread is a client.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from xml.parsers import expat

from replay.trace.importing.readers.records import Record, RecordReader
from replay.trace.importing.readers.tabular import TableReader, delimiter_of, header_fields
from replay.trace.importing.registry import (
    Found,
    Importer,
    Options,
    Probe,
    Rows,
    importer,
)
from replay.trace.importing.sources import SourceFile

_MS_NS = 1_000_000
_DELIMITERS = ",;\t"
_COLUMNS = {
    "timeStamp": "at_ms",
    "elapsed": "took_ms",
    "responseCode": "status",
    "threadName": "client",
    "bytes": "bytes",
    "URL": "path",
}
_NEEDED = {"timeStamp", "elapsed", "label", "URL"}
_XML = re.compile(rb"\s*(?:<\?xml[^>]*>\s*)?<testResults\b")
_FIRST = re.compile(rb'<httpSample\b[^>]*? ts="(\d{1,15})"')
_TEXTS = ("method", "java.net.URL")
_TEXT_MAX = 1 << 16


@dataclass(slots=True)
class _Sample:
    """An HTTP sample, and whether it has no nested samples."""

    attributes: dict[str, str]
    texts: dict[str, str] = field(default_factory=dict)
    innermost: bool = True


def _names(head: bytes) -> list[str]:
    return header_fields(head, delimiter_of(head, _DELIMITERS))


def sniff(head: bytes, options: Options) -> float:
    """Return 1 if the first line has JMeter's columns, including the URL, otherwise 0; 0 with `--columns`."""
    return 1.0 if not options.columns and set(_names(head)) >= _NEEDED else 0.0


class JmeterReader(TableReader):
    """Reads results as CSV."""

    takes_columns = False

    def __init__(self, found: Found, options: Options) -> None:
        super().__init__(found, options, _DELIMITERS)

    def _take(self, head: bytes, where: str) -> None:
        names = set(_names(head))
        columns = [(role, name) for name, role in _COLUMNS.items() if name in names]
        self._options = replace(self._options, columns=tuple(columns))
        super()._take(head, where)


def sniff_xml(head: bytes, options: Options) -> float:
    """Return 1 if the head begins XML results, otherwise 0."""
    return 1.0 if _XML.match(head) else 0.0


def _number(text: str | None) -> int:
    return int(text) if text is not None and re.fullmatch(r"\d{1,15}", text) else -1


class JmeterXmlReader(RecordReader):
    """Reads results as XML, piece by piece."""

    def probe(self, head: bytes) -> Probe:
        """Return the start of the first HTTP sample in the head (None if it has none), and a resolution of 1 ms."""
        found = _FIRST.search(head)
        return Probe(int(found[1]) * _MS_NS if found else None, _MS_NS)

    def read(self, file: SourceFile) -> Iterator[Rows]:
        """Yield the rows of one file."""
        yield from self.rows(self._records(file))

    def _records(self, file: SourceFile) -> Iterator[Record]:
        rejects = self._found.rejects
        for number, sample in enumerate(_samples(file), 1):
            rejects.lines += 1
            if sample is None:
                rejects.add("damaged XML", file.name, number, b"")
                return
            record = _record(sample)
            if not record.method:
                self._found.assume("samples that name no method: GET is taken")
                record = replace(record, method="GET")
            why = "bad time" if record.at_ns < 0 else self.wrong(record)
            if why:
                rejects.add(why, file.name, number, repr(sample.attributes).encode()[:400])
            else:
                yield record


def _record(sample: _Sample) -> Record:
    get, texts = sample.attributes.get, sample.texts
    at_ms, took_ms, status = _number(get("ts")), _number(get("t")), _number(get("rc"))
    return Record(
        at_ns=at_ms * _MS_NS if 0 <= at_ms < 9e12 else -1,
        method=texts.get("method", "").strip(),
        target=texts.get("java.net.URL", "").strip().partition("#")[0].encode(),
        client=get("tn", "").encode(),
        status=status if 100 <= status <= 999 else -1,
        took_ns=took_ms * _MS_NS if 0 <= took_ms < 1e9 else -1,
        size=_number(get("by")),
    )


class _Parser:
    """Finds the innermost HTTP samples in XML that is fed in pieces."""

    def __init__(self) -> None:
        self.samples: list[_Sample] = []
        self._open: list[_Sample] = []
        self._text = ""
        self._expat = expat.ParserCreate()
        self._expat.buffer_text = True
        self._expat.StartElementHandler = self._start
        self._expat.EndElementHandler = self._end
        self._expat.CharacterDataHandler = self._add_text

    def feed(self, piece: bytes, *, last: bool = False) -> None:
        """Parse a piece.

        Raises ExpatError if the XML is damaged, and LookupError or ValueError if its encoding is unknown.
        """
        self._expat.Parse(piece, last)

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._text = ""
        if name == "httpSample":
            for around in self._open:
                around.innermost = False
            self._open.append(_Sample(attributes))

    def _add_text(self, text: str) -> None:
        if self._open and len(self._text) < _TEXT_MAX:
            self._text += text

    def _end(self, name: str) -> None:
        if not self._open:
            return
        if name in _TEXTS:
            self._open[-1].texts.setdefault(name, self._text)
        elif name == "httpSample":
            sample = self._open.pop()
            if sample.innermost:
                self.samples.append(sample)


def _samples(file: SourceFile) -> Iterator[_Sample | None]:
    """Yield the innermost HTTP samples.

    At damaged XML, yield None and stop.
    """
    parser, whole = _Parser(), True
    pieces = file.stream()
    piece: bytes | None = b""
    while whole and piece is not None:
        piece = next((bytes(each) for each in pieces), None)
        try:
            parser.feed(piece or b"", last=piece is None)
        except (expat.ExpatError, LookupError, ValueError):
            whole = False
        yield from parser.samples
        parser.samples.clear()
    if not whole:
        yield None


JMETER = importer(
    Importer(name="jmeter", title="results of JMeter (CSV)", sniff=sniff, reader=JmeterReader, rank=3)
)
JMETER_XML = importer(
    Importer(
        name="jmeter-xml", title="results of JMeter (XML)", sniff=sniff_xml, reader=JmeterXmlReader, rank=3
    )
)
