"""Request framing: what two servers could read differently is refused on the raw bytes; what is taken, h11 reads alike."""

from __future__ import annotations

import contextlib

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.recording import framing
from tests.oracles import framing_oracle

GOOD = b"POST /a?b=1 HTTP/1.1\r\nHost: x\r\n"

AMBIGUOUS = {
    "both lengths": GOOD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
    "both lengths, the other order": GOOD + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
    "two lengths": GOOD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\n",
    "the same length twice": GOOD + b"Content-Length: 3\r\ncontent-length: 3\r\n\r\n",
    "a list of lengths": GOOD + b"Content-Length: 3, 3\r\n\r\n",
    "a sign": GOOD + b"Content-Length: +3\r\n\r\n",
    "a negative length": GOOD + b"Content-Length: -3\r\n\r\n",
    "a hexadecimal length": GOOD + b"Content-Length: 0x3\r\n\r\n",
    "an underscore in a length": GOOD + b"Content-Length: 1_0\r\n\r\n",
    "an empty length": GOOD + b"Content-Length: \r\n\r\n",
    "a length of 30 digits": GOOD + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n",
    "a folded header": GOOD + b"X: a\r\n Transfer-Encoding: chunked\r\n\r\n",
    "a folded header with a tab": GOOD + b"X: a\r\n\tb\r\n\r\n",
    "a first header that is folded": b"GET / HTTP/1.1\r\n Host: x\r\n\r\n",
    "a bare line feed in the headers": GOOD + b"X: a\nTransfer-Encoding: chunked\r\n\r\n",
    "bare line feeds alone": b"GET / HTTP/1.1\nHost: x\n\n",
    "a bare line feed behind the request line": b"GET / HTTP/1.1\nHost: x\r\n\r\n",
    "a bare carriage return": GOOD + b"X: a\rTransfer-Encoding: chunked\r\n\r\n",
    "a NUL": GOOD + b"X: a\0b\r\n\r\n",
    "a blank before the colon": GOOD + b"Transfer-Encoding : chunked\r\n\r\n",
    "a tab before the colon": GOOD + b"Content-Length\t: 3\r\n\r\n",
    "a vertical tab in the coding": GOOD + b"Transfer-Encoding: \x0bchunked\r\n\r\n",
    "a header without a colon": GOOD + b"Transfer-Encoding\r\n\r\n",
    "a header without a name": GOOD + b": chunked\r\n\r\n",
    "a blank in a name": GOOD + b"Content Length: 3\r\n\r\n",
    "an unknown coding": GOOD + b"Transfer-Encoding: xchunked\r\n\r\n",
    "compressed and chunked": GOOD + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
    "identity": GOOD + b"Transfer-Encoding: identity\r\n\r\n",
    "chunked twice": GOOD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "chunked and then identity": GOOD + b"Transfer-Encoding: chunked, identity\r\n\r\n",
    "a coding in quotes": GOOD + b'Transfer-Encoding: "chunked"\r\n\r\n',
    "chunked in HTTP/1.0": b"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
    "an underscore for a hyphen": GOOD + b"Transfer_Encoding: chunked\r\n\r\n",
    "an underscore for a hyphen in a length": GOOD + b"Content_Length: 3\r\n\r\n",
    "Connection names the length": GOOD + b"Content-Length: 3\r\nConnection: content-length\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "a host with a path": b"GET / HTTP/1.1\r\nHost: x/y\r\n\r\n",
    "a host with a user": b"GET / HTTP/1.1\r\nHost: a@x\r\n\r\n",
    "a target of another host": b"GET http://y/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "a target without a slash": b"GET a HTTP/1.1\r\nHost: x\r\n\r\n",
    "two blanks in the request line": b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a tab in the request line": b"GET\t/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "a blank behind the version": b"GET / HTTP/1.1 \r\nHost: x\r\n\r\n",
    "a blank before the method": b" GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a version in lower case": b"GET / http/1.1\r\nHost: x\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
}

OTHERS = {
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "a version to come": (b"GET / HTTP/1.2\r\nHost: x\r\n\r\n", 505),
    "CONNECT": (b"CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n", 405),
    "endless headers": (GOOD + b"X: " + b"a" * framing.HEAD_BYTES_MAX, 431),
    "a long target": (b"GET /" + b"a" * framing.TARGET_BYTES_MAX + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
    "an endless target": (b"GET /" + b"a" * framing.HEAD_BYTES_MAX, 414),
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_what_two_servers_could_read_differently_is_refused(name):
    with pytest.raises(framing.RefusedError) as refused:
        framing.request_head(AMBIGUOUS[name])
    assert refused.value.status == 400
    assert refused.value.why


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_not_spoken_has_its_own_status(name):
    data, status = OTHERS[name]
    with pytest.raises(framing.RefusedError) as refused:
        framing.request_head(data)
    assert refused.value.status == status


BAD_CHUNKS = {
    "a size with a sign": b"+5\r\nhello\r\n0\r\n\r\n",
    "a size with 0x": b"0x5\r\nhello\r\n0\r\n\r\n",
    "an underscore in a size": b"0_5\r\nhello\r\n0\r\n\r\n",
    "a blank before a size": b" 5\r\nhello\r\n0\r\n\r\n",
    "a blank behind a size": b"5 \r\nhello\r\n0\r\n\r\n",
    "a size with a bare line feed": b"5\nhello\r\n0\r\n\r\n",
    "an extension with a bare line feed": b"5;a\nhello\r\n0\r\n\r\n",
    "an extension with a bare carriage return": b"5;a\rb\r\nhello\r\n0\r\n\r\n",
    "a chunk longer than its size": b"4\r\nhello\r\n0\r\n\r\n",
    "a chunk that ends with a bare line feed": b"5\r\nhello\n0\r\n\r\n",
    "a chunk that ends with other bytes": b"5\r\nhelloXX0\r\n\r\n",
    "no size": b"\r\nhello\r\n0\r\n\r\n",
    "a size of 17 digits": b"00000000000000005\r\nhello\r\n0\r\n\r\n",
    "an endless extension": b"5;" + b"a" * framing.CHUNK_LINE_BYTES_MAX,
    "a trailer with a bare line feed": b"0\r\nX: a\nY: b\r\n\r\n",
    "a trailer without a colon": b"0\r\nGET / HTTP/1.1\r\n\r\n",
    "a length among the trailers": b"0\r\nContent-Length: 3\r\n\r\n",
    "a bare line feed behind the trailers": b"0\r\n\n",
    "endless trailers": b"0\r\nX: " + b"a" * framing.TRAILER_BYTES_MAX,
}


@pytest.mark.parametrize("name", BAD_CHUNKS)
@pytest.mark.parametrize("step", [1, 3, 1 << 20])
def test_chunk_sizes_have_one_meaning(name, step):
    with pytest.raises(ValueError):
        _fed(framing.ChunkedBody(lambda piece: None), BAD_CHUNKS[name], step)


def _fed(body: framing.Body, data: bytes, step: int) -> int:
    """Feed a body in pieces; the count of bytes that it took."""
    buffer, taken = bytearray(), 0
    for begin in range(0, len(data), step):
        buffer += data[begin : begin + step]
        count = body.take(buffer, 0)
        taken += count
        del buffer[:count]
        if body.done:
            break
    return taken


@given(
    chunks=st.lists(st.binary(min_size=1, max_size=40), max_size=6),
    extension=st.sampled_from([b"", b";a=b", b" ;x"]),
    trailer=st.sampled_from([b"", b"X-Sum: 1\r\n"]),
    step=st.integers(1, 50),
    behind=st.binary(max_size=20),
)
def test_chunked_bodies_come_out_whole_however_they_are_cut(chunks, extension, trailer, step, behind):
    raw = b"".join(b"%X%b\r\n%b\r\n" % (len(chunk), extension, chunk) for chunk in chunks) + b"0\r\n"
    raw += trailer + b"\r\n"
    found = bytearray()
    body = framing.ChunkedBody(found.extend)
    assert _fed(body, raw + behind, step) == len(raw)
    assert body.done
    assert found == b"".join(chunks)


_TOKEN = st.text("abcXYZ019-_.!", min_size=1, max_size=12)
_VALUE = st.text('abc XYZ,;=\t:/"é', max_size=20)


@given(
    method=st.sampled_from(["GET", "POST", "PATCH", "M-SEARCH"]),
    headers=st.lists(st.tuples(_TOKEN, _VALUE), max_size=6),
    length=st.none() | st.integers(0, 50),
    chunked=st.booleans(),
    cut=st.integers(0, 400),
    noise=st.lists(st.tuples(st.integers(0, 400), st.sampled_from(b"\r\n \t:\0a0")), max_size=2),
)
def test_a_head_that_is_taken_means_the_same_to_h11(method, headers, length, chunked, cut, noise):
    """h11 takes more than we do; whatever we take, it reads the same way."""
    lines = [f"{method} /a?b=1 HTTP/1.1", "Host: x", *(f"{name}: {value}" for name, value in headers)]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    if chunked:
        lines.append("Transfer-Encoding: chunked")
    raw = bytearray("\r\n".join([*lines, "", ""]).encode("latin-1"))
    for at, byte in noise:
        raw[at % len(raw)] = byte
    raw = raw[: len(raw) - cut] if cut < len(raw) // 2 and cut % 3 == 0 else raw
    try:
        head = framing.request_head(raw)
    except framing.RefusedError:
        return
    if head is None:
        assert raw.find(b"\r\n\r\n") < 0
        return
    judge = h11.Connection(h11.SERVER)
    judge.receive_data(bytes(raw))
    request = judge.next_event()
    assert isinstance(request, h11.Request)
    assert request.method == head.method
    assert request.target == head.target
    assert [(n, v) for n, v in request.headers.raw_items()] == [(n, v) for n, v in head.headers]
    known = dict(request.headers)
    expected = -1 if b"transfer-encoding" in known else int(known.get(b"content-length", b"0"))
    assert head.length == expected
    assert head.end == len(raw) - len(judge.trailing_data[0])


@pytest.mark.parametrize("case", [framing_oracle.request_case, framing_oracle.response_case])
def test_mutated_messages_mean_the_same_to_h11_or_are_refused(case):
    assert [complaint for seed in range(2_000) if (complaint := case(seed))] == []


@given(st.binary(max_size=200))
def test_any_bytes_are_a_head_a_part_of_one_or_refused(data):
    with contextlib.suppress(framing.RefusedError):
        framing.request_head(data)
    with contextlib.suppress(ValueError):
        framing.response_head(data, b"GET")


@pytest.mark.parametrize(
    ("raw", "method", "status", "length"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b"GET", 200, 5),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b"HEAD", 200, 0),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", b"GET", 304, 0),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"GET", 204, 0),
        (b"HTTP/1.1 100 Continue\r\n\r\n", b"POST", 100, 0),
        (b"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n", b"GET", 200, -1),
        (b"HTTP/1.0 200 OK\nServer: old\n\n", b"GET", 200, None),
    ],
)
def test_responses_are_read_as_servers_write_them(raw, method, status, length):
    head = framing.response_head(raw, method)
    assert head is not None
    assert (head.status, head.length, head.end) == (status, length, len(raw))


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
    ],
)
def test_a_response_without_one_meaning_is_no_response(raw):
    with pytest.raises(ValueError):
        framing.response_head(raw, b"GET")
