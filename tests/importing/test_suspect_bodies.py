"""The quick look at a body that spares most of them the thorough one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from replay.trace.importing import cleaning

WORDS = st.sampled_from(cleaning.PARTS_OF_NAMES)


@given(st.lists(st.one_of(st.binary(max_size=20), WORDS, WORDS.map(lambda word: word[:-1]))).map(b"".join))
def test_a_suspect_body_has_one_of_the_words_wherever_it_is(body: bytes) -> None:
    assert bool(cleaning._NAMES.search(body)) == any(word in body for word in cleaning.PARTS_OF_NAMES)
