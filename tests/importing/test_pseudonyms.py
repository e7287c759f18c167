"""Pseudonyms: of the form of the value, the same however it is written, never the value itself, never shared by two."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote, unquote

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from replay.trace.importing.cleaning import Cleaner
from replay.trace.importing.people import fake, is_card, is_iban, marked
from replay.trace.importing.pseudonyms import Pseudonyms
from replay.trace.importing.registry import Found, Options

MADE = Pseudonyms(b"key")


def form_of(text: str) -> list[str]:
    """Each character's class; other characters as they are."""
    return [
        "A" if char.isascii() and char.isupper() else "a" if char.isascii() and char.islower() else
        "0" if char.isascii() and char.isdigit() else char
        for char in text
    ]  # fmt: skip


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60))
@example("0")
@example("-12.50")
@example("Zq7Xv3Wk9Tp5")
def test_a_pseudonym_has_the_form_of_its_value(text: str) -> None:
    assume("%" not in text and "\\" not in text and not text.lower().startswith(("basic", "eyj")))
    scheme = len(text) - len(text.split(" ", 1)[-1]) if " " in text else 0
    made = MADE.of(text)
    assert form_of(made)[scheme:] == form_of(text)[scheme:]
    if sum(map(str.isalnum, text[scheme:])) and len(text[scheme:].strip("0")) > 0 and any(
        char.isalpha() or char in "123456789" for char in text[scheme:]
    ):  # fmt: skip
        assert made != text


@pytest.mark.parametrize("texts", [
    [f"{number}" for number in range(1000, 10_000)], [f"{number:03d}" for number in range(1000)],
    [f"a{number}B" for number in range(100)], [chr(97 + a) + chr(65 + b) for a in range(26) for b in range(26)],
])  # fmt: skip
def test_no_two_values_have_one_pseudonym(texts: list[str]) -> None:
    assert len({MADE.of(text) for text in texts}) == len(texts)


@given(st.text(min_size=1, max_size=40))
def test_a_value_has_one_pseudonym_however_it_is_written(text: str) -> None:
    assume(not any(char in text for char in "%\\") and not text.lower().startswith(("basic", "eyj")))
    assume(not any(0xD800 <= ord(char) < 0xE000 for char in text))
    raw = text.encode().decode("latin-1")
    assume(" " not in raw)
    plain = MADE.of(raw).encode("latin-1")
    assert unquote(MADE.of(quote(text, safe="")), "latin-1").encode("latin-1") == plain
    assert (
        unquote(unquote(MADE.of(quote(quote(text, safe=""), safe="")), "latin-1"), "latin-1").encode(
            "latin-1"
        )
        == plain
    )
    escaped = json.dumps(text)[1:-1]
    if '"' not in escaped and "\\" not in escaped.replace("\\u", ""):
        assert json.loads(f'"{MADE.of(escaped)}"').encode() == plain
    plain.decode()  # The result is still UTF-8.


def test_schemes_stay_and_a_password_in_basic_is_as_elsewhere() -> None:
    assert MADE.of("Bearer abc123") == "Bearer " + MADE.of("abc123")
    basic = MADE.of("Basic " + base64.b64encode(b"ann:s3cret-pass").decode())
    assert (
        base64.b64decode(basic.removeprefix("Basic ")).decode()
        == f"{MADE.of('ann')}:{MADE.of('s3cret-pass')}"
    )
    assert Pseudonyms(b"1").of("secret") != Pseudonyms(b"2").of("secret")


@pytest.mark.parametrize("text", [
    "4111111111111111", "4111 1111 1111 1111", "5500-0000-0000-0004", "378282246310005", "6011000990139424",
])  # fmt: skip
def test_cards_become_test_cards(text: str) -> None:
    made = fake(MADE, text)
    assert made != text and form_of(made) == form_of(text) and is_card(made)
    assert made[:4].replace(" ", "") in ("4000", "5200", "3782", "6011")
    assert marked(f"pay {text} now", lambda value, what: f"<{what}>") == "pay <(card)> now"


@pytest.mark.parametrize(
    "text", ["DE89 3704 0044 0532 0130 00", "GB29NWBK60161331926819", "NL91ABNA0417164300"]
)
def test_accounts_keep_their_country_and_right_check_digits(text: str) -> None:
    made = fake(MADE, text)
    assert made != text and form_of(made) == form_of(text) and made[:2] == text[:2] and is_iban(made)
    assert marked(f"to={text};", lambda value, what: f"<{what}>") == "to=<(iban)>;"


@pytest.mark.parametrize("text", ["+49 151 23456789", "+4915123456789", "%2B4915123456789", "(555) 123-4567"])
def test_phones_keep_where_they_are(text: str) -> None:
    made = fake(MADE, text)
    assert made != text and form_of(made) == form_of(text) and made[:5] == text[:5]
    assert marked(f'"{text}"', lambda value, what: f"<{what}>") == '"<(phone)>"'


@pytest.mark.parametrize("text", [
    "1700000000123", "2026-11-30T02:15:00.123Z", "192.168.100.200", "550e8400-e29b-41d4-a716-446655440000",
    "4111111111111112", "logo@2x.png", "DE89 3704 0044 0532 0130 02", "1.2345678901234567", "123456789012",
])  # fmt: skip
def test_what_only_looks_like_a_person_stays(text: str) -> None:
    assert marked(f"a {text} b", lambda value, what: "X") == f"a {text} b"


def test_addresses_go_nowhere_and_those_of_a_domain_stay_together() -> None:
    first, second = fake(MADE, "ann.lee@corp.example.org"), fake(MADE, "bob@corp.example.org")
    assert first.endswith(".example.com") and first.partition("@")[2] == second.partition("@")[2]
    assert fake(MADE, "Ann.Lee%40Corp.example.org").lower().replace("%40", "@") == first


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"sec-ch-ua", b'"Chromium";v="120", "Not A(Brand";v="99"'),
        (b"accept", b"text/html,application/signed-exchange;v=b3;q=0.9"),
        (b"content-type", b"application/json; v=2"),
        (b":target", b"/app.js?v=123"),
        (b":target", b"/search?value=1&x=2"),
    ],
)
def test_a_parameter_named_value_is_no_secret_by_itself(name: bytes, value: bytes) -> None:
    """Only an object that was cut off may hide that its `value` is that of a token."""
    cleaner = Cleaner(Found(), Options())
    if name == b":target":
        assert cleaner.target(value) == value
    else:
        assert cleaner.headers([(name, value)]) == ((name, value),)


def test_a_value_beside_the_name_of_a_secret_is_one() -> None:
    cleaner = Cleaner(Found(), Options())
    assert cleaner.target(b"/a?name=token&value=abc") != b"/a?name=token&value=abc"
    assert cleaner.target(b'/a?q={"value":12') != b'/a?q={"value":12'


@given(st.lists(st.integers(0x80, 0xD7FF), min_size=1, max_size=8))
@example([0x5A5, 0x5A5])
def test_a_value_of_escaped_characters_has_a_pseudonym(codes: list[int]) -> None:
    """Its letters are replaced byte by byte, which may leave no character of UTF-8."""
    text = "".join(f"\\u{code:04x}" for code in codes)
    made = MADE.of(text)
    assert made.startswith("\\u") and json.loads(f'"{made}"')


ESCAPES = [
    "%20",
    "%2520",
    "%252520",
    "%0A",
    "%3D",
    r"\n",
    r"\t",
    r"\u000a",
    r"\u00e9",
    r"\x0a",
    r"\\n",
    r"\\u000a",
]
PEOPLE = {
    "joe@foo.de": "(e-mail)", "joe%40foo.de": "(e-mail)", "abby@foo.de": "(e-mail)", "4111111111111111": "(card)",
    "4111 1111 1111 1111": "(card)", "GB82WEST12345698765432": "(iban)", "+491701234567": "(phone)",
    "(555) 123-4567": "(phone)", "eyJhbGciOiJI.eyJzdWIi.c2ln": "(token)",
}  # fmt: skip


@pytest.mark.parametrize("value", PEOPLE)
@pytest.mark.parametrize("escape", ESCAPES)
def test_a_value_behind_an_escape_is_replaced_and_the_escape_stays(escape: str, value: str) -> None:
    for before in ("", "a", "a b", "é"):
        text = f"{before}{escape}{value}"
        assert marked(text, lambda found, what: f"<{what}>") == f"{before}{escape}<{PEOPLE[value]}>"


@pytest.mark.parametrize("text", ["100%joe@foo.de", "%25joe@foo.de", r"C:\joe@foo.de", "call+joe@foo.de"])
def test_a_percent_sign_or_a_backslash_by_itself_hides_no_address(text: str) -> None:
    assert "joe@" not in marked(text, lambda found, what: "<x>")


@given(
    st.text(alphabet="ab%0125nux\\ @.é", max_size=30).map(lambda text: json.dumps({"t": f"{text} x@foo.de"}))
)
def test_a_body_stays_json_with_every_address_replaced(body: str) -> None:
    assert "foo.de" not in json.dumps(json.loads(marked(body, lambda found, what: "X")))


def test_a_value_that_repeats_the_beginning_of_a_token_has_a_pseudonym() -> None:
    text = "eyJ" * 5_000
    made = MADE.of(text)
    assert made.startswith("eyJ")
    assert form_of(made) == form_of(text)
    assert made.count("eyJ") < 100
