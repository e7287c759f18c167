"""The response parser: whole answers at any split, what frames them, what is refused; and h11 as the judge."""

import pytest

from . import http1_oracle as oracle
from .http1_oracle import ANSWERS, Verdict

pytestmark = pytest.mark.boundscheck


def verdict(data: bytes, *, head: bool = False, eof: bool = False) -> Verdict:
    return oracle.ours(data, list(range(1, len(data))), head, eof)


@pytest.mark.parametrize("data", ANSWERS)
def test_an_answer_is_the_same_at_every_split(data):
    eof = data.startswith(b"HTTP/1.0")
    whole = oracle.ours(data, [], False, eof)
    assert whole.state == "whole"
    for cut in range(len(data) + 1):
        assert oracle.ours(data, [cut], False, eof) == whole
    assert verdict(data, eof=eof) == whole


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\n", "two lengths"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 05\r\n\r\n", "two ways to write a length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", "a negative length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5 5\r\n\r\n", "a length with a space in it"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "a coding nobody asked for"),
        (b"HTTP/1.1 200 OK\r\nBad Name: x\r\n\r\n", "a space in a name"),
        (b"HTTP/1.1 200 OK\r\n: x\r\n\r\n", "no name"),
        (b"HTTP/1.1 200 OK\r\nX: a\x00b\r\n\r\n", "NUL"),
        (b"HTTP/1.1 20 OK\r\n\r\n", "a short status"),
        (b"ICY 200 OK\r\n\r\n", "not HTTP"),
        (b"\r\nHTTP/1.1 200 OK\r\n\r\n", "an empty line first"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n",
            "no line end after a chunk",
        ),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "a chunk size that is no number"),
        (b"HTTP/1.1 101 Switching\r\n\r\n", "an upgrade nobody asked for"),
    ],
)
def test_a_broken_answer_is_malformed(data, why):
    assert verdict(data).state == "malformed", why


def test_headers_without_end_are_malformed_at_the_limit():
    data = b"HTTP/1.1 200 OK\r\nX: " + b"a" * oracle.HEADER_LIMIT
    assert oracle.ours(data, [1_000, 2_000], False, False).state == "malformed"


def test_an_answer_to_head_has_no_body():
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"
    assert verdict(answer, head=True) == Verdict("whole", 200, 0, 1, True)
    assert verdict(answer).state == "more"


def test_a_body_until_close_ends_with_the_connection():
    answer = b"HTTP/1.1 200 OK\r\n\r\nsome text"
    assert verdict(answer).state == "more"
    assert verdict(answer, eof=True) == Verdict("whole", 200, 9, 0, False)


def test_it_agrees_with_h11_on_mutated_answers():
    complaints = [complaint for seed in range(4_000) if (complaint := oracle.one_case(seed))]
    assert not complaints, complaints[0]
