"""Responses on their way to the run folder: forms, content codings, secrets, numbers, and a disk that is full."""

from __future__ import annotations

import contextlib
import gzip
import json
import zlib
from pathlib import Path
from typing import Any

import cramjam
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.engine.answers import AnswerKeeper, Source, keeper
from replay.engine.answers.decoding import Decoder, TooLargeError
from replay.engine.answers.redaction import redact_header, redact_json, redact_text
from replay.errors import OutputError
from replay.lane.keeping import make_keeping
from replay.plan.numbers import RowNumbers
from replay.plan.schedule import make_schedule
from replay.results.answers import FORMS, Answers, AnswersWriter
from replay.settings import scenario as scenarios
from replay.settings.file import load
from replay_native.ground import jit
from replay_native.keeping.responses import ALL, DIGEST, Keeping
from tests import naive_digest
from tests.keeping.test_responses import receive, xxh64
from tests.support.trace_data import Row, write_trace

pytestmark = pytest.mark.boundscheck

DOCUMENT = {"id": 1, "token": "abc123", "price": 10.50}
BODY = json.dumps(DOCUMENT).encode()


@pytest.fixture(scope="module", autouse=True)
def _kernels() -> None:
    jit.warm(("ground.shared", "http1.parser", "keeping.responses", "keeping.ring", "plan.numbers"))


def keeping_of(mode: int = ALL) -> Keeping:
    return make_keeping(
        mode, 2, headers=("location", "x-session-token"), body_limit=64, head_limit=4_096, ring_bytes=1 << 20
    )


def message(body: bytes, *headers: str, status: int = 200) -> bytes:
    head = "".join(f"{header}\r\n" for header in (*headers, f"Content-Length: {len(body)}"))
    return f"HTTP/1.1 {status} OK\r\n{head}\r\n".encode() + body


def settings(**given: Any) -> scenarios.Answers:
    defaults: dict[str, Any] = {
        "keep": "all",
        "headers": ("location", "x-session-token"),
        "body_limit_bytes": 64,
    }
    return scenarios.Answers(**{**defaults, **given})


def kept(run: Path, *messages: bytes, mode: int = ALL, **given: Any) -> tuple[list[dict[str, Any]], Any]:
    """What the run folder has of these responses, and the figures."""
    lane = keeping_of(mode)
    answers = AnswerKeeper(run, settings(**given), [Source(0, RowNumbers.whole(100, 1_000), [lane])])
    answers.begin(0)
    for seq, text in enumerate(messages):
        receive(lane, text, seq=seq)
    answers.end()
    return Answers(run).by_number(*names()).to_pylist(), answers.figures()


def names() -> tuple[str, ...]:
    return (
        "client",
        "route",
        "due_ns",
        "status",
        "type",
        "encoding",
        "length",
        "form",
        "digest",
        "headers",
        "body",
        "cut",
    )


def form_of(row: dict[str, Any]) -> str:
    return FORMS[row["form"]]


CODINGS = {
    "gzip": gzip.compress(BODY, mtime=0),
    "x-gzip": gzip.compress(BODY, mtime=0),
    "deflate": zlib.compress(BODY),
    "br": bytes(cramjam.brotli.compress(BODY)),
    "zstd": bytes(cramjam.zstd.compress(BODY)),
    "identity": BODY,
    "br, gzip": gzip.compress(bytes(cramjam.brotli.compress(BODY)), mtime=0),
}


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("mode", [ALL, DIGEST])
def test_the_digest_is_of_the_body_whatever_its_content_coding(
    tmp_path: Path, coding: str, mode: int
) -> None:
    text = message(
        CODINGS[coding], "Content-Type: Application/JSON; charset=utf-8", f"Content-Encoding: {coding}"
    )
    rows, figures = kept(tmp_path, text, mode=mode, keep_secrets=True)
    (row,) = rows
    assert row["digest"] == naive_digest.digest(BODY)
    assert (row["type"], row["encoding"], form_of(row)) == ("application/json", coding, "json")
    assert row["length"] == len(CODINGS[coding])
    assert row["body"] == (BODY if mode == ALL else None) and not row["cut"]
    assert (figures.kept, figures.bodies, figures.dropped) == (1, int(mode == ALL), {})


@pytest.mark.parametrize(
    ("kind", "body", "form"),
    [
        ("application/json", b'{"a":1}', "json"),
        ("application/problem+json", b"3", "json"),
        ("text/html", b'{"a":1}', "json"),
        ("text/plain", b"3", "text"),
        ("application/json", b'{"a":', "text"),
        ("text/html; charset=x", b"<p>", "html"),
        ("application/xml", b"<a/>", "text"),
        ("image/png", b"\x89PNG", "binary"),
        ("", b"x", "binary"),
        ("application/json", b"", "none"),
    ],
)  # fmt: skip
def test_the_form_of_a_body(tmp_path: Path, kind: str, body: bytes, form: str) -> None:
    rows, _ = kept(tmp_path, message(body, *([f"Content-Type: {kind}"] if kind else [])))
    (row,) = rows
    assert form_of(row) == form
    assert row["digest"] == (naive_digest.digest(body) if form == "json" else xxh64(body))
    assert row["body"] == (None if form == "none" else body)


@pytest.mark.parametrize(
    ("coding", "body", "reason"),
    [
        ("gzip", b"not gzip", "undecodable"),
        ("gzip", gzip.compress(BODY, mtime=0)[:-5], "undecodable"),
        ("rot13", BODY, "undecodable"),
        ("br", bytes(cramjam.brotli.compress(bytes(17 << 20))), "too_large"),
        ("gzip", gzip.compress(bytes(17 << 20), mtime=0), "too_large"),
    ],
)
def test_a_body_that_cannot_be_decoded_is_counted_and_has_no_digest(
    tmp_path: Path, coding: str, body: bytes, reason: str
) -> None:
    good = message(BODY, "Content-Type: application/json")
    rows, figures = kept(tmp_path, message(body, f"Content-Encoding: {coding}"), good)
    assert [form_of(row) for row in rows] == ["unreadable", "json"]
    assert (rows[0]["digest"], rows[0]["body"]) == (0, None)
    assert figures.dropped == {reason: 1} and figures.kept == 2


def test_a_long_body_is_cut_and_says_so(tmp_path: Path) -> None:
    long = json.dumps(["y" * 90] * 3).encode()
    packed = message(gzip.compress(long, mtime=0), "Content-Encoding: gzip", "Content-Type: application/json")
    rows, figures = kept(tmp_path, message(long, "Content-Type: application/json"), packed, keep_secrets=True)
    for row in rows:
        assert (row["body"], row["cut"]) == (long[:64], True)
        assert row["digest"] == naive_digest.digest(long)
    assert (figures.bodies, figures.cut) == (2, 2)


def test_secrets_are_redacted_unless_they_are_asked_for(tmp_path: Path) -> None:
    text = message(
        BODY, "Content-Type: application/json", "Location: /a?token=abc123&n=1", "X-Session-Token: abc123"
    )
    for folder, keeps in (("redacted", False), ("kept", True)):
        run = tmp_path / folder
        run.mkdir()
        rows, figures = kept(run, text, keep_secrets=keeps)
        (row,) = rows
        headers = {header["name"]: header["value"] for header in row["headers"]}
        assert json.loads(row["body"]) == ({**DOCUMENT, "token": "abc123" if keeps else "REDACTED"})
        assert (b"abc123" in headers["location"]) == (headers["x-session-token"] == b"abc123") == keeps
        assert b"n=1" in headers["location"]
        assert row["digest"] == naive_digest.digest(BODY)
        assert (figures.redacted, figures.secrets_kept) == (int(not keeps), keeps)


def test_only_their_owner_can_read_kept_responses(tmp_path: Path) -> None:
    kept(tmp_path, message(BODY))
    folder = tmp_path / "answers"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in folder.iterdir()] == [0o600]


@pytest.mark.parametrize(
    ("body", "clean"),
    [
        (b'{"a": 1}', b'{"a": 1}'),
        (b'{"password": "x", "b": 1.10}', b'{"password": "REDACTED", "b": 1.10}'),
        (b'{"access_token":"x\\"y","n":1}', b'{"access_token":"REDACTED","n":1}'),
        (b'{"secret": {"a": [1, 2]}, "n": 1}', b'{"secret": "REDACTED", "n": 1}'),
        (b'{"token": null, "pin": 1}', b'{"token": null, "pin": 1}'),
        (b'{"code": "OUT_OF_STOCK", "key": "size"}', b'{"code": "OUT_OF_STOCK", "key": "size"}'),
        (b'{"code": "4f6e8a1b2c3d4e5f6a7b8c"}', b'{"code": "REDACTED"}'),
        (b'{"n": 1, "token": "cut he', b'{"n": 1, "token": "REDACTED"'),
        (b'["eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc"]', b'["REDACTED"]'),
    ],
)
def test_secrets_of_json(body: bytes, clean: bytes) -> None:
    assert redact_json(body) == clean


@given(st.binary(max_size=80) | st.text('{}[]":,\\ tokensecretaey1', max_size=60).map(str.encode))
def test_redaction_takes_any_bytes(body: bytes) -> None:
    for redact in (redact_json, redact_text, redact_header):
        assert isinstance(redact(body), bytes)


def test_what_does_not_fit_the_disk_is_counted_and_the_thread_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first write fails: everything from then on is lost, and the rings are emptied all the same."""

    def fail(_writer: AnswersWriter, _columns: object) -> None:
        raise OutputError("no space left on device")

    monkeypatch.setattr(AnswersWriter, "write", fail)
    rows, figures = kept(tmp_path, *[message(BODY)] * 5)
    assert rows == [] and figures.kept == figures.bodies == 0
    assert figures.dropped == {"disk": 5}


def test_nothing_is_written_where_little_space_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "FREE_BYTES_MIN", 1 << 62)
    rows, figures = kept(tmp_path, *[message(BODY)] * 3)
    assert rows == [] and figures.dropped == {"disk": 3}


SELECTIONS: list[tuple[dict[str, Any], list[int]]] = [
    ({}, [n for n in range(40) if n % 3 != 1]),
    ({"methods": "all"}, list(range(40))),
    ({"methods": "POST"}, [n for n in range(40) if n % 3 == 1]),
    ({"methods": "all", "window": {"from": "+1s", "until": "+2s"}}, list(range(10, 30))),
    ({"window": {"from": "+1s"}}, [n for n in range(10, 40) if n % 3 != 1]),
]


@pytest.mark.parametrize(("chosen", "expected"), SELECTIONS)
def test_rows_are_those_of_the_trace_whatever_methods_and_windows_leave_out(
    tmp_path: Path, chosen: dict[str, Any], expected: list[int]
) -> None:
    rows = [Row(n * 100_000_000, "POST" if n % 3 == 1 else "GET", b"/%d" % n) for n in range(40)]
    trace = write_trace(tmp_path / "t.trace", rows)
    scenario = load(None, {"target": "http://127.0.0.1:1", "empty_bodies": True, **chosen})
    found, passes = make_schedule(trace, scenario).numbers().find(np.arange(2 * len(expected)))
    assert found.tolist() == expected * 2
    assert passes.tolist() == [0] * len(expected) + [1] * len(expected)


@given(data=st.data())
def test_numbers_are_the_rows_that_are_sent(data: st.DataObject) -> None:
    sent = sorted(data.draw(st.sets(st.integers(0, 60), min_size=1)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=4)))
    batches = np.split(np.array(sent, np.int64), cuts)
    numbers = RowNumbers.of_rows(batches, len(sent))
    assert numbers.find(np.arange(len(sent)))[0].tolist() == sent


def test_a_decoder_is_bounded() -> None:
    decoder = Decoder(limit=1_000)
    assert decoder.decode(gzip.compress(bytes(1_000)), "gzip") == bytes(1_000)
    for coding, packed in (
        ("gzip", gzip.compress(bytes(1_001), mtime=0)),
        ("br", bytes(cramjam.brotli.compress(bytes(1_001)))),
        ("zstd", bytes(cramjam.zstd.compress(bytes(1_001)))),
        ("deflate", zlib.compress(bytes(1_001))),
    ):
        with pytest.raises(TooLargeError):
            decoder.decode(packed, coding)
    with pytest.raises(ValueError, match="content codings"):
        decoder.decode(BODY, "gzip," * 9)


@given(st.binary(max_size=200), st.sampled_from(["gzip", "br", "zstd", "deflate", "x", ""]))
def test_a_decoder_takes_any_bytes(body: bytes, coding: str) -> None:
    with contextlib.suppress(ValueError, TooLargeError):
        assert isinstance(Decoder(1_000).decode(body, coding), bytes)


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "answers").write_text("")
    answers = AnswerKeeper(tmp_path, settings(), [])
    with pytest.raises(OutputError, match="cannot be made"):
        answers.begin(0)
    assert [path.name for path in tmp_path.iterdir()] == ["answers"]
