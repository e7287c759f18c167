"""A value that looks like two secrets at once is replaced, and the marks of the search are never left in it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.trace.importing import Found, Options
from replay.trace.importing.cleaning import Cleaner

PIECES = [
    "joe@", "shop.example", "@", ".", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc", "eyJIn0.", "DE89370400440532013000",
    "4111111111111111", "+49 30 1234567", "Bearer ", "abcdefgh12345678", "token=", '"password": "', '"', "&", " ", "://",
    ":", "/", "%3D", "REDACTED",
]  # fmt: skip
texts = st.lists(st.sampled_from(PIECES), max_size=10).map("".join)


def cleaner() -> Cleaner:
    return Cleaner(Found(key=bytes(32)), Options())


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (
            b"joe@shop.eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc",
            [b"joe", b"shop", b"hbGciOiJIUzI1NiJ9", b"zdWIiOiIxIn0"],
        ),
        (b"e@s.eyJIn0.", [b"e@s", b"eyJIn0"]),
    ],
)
def test_an_address_that_ends_in_a_token_is_replaced(text: bytes, parts: list[bytes]) -> None:
    clean = cleaner().body(text)
    assert not [part for part in parts if part in clean]


@given(texts)
def test_every_text_can_be_written_after_its_secrets_were_replaced(text: str) -> None:
    # A mark is a character that Latin-1 does not have, so one that is left fails here.
    cleaner().body(text.encode())
    cleaner().headers([(b"X-Any", text.encode()), (b"Referer", b"http://x/" + text.encode())])
    cleaner().target(b"/" + text.encode())
