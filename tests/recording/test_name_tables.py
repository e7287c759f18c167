"""Each search of a body for parts of secret names finds exactly what a search in plain Python finds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import types

from replay.recording.name_tables import name_tables
from replay.trace.importing.cleaning import IGNORED_IN_NAMES, PARTS_OF_NAMES
from replay_native.ground.bundle import numba_type
from replay_native.ground.jit import kernel
from replay_native.ground.nibbles import HAS_NIBBLES, PREFIX_READ_BYTES
from replay_native.mirror.name_search import Names, search_bytes, search_prefixes

SIGNATURE = types.boolean(types.uint8[::1], types.int64, types.int64, numba_type(Names))
BEFORE, AFTER = b"pass", b"word-token"
# Beginnings of names, and bytes that are ignored between the bytes of one.
PIECES = st.sampled_from(
    [part[:end] for part in PARTS_OF_NAMES for end in range(1, len(part))]
    + [b"-", b"_.", b"x", b" ", b"K", b"Pas", b"\xe9", b"\0"]
)


@kernel(SIGNATURE)
def by_bytes(data, begin, end, names):
    return search_bytes(data, begin, end, names)


@kernel(SIGNATURE)
def by_prefixes(data, begin, end, names):
    return search_prefixes(data, begin, end, names)


NO_AVX2 = pytest.mark.skipif(not HAS_NIBBLES, reason="kernels are compiled for a CPU without AVX2")


@pytest.fixture(
    params=[by_bytes, pytest.param(by_prefixes, marks=NO_AVX2)], ids=["bytes", "prefixes"], scope="module"
)
def search(request):
    names = name_tables(PARTS_OF_NAMES, IGNORED_IN_NAMES)

    def found(body: bytes, before: bytes = b"", after: bytes = b"") -> bool:
        data = np.frombuffer(before + body + after, np.uint8)
        return bool(request.param(data, len(before), len(before) + len(body), names))

    return found


def has_part(body: bytes) -> bool:
    plain = body.translate(None, IGNORED_IN_NAMES).lower()
    return any(part in plain for part in PARTS_OF_NAMES)


@pytest.mark.parametrize("size", [PREFIX_READ_BYTES - 1, PREFIX_READ_BYTES, 3 * PREFIX_READ_BYTES + 7])
def test_a_part_is_found_at_each_place_of_a_body(size, search):
    for part in PARTS_OF_NAMES:
        for at in range(size - len(part) + 1):
            body = b"x" * at + part + b"x" * (size - len(part) - at)
            assert search(body), (part, at)
            assert search(body.upper(), after=b"x" * PREFIX_READ_BYTES), (part, at)


@pytest.mark.parametrize(
    "size", [1, PREFIX_READ_BYTES - 1, PREFIX_READ_BYTES, PREFIX_READ_BYTES + 7, 4 * PREFIX_READ_BYTES]
)
def test_a_body_of_one_letter_holds_no_part(size, search):
    for letter in b"acpstx7 ":
        assert not search(bytes([letter]) * size)


@pytest.mark.parametrize("size", range(PREFIX_READ_BYTES + 3))
def test_bytes_outside_of_a_body_are_not_searched(size, search):
    assert not search(b"x" * size, before=BEFORE, after=AFTER + b"x" * PREFIX_READ_BYTES)
    assert not search(b"x" * size + b"to", after=b"ken" + b"x" * PREFIX_READ_BYTES)


@pytest.mark.parametrize("ignored", [b"-", b"_", b".", b"[", b"]", b"-_.[]"])
def test_ignored_bytes_may_stand_between_the_bytes_of_a_part(ignored, search):
    for part in PARTS_OF_NAMES:
        spread = ignored.join(part[at : at + 1] for at in range(len(part)))
        assert search(b"x" * 40 + spread + b"x" * 40), part


@given(
    pieces=st.lists(PIECES, min_size=1, max_size=400),
    after=st.sampled_from([b"", AFTER, b"x" * PREFIX_READ_BYTES]),
)
def test_a_search_finds_what_a_plain_one_does(search, pieces, after):
    body = b"".join(pieces)
    assert search(body, BEFORE, after) == has_part(body)


@given(body=st.binary(max_size=200))
def test_a_search_of_any_bytes_finds_what_a_plain_one_does(search, body):
    assert search(body) == has_part(body)


def test_a_body_of_ignored_bytes_is_read_once_and_not_from_each_of_its_bytes(search):
    """Reading it from each byte would take hours."""
    run = b"-" * (1 << 22)
    assert not search(run)
    assert search(b"p" + run + b"w" + run)
