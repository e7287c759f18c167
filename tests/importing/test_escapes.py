"""The fast forms of patterns for texts without escapes find the same as the forms for any text."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from replay.trace.importing.cleaning import WORD
from replay.trace.importing.escapes import EscapedPattern
from replay.trace.importing.people import CARD, EMAIL, IBAN, JWT, PHONE
from replay.trace.importing.pseudonyms import _units, _written
from replay.trace.importing.secrets import _OPERATOR, _USER_INFO, Shown, redacted

PATTERNS = {
    "jwt": JWT, "e-mail": EMAIL, "card": CARD, "iban": IBAN, "phone": PHONE, "word": WORD, "operator": _OPERATOR,
}  # fmt: skip
PIECES = st.sampled_from([
    "joe@shop.example", "a@b.de", "@", "eyJhbGciOiJI.eyJz.x", "eyJ", "4000 0056 3714 8625", "4111111111111111", "42",
    "GB82 WEST 1234 5698 7654 32", "DE", "+49 170 123 4567", "(555) 123-4567", "12:30:00", "longer-word.of~some_length",
    "tea", "é", "\xb2", " ", "\t", "\n", "+", "-", ".", "_", "~", "(", ")", "'", '"', "=", ":", ">", "=>", "/", "//", "#",
    "u0040", "2540", "name", "20",
])  # fmt: skip
TEXTS = st.lists(PIECES, max_size=12).map("".join)


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=list(PATTERNS))
@given(text=TEXTS)
@example(text="joe@shop.example 4111 1111 1111 1111 GB82WEST12345698765432 +491701234567 eyJa-b.c")
@example(text='{"a" \t=> "longer-word"}')
def test_both_forms_of_a_pattern_find_the_same(pattern: EscapedPattern, text: str) -> None:
    assert pattern.of(text) is pattern.plain
    found, wanted = pattern.plain.finditer(text), pattern.escaped.finditer(text)
    assert [(match.span(), match.groupdict()) for match in found] == [
        (match.span(), match.groupdict()) for match in wanted
    ]


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=list(PATTERNS))
@pytest.mark.parametrize("text", ["a%20b", r"a\nb"])
def test_a_text_with_an_escape_gets_the_long_form(pattern: EscapedPattern, text: str) -> None:
    assert pattern.of(text) is pattern.escaped


def test_an_operator_after_an_entity_needs_the_long_form() -> None:
    text = "key&quot;: v"
    assert _OPERATOR.of(text) is _OPERATOR.escaped
    assert [match["quote"] for match in _OPERATOR.finditer(text)] == ["&quot;"]


@pytest.mark.parametrize("at", ["@", "%40", "%2540"])
@pytest.mark.parametrize("slashes", ["//", r"\/\/", "%2F%2f", "%252F%252F", "/%2F"])
def test_user_info_is_removed_however_it_is_written(at: str, slashes: str) -> None:
    text = f"see http:{slashes}joe:pass{at}shop.example/"
    assert _USER_INFO.search(text)
    assert redacted(text, Shown()) == f"see http:{slashes}shop.example/"


@given(st.text(st.characters(max_codepoint=127, exclude_characters="%\\")))
def test_ascii_without_escapes_is_its_own_plain_text(text: str) -> None:
    units, plain = _units(text)
    assert plain == text.encode()
    assert _written(units, plain[::-1]) == text[::-1]
