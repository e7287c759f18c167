"""Amounts of money in words: no currency's smallest unit is lost, and no amount is rounded away."""

from __future__ import annotations

import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.errors import UsageError
from replay.money import AMOUNT_MAX, format_money, format_rough, parse_money
from replay.results.business import words_of

SMALLEST, LARGEST = Decimal("0.000001"), AMOUNT_MAX


@pytest.mark.parametrize(
    ("amount", "currency", "words"),
    [
        ("500", "JPY", "500 JPY"), ("500.4", "JPY", "500.4 JPY"), ("500.2", "JPY", "500 JPY"),
        ("0.5", "JPY", "0.5 JPY"), ("12.5", "KRW", "12.5 KRW"),
        ("1.25", "KWD", "1.250 KWD"), ("0.001", "BHD", "0.001 BHD"), ("1.5", "CLF", "1.5000 CLF"),
        ("0.001", "EUR", "0.001 EUR"), ("0.000001", "USD", "0.000001 USD"), ("0.125", "EUR", "0.125 EUR"),
        ("9.99", "XYZ", "9.99 XYZ"), ("1.005", "EUR", "1.005 EUR"), ("999.994", "EUR", "999.99 EUR"),
        ("0.0000001", "EUR", "less than 0.000001 EUR"), ("0", "EUR", "0 EUR"), ("1234.5", "KWD", "1,234 KWD"),
    ],
)  # fmt: skip
def test_amounts_of_odd_currencies(amount: str, currency: str, words: str) -> None:
    assert format_money(Decimal(amount), currency) == words
    assert format_money(float(amount), currency) == words, "as a float, too"


@given(
    amount=st.decimals(SMALLEST, LARGEST, places=6),
    currency=st.sampled_from(["EUR", "JPY", "KWD", "CLF", "XAU", "UGX", "ZZZ"]),
)
def test_no_amount_is_rounded_by_more_than_a_part_in_two_thousand(amount: Decimal, currency: str) -> None:
    for words in (format_money(amount, currency), format_money(float(amount), currency)):
        number, _, unit = words.partition(" ")
        shown = Decimal(number.replace(",", ""))
        assert unit == currency and shown > 0
        assert abs(shown - amount) * 1_999 <= amount
    rough = Decimal(format_rough(amount, currency).partition(" ")[0].replace(",", ""))
    assert abs(rough - amount) * 150 <= amount


@given(
    amount=st.decimals(SMALLEST, LARGEST, places=6),
    currency=st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=3, max_size=3),
    is_before=st.booleans(),
)
def test_what_is_parsed_is_what_was_written(amount: Decimal, currency: str, is_before: bool) -> None:
    text = f"{currency} {amount}" if is_before else f"{amount} {currency}"
    assert parse_money(text) == (amount, currency.upper())


@given(text=st.text(max_size=20))
def test_any_other_text_is_refused(text: str) -> None:
    words = text.split()
    is_money = len(words) == 2 and any(
        re.fullmatch(r"[0-9]{1,13}(\.[0-9]{1,6})?", one) and re.fullmatch("[A-Za-z]{3}", other)
        for one, other in (words, words[::-1])
    )
    if is_money:
        return
    with pytest.raises(UsageError):
        parse_money(text)


def test_a_small_value_is_kept_in_a_sentence() -> None:
    assert words_of("click", 100, 10, parse_money("0.001 EUR"), 0.0).endswith("(10), 0.01 EUR")
    words = words_of("click", 100, 1, parse_money("0.001 EUR"), 2.0)
    assert words == "1 in 100 clicks failed (1), about 0.0005 EUR an hour at this rate"
