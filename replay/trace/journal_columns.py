"""Journal blocks in columns, for many requests that were cleaned together without an object for each."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import numpy as np

from .journal_record import JournalRecord

AT_NS, METHOD, HOST, CLIENT, LINES_END, TARGET_END, END, COLUMNS = range(8)


class JournalColumns(msgspec.Struct, array_like=True):
    """Requests without responses, as columns.

    Their memory is that of the writer's batch, or of the block that was read. They refer to a text, which has, for
    each request, its new lines, then its target, then its body.

    `rows` is int64[count, COLUMNS]: the time; the indexes of method, host and client (host -1 is none); and where
    the request's lines end in `line_numbers`, and its target and body in the text.

    `line_numbers` (int32) are indexes into `lines`; -1 - n is line n of `new`. `new` is int64[:, 3]: where the line
    begins in the text, and the lengths of its name and its value.
    """

    count: int
    methods: list[str]
    hosts: list[str]
    clients: list[bytes]
    lines: list[tuple[bytes, bytes]]
    rows: memoryview
    line_numbers: memoryview
    new: memoryview


def records_of(columns: JournalColumns, text: bytes) -> list[JournalRecord]:
    """Return the requests of a block as records. Raises ValueError or IndexError if the block is damaged."""
    rows = np.frombuffer(columns.rows, np.int64).reshape(columns.count, COLUMNS).tolist()
    numbers = np.frombuffer(columns.line_numbers, np.int32).tolist()
    lines = list(columns.lines)
    for begin, name, value in np.frombuffer(columns.new, np.int64).reshape(-1, 3).tolist():
        lines.append((text[begin : begin + name], text[begin + name : begin + name + value]))
    known = len(columns.lines)
    records = []
    for before, row in pairwise([[0] * COLUMNS, *rows]):
        chosen = numbers[before[LINES_END] : row[LINES_END]]
        begin = before[END] + sum(len(b"".join(lines[known - 1 - each])) for each in chosen if each < 0)
        records.append(
            JournalRecord(
                at_ns=row[AT_NS],
                method=columns.methods[row[METHOD]],
                target=text[begin : row[TARGET_END]],
                host=columns.hosts[row[HOST]] if row[HOST] >= 0 else "",
                client=columns.clients[row[CLIENT]],
                status=-1,
                took_ns=-1,
                first_byte_ns=-1,
                size=-1,
                headers=tuple(lines[each if each >= 0 else known - 1 - each] for each in chosen),
                body=text[row[TARGET_END] : row[END]],
            )
        )
    return records
