"""Files of kept responses: what is written is read back, in bounded batches, also after a kill or damage."""

from __future__ import annotations

import contextlib

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.errors import InputError, OutputError
from replay.results import answers
from replay.results.answers import SCHEMA, Answers, AnswersWriter


def columns(numbers, **more):
    rows = len(numbers)
    return {
        "number": np.array(numbers, np.uint64),
        "client": np.zeros(rows, np.uint32),
        "route": np.zeros(rows, np.uint32),
        "due_ns": np.array(numbers, np.int64) * 1000,
        "status": np.full(rows, 200, np.int16),
        "length": np.full(rows, 5, np.int64),
        "form": np.full(rows, 1, np.uint8),
    } | more


def write(run, *parts):
    writer = AnswersWriter(run)
    for part in parts:
        writer.write(part)
    writer.close()
    return writer


def test_rows_are_read_back_with_defaults(tmp_path):
    write(
        tmp_path,
        columns(
            [3, 1],
            type=["application/json", "text/html"],
            headers=[[("etag", b"\xff"), ("etag", b"2")], []],
            body=[b"{}", None],
        ),
    )
    one, two = pa.Table.from_batches(Answers(tmp_path).batches()).to_pylist()
    assert one == {
        "number": 3, "copy": 0, "client": 0, "route": 0, "due_ns": 3000, "status": 200, "type": "application/json",
        "encoding": "identity", "length": 5, "form": 1, "digest": 0, "body": b"{}", "cut": False,
        "headers": [{"name": "etag", "value": b"\xff"}, {"name": "etag", "value": b"2"}],
    }  # fmt: skip
    assert (two["number"], two["type"], two["body"], two["headers"]) == (1, "text/html", None, [])


ROWS = st.lists(
    st.tuples(
        st.integers(0, 2**64 - 1), st.integers(0, 3), st.sampled_from(["", "text/html", "é"]),
        st.one_of(st.none(), st.binary(max_size=40)), st.booleans(),
    ),
    max_size=30,
)  # fmt: skip


@settings(max_examples=40)
@given(parts=st.lists(ROWS, max_size=4), rows_max=st.integers(1, 8), bytes_max=st.integers(1, 60))
def test_any_rows_survive_any_division(tmp_path_factory, parts, rows_max, bytes_max):
    run = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as limits:
        limits.setattr(answers, "BATCH_ROWS_MAX", rows_max)
        limits.setattr(answers, "BATCH_BODY_BYTES_MAX", bytes_max)
        limits.setattr(answers, "FILE_BYTES_MAX", 4_000)
        made = [
            columns([0] * len(part)) | {
                "number": [row[0] for row in part], "copy": [row[1] for row in part], "type": [row[2] for row in part],
                "body": pa.array([row[3] for row in part], pa.binary()), "cut": [row[4] for row in part],
            }
            for part in parts
        ]  # fmt: skip
        writer = write(run, *made)
    names = ("number", "copy", "type", "body", "cut")
    read = list(Answers(run).batches(*names))
    rows = [tuple(row.values()) for batch in read for row in batch.to_pylist()]
    assert rows == [row for part in parts for row in part] and writer.rows == len(rows)
    for batch in read:
        bodies = [len(body or b"") for body in batch["body"].to_pylist()]
        assert batch.num_rows <= rows_max and (len(bodies) == 1 or sum(bodies) <= bytes_max)


def test_files_are_divided_and_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(answers, "FILE_BYTES_MAX", 1)
    writer = write(tmp_path, columns([1]), columns([2]), columns([0]))
    files = sorted((tmp_path / "answers").iterdir())
    assert [path.name for path in files] == [f"answers-{n:06d}.arrow" for n in range(3)]
    assert writer.bytes_written == sum(path.stat().st_size for path in files)
    table = Answers(tmp_path).by_number("due_ns")
    assert table["number"].to_pylist() == [0, 1, 2] and table["due_ns"].to_pylist() == [0, 1000, 2000]


def test_media_types_may_change_from_batch_to_batch(tmp_path):
    write(tmp_path, *(columns([n], type=[f"text/x-{n}"]) for n in range(5)))
    assert Answers(tmp_path).by_number("type")["type"].to_pylist() == [f"text/x-{n}" for n in range(5)]


def test_rows_of_some_requests(tmp_path):
    write(tmp_path, columns([1, 1, 2], copy=[0, 1, 0], body=[b"a", b"b", b"c"]))
    found = Answers(tmp_path).rows({(1, 1), (2, 0), (9, 0)}, "body")
    assert {key: row["body"] for key, row in found.items()} == {(1, 1): b"b", (2, 0): b"c"}


def test_a_file_of_a_killed_run_gives_its_whole_batches(tmp_path):
    write(tmp_path, columns([1, 2]), columns([3]))
    path = tmp_path / "answers" / "answers-000000.arrow"
    whole = path.read_bytes()
    counts = set()
    for size in [*range(0, len(whole), 97), len(whole)]:
        path.write_bytes(whole[:size])
        found = Answers(tmp_path)
        rows = found.by_number("status").num_rows
        counts.add(rows)
        assert rows == 3 or found.problems, size
    assert counts == {0, 2, 3}
    assert "first 2 rows" in _problem(path, whole[: len(whole) - 400])


def _problem(path, data):
    path.write_bytes(data)
    found = Answers(path.parent.parent)
    list(found.batches())
    return found.problems[path.name]


def test_damage_never_crashes(tmp_path):
    write(tmp_path, columns(list(range(50)), body=[b"x" * n for n in range(50)], type=["a", "b"] * 25))
    path = tmp_path / "answers" / "answers-000000.arrow"
    whole = path.read_bytes()
    rng = np.random.default_rng(3)
    for _ in range(200):
        damaged = bytearray(whole)
        for at in rng.integers(0, len(whole), 4):
            damaged[at] = rng.integers(0, 256)
        path.write_bytes(damaged)
        with contextlib.suppress(InputError):
            Answers(tmp_path).by_number("type", "body")


def test_a_file_of_somebody_else_is_refused(tmp_path):
    (tmp_path / "answers").mkdir()
    other = pa.table({"number": pa.array([1], pa.int8())})
    path = tmp_path / "answers" / "answers-000000.arrow"
    with pa.ipc.new_stream(path, other.schema) as stream:
        stream.write_table(other)
    with pytest.raises(InputError, match="no column number of type uint64"):
        list(Answers(tmp_path).batches("number"))


def test_nothing_kept(tmp_path):
    assert not Answers(tmp_path)
    assert list(Answers(tmp_path).batches()) == [] and Answers(tmp_path).by_number().num_rows == 0


def test_wrong_columns_are_refused(tmp_path):
    writer = AnswersWriter(tmp_path)
    for wrong, why in (({"nothing": [1]}, "no such column"), ({"status": None}, "status is missing")):
        with pytest.raises(ValueError, match=why):
            writer.write(columns([1]) | wrong)
    with pytest.raises(OutputError, match="cannot be made"):
        AnswersWriter(tmp_path)
    assert set(columns([1])) | set(answers.DEFAULTS) | {"headers", "body"} == set(SCHEMA.names)
