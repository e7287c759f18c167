"""Lines of pairs with columns of the user's own, and logs in which they are not alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from replay.errors import InputError
from replay.trace.importing import Options, import_files
from replay.trace.importing.readers.columns import parse_columns
from tests.support.events import Event, events

S, MS = 1_000_000_000, 1_000_000
AT = 1_700_000_000


def _read(tmp_path: Path, lines: str, columns: str = "", format: str | None = None) -> list[Event]:
    (tmp_path / "a.log").write_text(lines)
    options = Options(columns=parse_columns(columns))
    trace = import_files(
        [tmp_path / "a.log"], tmp_path / "a.trace", jitter=False, options=options, format=format
    )
    assert trace.manifest.importer in ("logfmt", "ltsv")
    return events(trace)


@pytest.mark.parametrize("format", [None, "logfmt"])
def test_columns_name_the_keys_of_logfmt(tmp_path: Path, format: str | None) -> None:
    lines = "level=info when=1700000000.5 verb=POST what=/a?b=c code=201 lasted=250\n"
    columns = "at=when,method=verb,path=what,status=code,took_ms=lasted"
    assert _read(tmp_path, lines, columns, format) == [
        Event(AT * S + 500 * MS, "POST", b"/a?b=c", "", 201, 250 * MS)
    ]


def test_an_end_is_brought_forward(tmp_path: Path) -> None:
    lines = "when=1700000000.5 what=/a lasted=250\n"
    assert _read(tmp_path, lines, "end=when,path=what,took_ms=lasted")[0].at_ns == AT * S + 250 * MS


def test_the_stamp_before_the_pairs_has_a_name(tmp_path: Path) -> None:
    lines = "2023-11-14T22:13:20Z app[web.1]: what=/a n=1\n"
    assert _read(tmp_path, lines, "at=prefix,path=what") == [Event(AT * S, "GET", b"/a")]


def test_columns_name_the_labels_of_ltsv(tmp_path: Path) -> None:
    lines = "t:1700000000\tpath:/a\tn:1\tstate:404\n"
    assert _read(tmp_path, lines, "at=t,path=path,status=state") == [Event(AT * S, "GET", b"/a", "", 404)]


def test_lines_of_an_application_are_rejected_and_counted(tmp_path: Path) -> None:
    router = (
        "2023-11-14T22:13:20+00:00 heroku[router]: at=info method=GET path=/{} host=h fwd=1.2.3.4 dyno=web.1 connect=0ms"
        " service=5ms status=200 bytes=1\n"
    )
    lines = (
        "".join(router.format(number) for number in range(6))
        + "2023-11-14T22:13:20+00:00 app[web.1]: hello\n" * 3
    )
    (tmp_path / "a.log").write_text(lines)
    manifest = import_files([tmp_path / "a.log"], tmp_path / "a.trace").manifest
    assert (manifest.importer, manifest.rows, manifest.rejected) == ("logfmt", 6, {"not this format": 3})


@pytest.mark.parametrize(
    "lines",
    [
        "time=2023-11-14T22:13:20Z level=info msg=started port=80\n",
        "a=1 b=2 c=3\n",
        "method=GET path=/a status=200\n",
        "SELECT a FROM b WHERE method=1 AND path=2\n",
    ],
)
def test_pairs_without_a_request_or_a_time_are_not_taken(tmp_path: Path, lines: str) -> None:
    (tmp_path / "a.log").write_text(lines)
    with pytest.raises(InputError, match="not a log of a known format"):
        import_files([tmp_path / "a.log"], tmp_path / "a.trace")


@pytest.mark.parametrize(
    ("value", "target"),
    [
        ('"/a b"', b"/a%20b"),
        ('"/a\\\\b"', b"/a\\b"),
        ('"/a\\u0041"', b"/aA"),
        ('"/a\\x22"', b'/a"'),
        ('"/a\\qb"', None),
        ('"/a\\x2g"', None),
        ('"/a\\u00"', None),
        ('"http://h/a\\qb"', None),
        ("/a\\qb", None),
        ("/a\\nb", None),
    ],
)
def test_an_unknown_escape_is_rejected_and_counted(tmp_path: Path, value: str, target: bytes | None) -> None:
    """The backslash of such a value was lost without a count."""
    lines = "time=2023-11-14T22:13:20Z level=info method=GET path=/x status=200\n"
    (tmp_path / "a.log").write_text(lines * 3 + lines.replace("/x", value))
    trace = import_files([tmp_path / "a.log"], tmp_path / "a.trace", jitter=False)
    assert [event.target for event in events(trace)][3:] == ([] if target is None else [target])
    assert trace.manifest.rejected == ({"unknown escape": 1} if target is None else {})
