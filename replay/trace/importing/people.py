"""Finds values that identify people, wherever they occur.

They are e-mail addresses, JSON Web Tokens, and phone, card and account numbers. Each is replaced by a fake or a
pseudonym. E-mail addresses go to example.com (RFC 2606). Card numbers get the prefix of a payment provider's test
cards and a valid check digit. Account numbers (IBAN) keep their country and get valid check digits. Phone numbers keep
their leading digits.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from .escapes import AFTER_ESCAPE, EscapedPattern, begins
from .pseudonyms import Pseudonyms

JWT = EscapedPattern(rf"(?:(?<![\w-])|{AFTER_ESCAPE})eyJ[\w-]{{3,4096}}(?:(?:\.|%(?:25)*2[Ee])[\w-]*){{1,4}}")
EMAIL = EscapedPattern(
    begins(r"\w.!#$*+~-") + r"(?:[\w.!#$*+~-]|%(?:25){0,4}(?:2[BbDdEe]|5[Ff])){1,256}"
    r"(?P<at>@|%(?:25){0,4}40|\\{1,16}u0040)(?P<domain>(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24})(?![\w-])"
)
_NOT_MAIL = frozenset(
    {
        "avif", "bmp", "cjs", "css", "csv", "eot", "gif", "gz", "htm", "html", "ico", "jpeg", "jpg", "js", "json", "map",
        "md", "min", "mjs", "mp3", "mp4", "otf", "pdf", "php", "png", "svg", "tgz", "ts", "ttf", "txt", "wasm", "webm",
        "webp", "woff", "xml", "xz", "zip",
    }
)  # fmt: skip
"""File extensions, because `logo@2x.png` is not an e-mail address."""

_GAP = r"(?:[ +-]|%(?:25){0,4}20)?"
CARD = EscapedPattern(rf"(?:(?<![\w.%-])|{AFTER_ESCAPE})[2-6](?:{_GAP}\d){{12,18}}(?![\w-]|\.\d)")
IBAN = EscapedPattern(rf"(?:(?<![\w%-])|{AFTER_ESCAPE})[A-Z]{{2}}\d{{2}}(?:{_GAP}[A-Z0-9]){{11,30}}(?![\w-])")
PHONE = EscapedPattern(
    rf"(?:(?:(?<![\w+%])|{AFTER_ESCAPE})\+|%(?:25){{0,4}}2[Bb])"
    r"[1-9](?:(?:[ ().+-]|%(?:25){0,4}2[089]){0,3}\d){7,14}(?![\w-])"
    rf"|(?:(?<![\w.-])|{AFTER_ESCAPE})\(\d{{3}}\)[ ]?\d{{3}}-\d{{4}}(?![\w-])"
)
_NOT_DIGIT = re.compile(r"%(?:25){0,4}[0-9A-Fa-f]{2}|\D")
_SEPARATOR = re.compile(r"%(?:25){0,4}20|[^A-Z0-9]")
_TEST_CARDS = {"4": "400000", "5": "520082", "2": "222300", "3": "378282", "6": "601111"}
"""The prefix of payment providers' test cards, by the first digit of a card number."""
PHONE_PREFIX_DIGITS = 5
"""At most this many leading digits of a phone number are kept, for its country and area."""

Mark = Callable[[str, str], str]
"""Called with a value and its kind.

Returns the temporary replacement.
"""


def fake(pseudonyms: Pseudonyms, text: str) -> str:
    """Return the fake for a value according to its form, or its pseudonym if it has no known form."""
    if "@" in text or "40" in text:
        match = EMAIL.fullmatch(text)
        if match is not None and is_mail(match):
            return email(pseudonyms, match)
    digits = len(text) >= 13 and sum(map(str.isdigit, text)) >= 8
    if digits and CARD.fullmatch(text) and is_card(text):
        return card(pseudonyms, text)
    if digits and IBAN.fullmatch(text) and is_iban(text):
        return iban(pseudonyms, text)
    if PHONE.fullmatch(text):
        return phone(pseudonyms, text)
    return pseudonyms.of(text)


def marked(text: str, mark: Mark) -> str:
    """Mark each value in a text that identifies a person, and each JSON Web Token."""
    if "eyJ" in text:
        text = JWT.sub(lambda match: mark(match[0], "(token)"), text)
    if "@" in text or "40" in text:
        text = EMAIL.sub(lambda match: mark(match[0], "(e-mail)") if is_mail(match) else match[0], text)
    if _MAY_BE_NUMBERS.search(text) is None:
        return text
    text = IBAN.sub(lambda match: mark(match[0], "(iban)") if is_iban(match[0]) else match[0], text)
    text = CARD.sub(lambda match: mark(match[0], "(card)") if is_card(match[0]) else match[0], text)
    return PHONE.sub(lambda match: mark(match[0], "(phone)"), text)


_MAY_BE_NUMBERS = re.compile(r"\d[\dA-Z +%()-]{6}")


def is_mail(match: re.Match[str]) -> bool:
    """Return whether a match of EMAIL is an address and not a file name."""
    return match["domain"].rpartition(".")[2].lower() not in _NOT_MAIL


def email(pseudonyms: Pseudonyms, match: re.Match[str]) -> str:
    """Return a fake e-mail address.

    Addresses that share a domain share a fake domain below example.com. The domain example.com and its subdomains are kept.
    """
    domain = match["domain"].lower()
    local = match[0][: match.start("at") - match.start()]
    if domain == "example.com" or domain.endswith(".example.com"):
        return pseudonyms.of(local.lower()) + match["at"] + match["domain"]
    return (
        f"{pseudonyms.of(local.lower())}{match['at']}{pseudonyms.of(domain.rpartition('.')[0])}.example.com"
    )


def _digits_of(text: str) -> str:
    return _NOT_DIGIT.sub("", text)


@lru_cache(1 << 12)
def is_card(text: str) -> bool:
    """Return whether the digits of a text form a card number, by their length and check digit (ISO/IEC 7812).

    Digits that are all equal are not a card number.
    """
    digits = _digits_of(text)
    return 13 <= len(digits) <= 19 and len(set(digits)) > 1 and _luhn(digits) == 0


def _luhn(digits: str) -> int:
    total = 0
    for place, digit in enumerate(reversed(digits)):
        number = int(digit) * (1 + place % 2)
        total += number - 9 if number > 9 else number
    return total % 10


def card(pseudonyms: Pseudonyms, text: str) -> str:
    """Return a fake card number with the prefix of a test card, the same length and the same gaps."""
    digits = _digits_of(text)
    prefix = _TEST_CARDS[digits[0]]
    middle = len(digits) - len(prefix) - 1
    made = f"{prefix}{pseudonyms.number(digits, 10**middle):0{middle}d}"
    made += str(-_luhn(made + "0") % 10)
    return _in_place(text, made, _NOT_DIGIT)


@lru_cache(1 << 12)
def is_iban(text: str) -> bool:
    """Return whether a text is an IBAN, by its length and check digits (ISO 13616)."""
    plain = _SEPARATOR.sub("", text)
    return 15 <= len(plain) <= 34 and _remainder(plain) == 1


def _remainder(plain: str) -> int:
    return int("".join(str(int(char, 36)) for char in plain[4:] + plain[:4])) % 97


def iban(pseudonyms: Pseudonyms, text: str) -> str:
    """Return another account number of the same country, with valid check digits."""
    plain = _SEPARATOR.sub("", text)
    account = pseudonyms.of(plain[4:])
    check = 98 - _remainder(f"{plain[:2]}00{account}")
    return _in_place(text, f"{plain[:2]}{check:02d}{account}", _SEPARATOR)


def phone(pseudonyms: Pseudonyms, text: str) -> str:
    """Return a fake phone number with the same leading digits and gaps."""
    digits = _digits_of(text)
    kept = min(PHONE_PREFIX_DIGITS, len(digits) - 4)
    rest = len(digits) - kept
    return _in_place(text, digits[:kept] + f"{pseudonyms.number(digits, 10**rest):0{rest}d}", _NOT_DIGIT)


def _in_place(text: str, made: str, gap: re.Pattern[str]) -> str:
    """Replace the characters of a text by those of `made`, keeping its gaps."""
    pieces, at, taken = [], 0, 0
    for match in gap.finditer(text):
        count = match.start() - at
        pieces += [made[taken : taken + count], match[0]]
        at, taken = match.end(), taken + count
    return "".join([*pieces, made[taken:]])
