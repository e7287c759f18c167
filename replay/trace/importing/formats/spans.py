"""Spans as OTLP JSON and as Jaeger's JSON: HTTP requests of servers, and Kafka records without values."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from replay import units
from replay.errors import InputError, UsageError
from replay.trace.importing.readers.records import Record, RecordReader, end_to_end
from replay.trace.importing.registry import Found, Importer, Options, Probe, Rows, importer
from replay.trace.importing.rejects import CAUSED, NOT_WANTED, REPEATED_SPAN
from replay.trace.importing.sources import SourceFile
from replay.trace.importing.spans import jaeger, otlp
from replay.trace.importing.spans.conventions import PRODUCE, Asked, Unusable, asked
from replay.trace.importing.spans.entries import ELSEWHERE, NESTED, REPEATED, SENT, Entries
from replay.trace.importing.spans.model import NotASpan, Span
from replay.trace.route_rules import TEMPLATES_MAX, is_template

DOCUMENT_BYTES_MAX = 2 << 30
"""Maximum size of one JSON document, which is read as a whole."""

SERVICES_SHOWN = 8

ANOTHER_SIGNAL, NOT_JSON, NOT_SPANS, BAD_TIME = "logs or metrics", "not JSON", "not this format", "bad time"

_WHY = {NESTED: CAUSED, ELSEWHERE: NOT_WANTED, REPEATED: REPEATED_SPAN}
_OTLP = re.compile(
    rb'\s*(?:\xef\xbb\xbf)?\{\s*"(?:result"\s*:\s*\{\s*"resource_?[sS]pans|resource_?(?:[sS]pans|[lL]ogs|[mM]etrics))"\s*:'
)
_OTLP_SPANS = re.compile(rb'"resource_?[sS]pans"')
_JAEGER = re.compile(rb"\s*(?:\xef\xbb\xbf)?[\[{]")
_OTLP_START = re.compile(rb'"start_?[tT]ime_?[uU]nix_?[nN]ano"\s*:\s*"?(\d{1,19})')
_JAEGER_START = re.compile(rb'"startTime"\s*:\s*(\d{1,16})')
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})


def _sniff_otlp(head: bytes, options: Options) -> float:
    return 1.0 if _OTLP.match(head) and _OTLP_SPANS.search(head) else 0.0


def _sniff_jaeger(head: bytes, options: Options) -> float:
    named = b'"traceID"' in head and b'"spans"' in head
    return 1.0 if _JAEGER.match(head) and named else 0.0


class SpanReader(RecordReader):
    """Reads spans.

    Which requests are sent is known only after all files were read (`rows_at_end`).
    """

    def __init__(
        self, found: Found, options: Options, spans_of: Callable[[Any], Iterator[Span | NotASpan]],
        start: re.Pattern[bytes], unit_ns: int,
    ) -> None:  # fmt: skip
        super().__init__(found, options)
        self._spans_of, self._start, self._unit_ns = spans_of, start, unit_ns
        self._entries = Entries()
        self._held: list[tuple[Span, Asked, str, int]] = []
        self._last = ""

    def probe(self, head: bytes) -> Probe:
        """Return the start of the first span in the head (None if it has none), and the resolution.

        The first span is not always the earliest one, but its time is close.
        """
        first = self._start.search(head)
        return Probe(int(first[1]) * self._unit_ns if first else None, self._unit_ns)

    def read(self, file: SourceFile) -> Iterator[Rows]:
        """Collect the spans of one file.

        Their rows follow in `rows_at_end`.
        """
        for number, document in _documents(file):
            try:
                self._take(file, number, msgspec.json.decode(document))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                self._reject(NOT_JSON, file.name, number, bytes(document[:400]))
            except NotASpan:
                self._reject(NOT_SPANS, file.name, number, bytes(document[:400]))
            yield from ()

    def _reject(self, why: str, file: str, number: int, shown: bytes) -> None:
        self._found.rejects.lines += 1
        self._found.rejects.add(why, file, number, shown)

    def _take(self, file: SourceFile, number: int, document: Any) -> None:
        if otlp.is_another_signal(document):
            self._reject(ANOTHER_SIGNAL, file.name, number, b"")
            return
        for span in self._spans_of(document):
            if isinstance(span, NotASpan):
                self._reject(NOT_SPANS, file.name, number, str(span).encode())
                continue
            request, why = len(self._held), ""
            try:
                found = asked(span)
                why = BAD_TIME if span.start_ns < 0 else ""
            except Unusable as error:
                found, why = None, str(error)
            self._entries.add(span, -1 if why else request)
            if why or found is None:
                self._reject(why, file.name, number, f"{span.service}: {span.name}".encode())
            else:
                self._found.rejects.lines += 1
                span.attributes = {}
                self._held.append((span, found, file.name, number))

    def rows_at_end(self) -> Iterator[Rows]:
        """Yield the rows of the requests that enter the system from outside, or that enter the selected service.

        Raises UsageError if the recording does not have the service that the user gave.
        """
        service = self._options.service or None
        if service is not None and service not in self._entries.services:
            raise UsageError(
                f"no service {service!r} in the recording",
                hint=f"it has {self._services_text(None) or 'none'}",
            )
        choice = self._entries.choose(len(self._held), service)
        sent = Counter[str]()
        yield from self.rows(self._records(choice.what.tolist(), sent))
        self._describe(sent, choice.orphans, choice.circles)

    def _records(self, what: list[int], sent: Counter[str]) -> Iterator[Record]:
        rejects = self._found.rejects
        for (span, found, file, number), becomes in zip(self._held, what, strict=True):
            shown = f"{span.service}: {span.name}".encode()
            if becomes != SENT:
                rejects.add(_WHY[becomes], file, number, shown)
                continue
            record = self._record(span, found)
            why = "" if found.method == PRODUCE else self.wrong(record)
            if why:
                rejects.add(why, file, number, shown)
                continue
            self._note(found, record, span)
            sent[span.service] += 1
            yield record

    def _record(self, span: Span, found: Asked) -> Record:
        took_ns = span.end_ns - span.start_ns if span.end_ns >= 0 else -1
        if took_ns < 0 <= span.end_ns:
            self._found.count_unknown("duration", 1)
            took_ns = -1
        response = None
        if found.response_headers:
            response = self.responses.made(end_to_end(found.response_headers), None, size=found.size)
        return Record(
            at_ns=span.start_ns,
            method=found.method,
            target=found.target,
            host=found.host,
            client=found.client,
            status=found.status,
            took_ns=took_ns,
            size=found.size,
            headers=self.kept(end_to_end(found.headers)),
            response=response,
        )

    def _note(self, found: Asked, record: Record, span: Span) -> None:
        """Count the data that a span lacks, and record its topic or its query and route."""
        missing = self._found.missing
        if found.method == PRODUCE:
            missing["value"] += 1
            missing["messages"] += found.messages - 1
            topic, _, partition = found.target.partition(b"?")[0].decode()[1:].rpartition("/")
            self._found.topics[topic] = max(self._found.topics.get(topic, 0), int(partition) + 1)
            return
        missing["route path"] += found.from_route
        missing["named method"] += found.from_name
        missing["body"] += found.body_bytes > 0 or (found.body_bytes < 0 and found.method in _WITH_BODY)
        missing["status"] += found.status < 0
        self._found.queries += b"?" in record.target
        templates = self._found.templates
        template = f"{found.method} {found.route}"
        if (
            found.route
            and template not in templates
            and len(templates) < TEMPLATES_MAX
            and is_template(template)
        ):
            templates.append(template)

    def _services_text(self, sent: Counter[str] | None) -> str:
        """Return up to SERVICES_SHOWN services as text, each with its number of requests in `sent`, if given."""
        names = sorted(self._entries.services, key=lambda name: -(sent or Counter())[name])
        shown = [
            (name or "(no name)") + (f" {sent[name]:,}" if sent is not None else "")
            for name in names[:SERVICES_SHOWN]
        ]
        more = len(names) - SERVICES_SHOWN
        return ", ".join(shown) + (f" and {more:,} more" if more > 0 else "")

    def _describe(self, sent: Counter[str], orphans: int, circles: int) -> None:
        """Add a sentence for each assumption that was made and each kind of data that is missing."""
        assume, missing = self._found.assume, self._found.missing
        counted = units.counted
        if self._options.service:
            assume(
                f"only requests that enter the service {self._options.service} are imported: {sum(sent.values()):,}"
            )
        elif len(self._entries.services) > 1:
            assume(
                f"only requests that no other request causes are imported, by service: {self._services_text(sent)}"
                " (--service NAME selects those that enter one service)"
            )
        if orphans:
            assume(
                f"{counted(orphans, 'request')} whose parent is not in the recording: sent like requests without a parent"
            )
        if circles:
            assume(
                f"{counted(circles, 'request')} whose parents form a circle or a very long chain:"
                " sent like requests without a parent"
            )
        if missing["named method"]:
            assume(
                f"{counted(missing['named method'], 'span')} without a method: taken from the name of the span"
            )
        if missing["route path"]:
            assume(
                f"{counted(missing['route path'], 'span')} without a path: taken from the route, which has no parameters"
            )
        if missing["body"]:
            assume(
                f"{counted(missing['body'], 'request')} that had or may have had a body:"
                " sent without it, because spans have no bodies"
            )
        requests = sum(sent.values()) - missing["value"]
        if requests and not self._found.queries:
            assume("no span has a query: the instrumentation may leave out queries")
        if missing["value"]:
            assume(
                f"{counted(missing['value'], 'Kafka record')} without a value: replayed with null as the value,"
                " which a compacted topic takes as a deletion (the setting kafka.value writes another value)"
            )
        if missing["messages"]:
            assume(
                f"{counted(missing['messages'], 'Kafka record')} without a separate span,"
                " because a batch has one span: not replayed"
            )


def _documents(file: SourceFile) -> Iterator[tuple[int, bytes | bytearray]]:
    """Yield the JSON documents of a file, with the number of the first line of each.

    A file has one document per line, or one in all. Raises InputError if a document is too large.
    """
    held, number, by_line = bytearray(), 1, None
    for piece in file.stream():
        before = len(held)
        held += piece
        if len(held) > DOCUMENT_BYTES_MAX:
            raise InputError(
                f"{file.name} has a JSON document of more than 2 GiB", hint="export a shorter period"
            )
        if by_line is False or held.find(b"\n", before) < 0:
            continue
        *lines, rest = held.split(b"\n")
        by_line = by_line or not _goes_on(lines)
        if by_line:
            for at, line in enumerate(lines):
                if line.strip():
                    yield number + at, line
            number, held = number + len(lines), rest
    if held.strip():
        yield number, held


def _goes_on(lines: list[bytearray]) -> bool:
    """Return whether the first line begins a document of several lines."""
    first = next((line.rstrip() for line in lines if line.strip()), bytearray())
    return first.endswith((b"{", b"[", b",", b":"))


def _otlp_reader(found: Found, options: Options) -> SpanReader:
    return SpanReader(found, options, otlp.spans_of, _OTLP_START, 1)


def _jaeger_reader(found: Found, options: Options) -> SpanReader:
    return SpanReader(found, options, jaeger.spans_of, _JAEGER_START, units.US_NS)


OTLP = importer(
    Importer(
        name="otlp",
        title="spans in OTLP JSON",
        sniff=_sniff_otlp,
        reader=_otlp_reader,
        rank=6,
        takes_service=True,
    )
)
JAEGER = importer(
    Importer(
        name="jaeger", title="spans in Jaeger's JSON", sniff=_sniff_jaeger, reader=_jaeger_reader, rank=6,
        takes_service=True,
    )
)  # fmt: skip
