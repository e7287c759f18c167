import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from replay.rehearsal.toml_text import laid_over, toml_text

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
PLAIN = st.one_of(
    st.booleans(), st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False), TEXTS
)
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=12,
)
DOCUMENTS = st.dictionaries(TEXTS, VALUES, max_size=5)


@given(DOCUMENTS)
def test_what_is_written_reads_back(document):
    assert tomllib.loads(toml_text(document, "a comment\nof two lines")) == document


def test_a_document_laid_over_another_changes_only_what_it_names():
    below: dict[str, Any] = {
        "seed": 1,
        "services": {"auth": {"workers": 8, "calls": ["a", "b"]}, "cms": {"workers": 1}},
    }
    above = {"services": {"auth": {"workers": 2, "calls": []}}}
    assert laid_over(below, above) == {
        "seed": 1,
        "services": {"auth": {"workers": 2, "calls": []}, "cms": {"workers": 1}},
    }
    assert below["services"]["auth"]["workers"] == 8
