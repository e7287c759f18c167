"""Bodies are searched for parts of names of secrets in several places at once: no part is missed where two places meet."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import types

from replay.recording.batches import BatchReader
from replay.recording.body_limits import BodyLimits
from replay.recording.record_maker import RecordMaker
from replay.recording.ring import MirrorRing
from replay.trace.importing.cleaning import IGNORED_IN_NAMES, PARTS_OF_NAMES
from replay_native.ground.jit import kernel
from replay_native.mirror.cleaning import CHECKS_TYPE, STREAM_BYTES_MIN, STREAMS, has_name

from .test_batches import setup

LONG = STREAMS * STREAM_BYTES_MIN
# Beginnings of names, and bytes that are ignored between the bytes of one.
PIECES = st.sampled_from(
    [part[:end] for part in PARTS_OF_NAMES for end in range(1, len(part))] + [b"-", b"_.", b"x", b" "]
)


@kernel(types.boolean(types.uint8[::1], types.int64, types.int64, CHECKS_TYPE))
def search(data, begin, end, checks):
    return has_name(data, begin, end, checks)


@pytest.fixture(scope="module")
def checks():
    reader = BatchReader(MirrorRing.create(1 << 16), RecordMaker(setup()), BodyLimits(1 << 20))
    return reader.checks()


def has_part(body: bytes) -> bool:
    plain = body.translate(None, IGNORED_IN_NAMES).lower()
    return any(part in plain for part in PARTS_OF_NAMES)


def found(body: bytes, checks) -> bool:
    return bool(search(np.frombuffer(b"<" + body, np.uint8), 1, len(body) + 1, checks))


@pytest.mark.parametrize("size", [LONG, LONG + 5, 2 * LONG + 7])
def test_a_part_is_found_at_each_place_of_a_body(size, checks):
    for part in PARTS_OF_NAMES:
        for at in range(size - len(part) + 1):
            body = b"x" * at + part + b"x" * (size - len(part) - at)
            assert found(body, checks), (part, at)


@pytest.mark.parametrize("size", [1, LONG - 1, LONG, LONG + 7, 4 * LONG])
def test_a_body_of_one_letter_holds_no_part(size, checks):
    for letter in b"acpstx7 ":
        assert not found(bytes([letter]) * size, checks)


@given(st.lists(PIECES, min_size=1, max_size=400))
def test_a_search_finds_what_a_plain_one_does(checks, pieces):
    body = b"".join(pieces)
    assert found(body, checks) == has_part(body)
