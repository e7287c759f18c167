"""Detects the format of a file by its first lines, after their wrappers are removed."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NoReturn

from replay import units
from replay.errors import InputError, UsageError

from .readers.guessed_columns import proposed_columns
from .readers.lines import SNIFFED_LINES
from .registry import Importer, Options, importer_named, importers, importers_that
from .showing import showable
from .sources import SourceFile
from .unreadable import refuse_line_ends, refuse_unreadable
from .wrappers import VAGUE, unwrap, wrappers_of

LIKELY = 0.5
"""Minimum score of a format, roughly the share of the first lines that match it, for the format to be chosen."""

SURE = 0.75
"""If a format scores at least this, no other part of the head and no wrapper is tried."""

NEAR_LINES = 50
"""How many lines are examined first."""

WRAPPERS_MAX = 3
"""Maximum number of nested wrappers."""

SHOWN_CHARS = 120


def _first_line(head: bytes) -> str:
    line = next((line for line in head.split(b"\n") if line.strip()), b"")
    return showable(line.strip(), SHOWN_CHARS, as_it_begins=True)


def _is_binary(head: bytes) -> bool:
    """Return whether the head has a NUL, or more than a twentieth of its first 4 KiB are control characters."""
    controls = sum(byte < 9 or 13 < byte < 27 for byte in head[:4096])
    return 0 in head or controls * 20 > min(len(head), 4096)


def _kind_of_table(head: bytes) -> str:
    """Return the only format that a file with the user's `--columns` can have.

    Its reader reports missing columns.
    """
    first = head.lstrip().partition(b"\n")[0]
    if first.startswith(b"{"):
        return "jsonl"
    return "tsv" if b"\t" in first else "csv"


def _looked_at(head: bytes) -> Iterator[bytes]:
    """Yield the parts of a head to compare with formats: its first lines, the whole, and the second half if it is long.

    Messages that a server writes at startup must not hide an otherwise good log.
    """
    at = -1
    for _ in range(NEAR_LINES):
        at = head.find(b"\n", at + 1)
        if at < 0:
            break
    if at >= 0:
        yield head[: at + 1]
    yield head
    if head.count(b"\n") > SNIFFED_LINES:
        yield head[head.find(b"\n", len(head) // 2) + 1 :]


def _scores(head: bytes, options: Options, known: Mapping[str, Importer]) -> dict[str, tuple[float, int]]:
    """Return the score of a head for each format, with the rank that decides between equal scores.

    With a log format of the user, only the formats that accept one are scored.
    """
    return {
        name: (candidate.sniff(head, options), candidate.rank)
        for name, candidate in known.items()
        if candidate.takes_log_format or not options.log_format
    }


def _best(head: bytes, options: Options, known: Mapping[str, Importer]) -> tuple[float, int, str]:
    """Return the best matching format with its score and rank.

    If the score is below LIKELY, the format is only the most similar one.
    """
    best = (0.0, 0, "")
    for part in _looked_at(head):
        scores = _scores(part, options, known)
        name = max(scores, key=lambda name: scores[name], default="")
        best = max(best, (*scores[name], name)) if name else best
        if best[0] >= SURE:
            break
    return best


def _unwrap(file: SourceFile, options: Options, known: Mapping[str, Importer]) -> tuple[float, int, str]:
    """Return what `_best` returns for the lines of a file, with or without wrappers, whichever match better.

    The wrappers are removed from the file if the score is then at least LIKELY, or if the user gave the format.
    """
    best, chosen = _best(file.head, options, known), ""
    vague = bool(options.log_format) or len(known) == 1
    left = [("", file.whole_lines())]
    for _ in range(WRAPPERS_MAX):
        if best[0] >= SURE:
            break
        inner = [
            (f"{chain}+{name}".strip("+"), unwrap(name, head))
            for chain, head in left
            for name in wrappers_of(head)
            if not (vague and name in VAGUE)
        ]
        for chain, head in inner:
            found = _best(head, options, known)
            if found[0] > best[0]:
                best, chosen = found, chain
        left = inner
    if chosen and (best[0] >= LIKELY or len(known) == 1):
        file.take_off(chosen)
    return best


def tell_format(
    file: SourceFile, options: Options | None = None, *, named: Importer | None = None
) -> Importer:
    """Return the importer that fits the head of a file best, and remove the wrappers of its lines.

    If the user gave the importer (`named`), only the wrappers are determined. With `--columns`, any other text is
    read as a table. Raises InputError if no importer fits, or if lines end in a carriage return alone.
    """
    options = options or Options()
    refuse_line_ends(file.name, file.head)
    known = importers() if named is None else {named.name: named}
    share, _, nearest = _unwrap(file, options, known)
    if named is not None:
        return named
    if share >= LIKELY:
        return known[nearest]
    refuse_unreadable(file.name, file.head)
    if options.columns and _is_text(file.head):
        return known[_kind_of_table(file.head)]
    raise_unknown(file, options, known, share, nearest)


def raise_unknown(
    file: SourceFile, options: Options, known: Mapping[str, Importer], share: float, nearest: str
) -> NoReturn:
    """Raise InputError with a description of a file in an unknown format."""
    if _is_binary(file.head):
        raise InputError(f"{file.name} is a binary file, not a log")
    if not file.head.strip():
        raise InputError(f"{file.name} has nothing but blank lines")
    begins = f"it begins with: {_first_line(file.head)}"
    if options.log_format:
        raise InputError(
            f"{file.name} does not match this --log-format; {begins}",
            hint="give nginx's log_format (with $variables) or Apache's LogFormat (with %directives) as configured",
        )
    near = ""
    if share > 0 and nearest:
        near = (
            f"; the nearest format is {nearest}, which {units.format_share(share)} of the first lines match"
        )
    columns = proposed_columns(file.head)
    if columns:
        raise InputError(
            f"{file.name} has JSON objects, but their keys are not those of a known format{near}; {begins}",
            hint=f"check this guess, and give it to replay import: --columns {shlex.quote(columns)}",
        )
    takes = f"--format {nearest}" if near else "--format NAME"
    raise InputError(
        f"{file.name} is not a log of a known format{near}; {begins}",
        hint="replay import reads a custom log_format with --log-format '...', and a table with"
        f" --columns at=COLUMN,path=COLUMN; {takes} reads the file anyway"
        f"{'' if near else ' as one of ' + ', '.join(sorted(known))}",
    )


def _is_text(head: bytes) -> bool:
    """Return whether a head consists of lines of text."""
    return not _is_binary(head) and bool(head.strip())


def detect(path: str | Path) -> Importer:
    """Return the importer for a file.

    Raises InputError if the file cannot be read or its format is unknown.
    """
    return tell_format(SourceFile(str(path)))


def named_importer(format_name: str, options: Options) -> Importer:
    """Return the importer of the `--format` that the user gave.

    Raises UsageError if it does not exist, or if `--columns` or `--log-format` do not apply to it.
    """
    chosen = importer_named(format_name)
    if options.columns and not chosen.takes_columns:
        raise UsageError(
            f"--columns does not work with --format {chosen.name}",
            hint=f"it is for {', '.join(importers_that(lambda known: known.takes_columns))}",
        )
    if options.log_format and not chosen.takes_log_format:
        raise UsageError(
            f"--log-format does not work with --format {chosen.name}",
            hint=f"it is for {' and '.join(importers_that(lambda known: known.takes_log_format))}",
        )
    return chosen
