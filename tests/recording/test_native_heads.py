"""Heads that the native receiver reads: framing accepts each of them with the same meaning."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.recording import framing
from replay_native.ground.jit import warm
from replay_native.mirror.request import INCOMPLETE, UNUSUAL, H, read_one_head

warm(["mirror.request"])

LINES = [
    b"Host: shop.example", b"Host: x:80", b"host:x", b"Host: [::1]:80", b"Host: x:", b"Host: a b", b"Host:",
    b"Content-Length: 5", b"content-length:5", b"Content-Length: +5", b"Content-Length: 5, 5", b"Content-Length: ",
    b"Content-Length: 00000000000000000005", b"Content_Length: 5", b"Transfer-Encoding: chunked",
    b"Connection: close", b"Connection: Keep-Alive", b"Connection: upgrade", b"Connection: close, te", b"Upgrade: x",
    b"Expect: 100-continue", b"X-Any: a\tb", b"X-Any: \xc3\xa4", b"X-Any: a\x00b", b"X Any: a", b": a", b"X-Any : a",
    b" folded", b"X-Any: a\rb", b"X-Any: a\nb", b"NoColon", b"Transfer_Encoding: x",
]  # fmt: skip
FIRST_LINES = [
    b"GET / HTTP/1.1", b"POST /a?b=%20 HTTP/1.0", b"GET http://x/ HTTP/1.1", b"GET * HTTP/1.1", b"CONNECT x:1 HTTP/1.1",
    b"connect /x HTTP/1.1", b"GET /a b HTTP/1.1", b"GET /\xc3\xa4 HTTP/1.1", b"GET / HTTP/1.2", b"GET / http/1.1",
    b"GET / HTTP/2.0", b"GET /", b"G@T / HTTP/1.1", b"GET  / HTTP/1.1", b"PRI * HTTP/2.0", b"GET /\x7f HTTP/1.1",
]  # fmt: skip
ENDS = [b"\r\n", b"\r\n", b"\r\n", b"\n"]
heads = st.builds(
    lambda first, lines, ends: b"".join(
        line + end for line, end in zip([first, *lines, b""], ends, strict=False)
    ),
    st.sampled_from(FIRST_LINES),
    st.lists(st.sampled_from(LINES), max_size=4),
    st.lists(st.sampled_from(ENDS), min_size=6, max_size=6),
)
mangled = st.builds(
    lambda head, at, byte: head[:at] + bytes([byte]) + head[at + 1 :],
    heads,
    st.integers(0, 80),
    st.integers(0, 255),
)


def read(data: bytes) -> tuple[int, np.ndarray]:
    head = np.zeros(len(H), np.int64)
    return int(read_one_head(np.frombuffer(bytearray(data + b"?"), np.uint8)[: len(data)], head)), head


@given(heads | mangled)
def test_a_usual_head_means_the_same_to_framing(data):
    length, found = read(data)
    if length == UNUSUAL:
        return
    if length == INCOMPLETE:
        assert b"\r\n\r\n" not in data
        return
    head = framing.request_head(data)
    assert head is not None
    assert (head.length, head.end, head.minor) == (length, found[H.head_end], found[H.minor])
    assert head.keeps == bool(found[H.keeps])
    assert data[: found[H.line_end]].count(b"\n") == 1
    assert not head.upgrades and not head.expects


@pytest.mark.parametrize(
    ("lines", "length", "keeps"),
    [
        ([b"GET / HTTP/1.1", b"Host: x"], 0, True),
        ([b"POST /a?b=c HTTP/1.1", b"Host: x:80", b"Content-Length: 12"], 12, True),
        ([b"GET / HTTP/1.0", b"Connection: close"], 0, False),
        ([b"GET / HTTP/1.0", b"Connection: keep-alive"], 0, True),
    ],
)
def test_what_proxies_send_is_usual(lines, length, keeps):
    found, head = read(b"\r\n".join([*lines, b"", b""]))
    assert found == length
    assert bool(head[H.keeps]) == keeps
