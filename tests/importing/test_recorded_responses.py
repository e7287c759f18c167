"""What an import keeps of recorded responses: no secrets, also in compressed bodies, and sizes that are right."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from pathlib import Path
from typing import Any

import cramjam
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.cli import import_, inspect
from replay.trace import RecordedResponse, Trace, body_digest
from replay.trace.importing import Options, import_files
from replay.trace.importing.codings import DECODED_BYTES_MAX, BadCoding, coding_of, decoded, encoded
from replay.trace.importing.formats.gor import SEPARATOR
from replay.trace.importing.readers.recorded_responses import RESPONSE_BODY_BYTES_MAX

AT = 1_700_000_000_000_000_000
SECRET = b'{"token": "s3cr3t-value", "id": 7}'
CODINGS = [b"gzip", b"deflate", b"br", b"zstd"]


def gor(
    folder: Path, *answers: bytes, sent: bytes = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n", **options: Any
) -> Trace:
    """A trace of a .gor file with one request for each response."""
    parts = []
    for number, answer in enumerate(answers):
        parts += [
            b"1 %x %d 0\n" % (number, AT + number) + sent,
            b"2 %x %d 500\n" % (number, AT + number + 9) + answer,
        ]
    (folder / "a.gor").write_bytes(SEPARATOR.join([*parts, b""]))
    return import_files([folder / "a.gor"], folder / "a.trace", options=Options(**options), overwrite=True)


def answer(body: bytes, *lines: bytes) -> bytes:
    return b"\r\n".join([b"HTTP/1.1 200 OK", *lines, b"Content-Length: %d" % len(body), b"", b""]) + body


@given(st.binary(max_size=300), st.integers(1, 40_000), st.sampled_from(CODINGS))
@settings(deadline=None)
def test_codings_come_off_and_on(begin: bytes, more: int, coding: bytes) -> None:
    body = begin + hashlib.shake_128(begin).digest(more)
    assert decoded(encoded(body, coding), coding) == body


@pytest.mark.parametrize("coding", CODINGS)
def test_half_a_body_is_not_taken_for_a_whole_one(coding: bytes) -> None:
    packed = encoded(hashlib.shake_128(b"").digest(9_000), coding)
    for size in (5, 100, len(packed) // 2, len(packed) - 1):
        with pytest.raises(BadCoding):
            decoded(packed[:size], coding)


@given(st.binary(min_size=1, max_size=300), st.sampled_from([*CODINGS, b"compress", b"gzip,br"]))
@settings(deadline=None)
def test_what_is_not_in_its_coding_is_refused(body: bytes, coding: bytes) -> None:
    """Few bytes are: then they are read."""
    try:
        assert decoded(body, coding) is not None
    except BadCoding as error:
        assert str(error)


@pytest.mark.parametrize("coding", CODINGS)
def test_a_small_body_that_stands_for_gigabytes_is_not_read(coding: bytes) -> None:
    bomb = encoded(bytes(DECODED_BYTES_MAX + 1), coding)
    with pytest.raises(BadCoding, match="too large"):
        decoded(bomb, coding)


def test_the_bare_deflate_of_some_servers_is_read() -> None:
    packer = zlib.compressobj(wbits=-15)
    assert decoded(packer.compress(b"abc" * 99) + packer.flush(), b"deflate") == b"abc" * 99


@pytest.mark.parametrize(
    ("headers", "coding"),
    [
        (((b"Content-Encoding", b"GZIP"),), b"gzip"),
        (((b"content-encoding", b"identity"),), b""),
        (((b"Content-Encoding", b"gzip, br"),), b"gzip,br"),
        ((), b""),
    ],
)
def test_codings_are_named(headers: tuple[tuple[bytes, bytes], ...], coding: bytes) -> None:
    assert coding_of(headers) == coding


@pytest.mark.parametrize("coding", CODINGS)
def test_secrets_in_compressed_bodies_are_taken_out(tmp_path: Path, coding: bytes) -> None:
    named, packed = b"Content-Encoding: " + coding, encoded(SECRET, coding)
    sent = b"POST /a HTTP/1.1\r\nHost: h\r\n%s\r\nContent-Length: %d\r\n\r\n" % (named, len(packed)) + packed
    trace = gor(tmp_path, answer(packed, b"Content-Type: application/json", named), sent=sent)
    kept = trace.response(0)
    assert kept is not None and kept.body is not None
    assert b"s3cr3t" not in decoded(kept.body, coding) and b'"id": 7' in decoded(kept.body, coding)
    assert (kept.size, kept.digest) == (len(packed), body_digest(packed))
    assert b"s3cr3t" not in decoded(trace.requests.body(0), coding)
    assert trace.manifest.secrets_by_name == {"token": 2}
    with_secrets = gor(
        tmp_path, answer(packed, b"Content-Type: application/json", named), sent=sent, keep_secrets=True
    )
    assert with_secrets.response(0) == RecordedResponse(
        "application/json", ((b"Content-Type", b"application/json"), (b"Content-Encoding", coding)), len(packed),
        body_digest(packed), packed,
    )  # fmt: skip


def test_a_body_that_is_not_in_its_coding_is_not_kept_and_counted(tmp_path: Path) -> None:
    trace = gor(tmp_path, answer(b"no gzip at all", b"Content-Type: text/plain", b"Content-Encoding: gzip"))
    kept = trace.response(0)
    assert kept is not None and kept.body is None and kept.digest == body_digest(b"no gzip at all")
    assert any("1 response cannot be decoded" in each for each in trace.manifest.assumptions)


def test_a_body_that_is_no_text_is_known_by_its_digest(tmp_path: Path) -> None:
    image = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
    pair = answer(image, b"Content-Type: image/png"), answer(b"\x00\x01" * 90)
    trace = gor(tmp_path, *pair)
    assert [kept.digest for kept in trace.recorded_responses() if kept] == [
        body_digest(image),
        body_digest(b"\x00\x01" * 90),
    ]
    assert trace.manifest.response_bodies == 0
    assert any(
        "2 responses are not text" in each and "--responses all" in each
        for each in trace.manifest.assumptions
    )
    assert gor(tmp_path, *pair, responses="all").manifest.response_bodies == 2


def test_of_a_long_body_the_beginning_is_kept(tmp_path: Path) -> None:
    body = b'{"a": "%s"}' % (b"x" * RESPONSE_BODY_BYTES_MAX)
    trace = gor(tmp_path, answer(body, b"Content-Type: application/json"))
    kept = trace.response(0)
    assert kept is not None and kept.body == body[:RESPONSE_BODY_BYTES_MAX] and kept.cut
    assert (kept.size, kept.digest) == (len(body), body_digest(body))
    assert trace.manifest.response_bodies_cut == 1


@pytest.mark.parametrize(
    ("sent", "said", "size", "digest"),
    [
        (b"HEAD /a HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 77\r\n\r\n", 0, body_digest(b"")),
        (b"GET /a HTTP/1.1\r\n\r\n", b"HTTP/1.1 304 N\r\nA: b\r\nContent-Length: 77\r\n\r\n", 0, body_digest(b"")),
        (b"GET /a HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 77\r\n\r\n", 77, 0),
        (b"GET /a HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n", -1, 0),
        (
            b"GET /a HTTP/1.1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nA: b\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n",
            4, body_digest(b"abcd"),
        ),
        (b"GET /a HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 77\r\n\r\nabc", 77, 0),
    ],
)  # fmt: skip
def test_the_size_is_that_of_the_body_on_the_wire(
    tmp_path: Path, sent: bytes, said: bytes, size: int, digest: int
) -> None:
    kept = gor(tmp_path, said, sent=sent).response(0)
    assert kept is not None
    assert (kept.headers, kept.size, kept.digest) == (((b"A", b"b"),), size, digest)
    assert kept.cut == (said.endswith(b"\r\n\r\nabc"))


def test_a_response_of_which_nothing_is_known_is_none(tmp_path: Path) -> None:
    trace = gor(tmp_path, b"HTTP/1.1 200 -\r\nContent-Length: 5\r\n\r\n")
    assert trace.response(0) is None
    assert trace.manifest.format_version == 2


def har(folder: Path, **response: Any) -> Trace:
    entry = {
        "startedDateTime": "2023-11-14T22:13:20.000Z", "time": 30,
        "request": {"method": "GET", "url": "http://h/a", "headers": []},
        "response": {"status": 200, "headers": [], **response},
        "timings": {"blocked": 5, "send": 1, "wait": 10.5, "receive": 3},
    }  # fmt: skip
    (folder / "a.har").write_text(json.dumps({"log": {"entries": [entry]}}))
    return import_files([folder / "a.har"], folder / "a.trace", overwrite=True)


def pairs(**headers: str) -> list[dict[str, str]]:
    return [{"name": name.replace("_", "-"), "value": value} for name, value in headers.items()]


@pytest.mark.parametrize(
    ("response", "wanted"),
    [
        (
            {"headers": pairs(X="1"), "content": {"size": 3, "mimeType": "text/plain; charset=iso-8859-1", "text": "äöü"}},
            RecordedResponse("text/plain", ((b"X", b"1"),), 3, body_digest(b"\xe4\xf6\xfc"), b"\xe4\xf6\xfc"),
        ),
        (
            {"content": {"size": 4, "mimeType": "image/png", "text": "AAEC/w==", "encoding": "base64"}},
            RecordedResponse("image/png", (), 4, body_digest(b"\x00\x01\x02\xff")),
        ),
        (
            {
                "headers": pairs(Content_Encoding="br", Content_Type="text/css"), "bodySize": 2,
                "content": {"size": 4, "text": "a{} "},
            },
            RecordedResponse("text/css", ((b"Content-Type", b"text/css"),), 2, 0, b"a{} "),
        ),
        ({"content": {"size": 99, "mimeType": "text/html"}}, RecordedResponse("text/html", (), 99)),
        (
            {"content": {"size": 9, "mimeType": "text/html", "text": "<h1"}},
            RecordedResponse("text/html", (), 9, 0, b"<h1", cut=True),
        ),
        (
            {"content": {"size": 4, "mimeType": "image/png", "text": "AAEC\r\n/w==\r\n", "encoding": "base64"}},
            RecordedResponse("image/png", (), 4, body_digest(b"\x00\x01\x02\xff")),
        ),
        *(
            ({"content": {"size": 4, "mimeType": "a/b", "text": text, "encoding": "base64"}}, RecordedResponse("a/b", (), 4))
            for text in ("!", "AA!EC/w==", "AAEC/w==é")
        ),
        ({"content": {"size": 0, "mimeType": "x-unknown", "text": ""}}, RecordedResponse("", (), 0, body_digest(b""), b"")),
        ({"content": {"size": 9, "mimeType": "x-unknown"}}, None),
    ],
)  # fmt: skip
def test_responses_of_a_har(
    tmp_path: Path, response: dict[str, Any], wanted: RecordedResponse | None
) -> None:
    trace = har(tmp_path, **response)
    assert trace.response(0) == wanted
    (batch,) = trace.batches()
    assert batch.first_byte_ns is not None and batch.first_byte_ns.tolist() == [11_500_000]


def test_a_cookie_that_is_set_has_a_pseudonym(tmp_path: Path) -> None:
    trace = har(tmp_path, headers=pairs(Set_Cookie="sid=1", X="1"))
    kept = trace.response(0)
    assert kept is not None and kept.headers[1:] == ((b"X", b"1"),)
    name, value = kept.headers[0]
    assert (
        name == b"Set-Cookie"
        and value
        and value.startswith(b"sid=")
        and value != b"sid=1"
        and len(value) == 5
    )
    assert trace.manifest.secrets_by_name == {"sid": 1}


def test_the_commands_say_what_is_recorded(tmp_path: Path) -> None:
    gor(
        tmp_path,
        answer(SECRET, b"Content-Type: application/json"),
        answer(b"\0\1", b"Content-Type: image/gif"),
    )
    words = [str(tmp_path / "a.gor"), "-o", str(tmp_path / "b.trace")]
    said = " ".join(CliRunner().invoke(import_.command, words, catch_exceptions=False).output.split())
    assert "responses recorded for 2 requests (100%), 1 with their bodies" in said
    done = CliRunner().invoke(
        import_.command, [*words, "--force", "--json", "--responses", "all"], catch_exceptions=False
    )
    assert json.loads(done.output)["response_bodies"] == 2
    shown = CliRunner().invoke(inspect.command, [str(tmp_path / "b.trace")], catch_exceptions=False)
    assert "application/json 50%, 34 bytes on average" in " ".join(shown.output.split())
    found = json.loads(CliRunner().invoke(inspect.command, [str(tmp_path / "b.trace"), "--json"]).output)
    assert found["bodies"] == {"requests": 0, "distinct": 0, "bytes": 0, "types": []}
    assert found["responses"]["types"][1] == {"type": "image/gif", "messages": 1, "sized": 1, "bytes": 2}


def test_bodies_of_requests_are_shown_by_type(tmp_path: Path) -> None:
    bodies = [
        (b"application/json", b"[1]"),
        (b"application/json; charset=utf-8", b"[1]"),
        (b"a/b", b"xyz12"),
        (b"", b"q"),
    ]
    parts = []
    for number in range(40):
        kind, body = bodies[number % 4]
        named = b"Content-Type: %s\r\n" % kind if kind else b""
        head = b"POST /a HTTP/1.1\r\nHost: h\r\n%sContent-Length: %d\r\n\r\n" % (named, len(body))
        parts.append(b"1 %x %d 0\n" % (number, AT + number) + head + body)
    (tmp_path / "a.gor").write_bytes(SEPARATOR.join([*parts, b""]))
    found = json.loads(CliRunner().invoke(inspect.command, [str(tmp_path / "a.gor"), "--json"]).output)
    assert found["bodies"] == {
        "requests": 40, "distinct": 3, "bytes": 120,
        "types": [
            {"type": "application/json", "messages": 20, "sized": 20, "bytes": 60},
            {"type": "a/b", "messages": 10, "sized": 10, "bytes": 50},
            {"type": "", "messages": 10, "sized": 10, "bytes": 10},
        ],
    }  # fmt: skip


def test_cramjam_is_what_the_standard_library_reads() -> None:
    assert gzip.decompress(encoded(SECRET, b"gzip")) == SECRET
    assert bytes(cramjam.brotli.decompress(encoded(SECRET, b"br"))) == SECRET
