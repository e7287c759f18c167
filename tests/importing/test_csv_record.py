"""Records of tables that go on over lines (RFC 4180, 2.6), against their twin and the standard library."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from replay_native.ground.jit import warm
from replay_native.importing import csv_record
from tests.oracles import format_oracle
from tests.reference.table import RECORD_BYTES_MAX, record_at

from .test_tables import imported

pytestmark = pytest.mark.boundscheck

PIECES = st.sampled_from(
    [b'"', b'"', b'""', b",", b"\n", b"\r\n", b" ", b"a", b"\r", b"x" * 33, b'",', b',"']
)
TABLES = st.lists(PIECES, max_size=30).map(b"".join).map(lambda data: data + b"\n")

HEAD = b"at,path,note\n"


@given(TABLES)
@example(b'a,"b\n",c\n')
@example(b'"a""\n""b"\r\nc\n')
@example(b'"a"b,"\n"\n')
@example(b'"a\n"b\n"\n')
@example(b'  "a\n" \n')
@example(b'"' + b"x" * (RECORD_BYTES_MAX - 3) + b'\n"\n')
@example(b'"' + b"x" * (RECORD_BYTES_MAX - 2) + b'\n"\n')
@settings(deadline=None)
def test_a_record_ends_where_its_twin_ends_it(data: bytes) -> None:
    warm(["importing.csv_record"])
    array, at = np.frombuffer(bytearray(data), dtype=np.uint8), 0
    while at < len(data):
        newline = data.index(b"\n", at)
        limit = min(len(data), at + RECORD_BYTES_MAX + 1)
        end = csv_record.find_record_end(array, at, newline, len(data), limit, ord(","))
        assert end == record_at(data, at, ord(","))
        at = end + 1


def test_records_are_those_of_the_standard_library() -> None:
    assert [complaint for seed in range(300) if (complaint := format_oracle.records_case(seed))] == []


def test_blocks_may_end_anywhere_in_a_record() -> None:
    assert [complaint for seed in range(300) if (complaint := format_oracle.cut_case(seed))] == []


def test_a_quoted_field_may_hold_line_breaks(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(
        b'at,path,"no\nte"\r\n1700000000,/a,"one\r\ntwo, ""three""\n\n1700000009,/no,"\r\nbad,/b,x\r\n'
        b'1700000001,"/c\nd",\r\n1700000002,/e,x\n'
    )
    got, manifest = imported(path)
    assert [event.target for event in got] == [b"/a", b"/c%0Ad", b"/e"]
    assert (manifest.lines, manifest.rejected) == (5, {"header": 1, "bad time": 1})
    assert [(example.line, example.text) for example in manifest.rejected_examples][1:] == [(7, "bad,/b,x")]


def test_a_quote_that_never_closes_costs_its_own_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    good = b"".join(b"1700000%03d,/%d,x\n" % (n, n) for n in range(100))
    path.write_bytes(HEAD + b'1700000000,"/lost,x\n' + good)
    got, manifest = imported(path)
    assert len(got) == 100
    assert manifest.rejected == {"header": 1, "quote that does not close": 1}
    assert manifest.rejected_examples[-1].line == 2


def test_two_quotes_too_many_make_no_record_of_what_is_between(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(HEAD + b'1700000000,"/lost,x\n1700000001,/a,x\n1700000002,"/lost,x\n1700000003,/b,"x"\n')
    got, manifest = imported(path, format="csv")
    assert [event.target for event in got] == [b"/a", b"/b"]
    assert manifest.rejected == {"header": 1, "quote that does not close": 2}


def test_a_stray_quote_behind_what_is_read_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(HEAD + b'1700000000,/a,"5 inches\n1700000001,/b,x\n')
    assert [event.target for event in imported(path)[0]] == [b"/a", b"/b"]


@pytest.mark.parametrize(("size", "rows"), [(RECORD_BYTES_MAX - 40, 1), (RECORD_BYTES_MAX, 0)])
def test_a_record_is_at_most_as_long_as_a_line_may_be(tmp_path: Path, size: int, rows: int) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'note,at,path\n"' + b"y" * size + b'\n",1700000000,/long\nx,1700000001,/good\n')
    got, _ = imported(path, format="csv")
    assert [event.target for event in got] == [b"/long"] * rows + [b"/good"]


@pytest.mark.whole
def test_a_record_may_be_cut_by_the_end_of_a_block(tmp_path: Path) -> None:
    record = b'1700000000,/%07d,"' + b"line\r\n" * 500 + b'"\n'
    path = tmp_path / "a.csv"
    path.write_bytes(HEAD + b"".join(record % n for n in range(5_000)))
    got, manifest = imported(path)
    assert [int(event.target[1:]) for event in got] == list(range(5_000))
    assert (manifest.lines, manifest.rejected) == (5_001, {"header": 1})


def test_parquet_may_have_line_breaks_in_its_texts(tmp_path: Path) -> None:
    table = pa.table({"at": [1700000000, 1700000001], "note": ["a\nb", 'c"\r\n'], "path": ["/a", "/b"]})
    pq.write_table(table, tmp_path / "a.parquet")
    got, manifest = imported(tmp_path / "a.parquet")
    assert ([event.target for event in got], manifest.rejected) == ([b"/a", b"/b"], {"header": 1})


def test_a_table_is_told_though_most_of_its_lines_are_inside_fields(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(HEAD + b'1700000000,/a,"1\n2\n3\n4\n5"\n' * 20)
    assert imported(path)[1].importer == "csv"


def test_a_host_with_a_line_break_is_none(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'at,path,host\n1700000000,/a,"h\r\nX: 1"\n1700000001,/b,shop.example\n')
    assert [event.host for event in imported(path)[0]] == ["", "shop.example"]
