"""Amounts of money: `9.99 EUR`. Amounts of different currencies are never added up."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import NamedTuple

from .errors import UsageError

FORMS = "9.99 EUR: an amount above 0 with a point, and the three letters of a currency"
AMOUNT_MAX = Decimal(10) ** 12

_AMOUNT = re.compile(r"[0-9]{1,13}(?:\.[0-9]{1,6})?")
_CURRENCY = re.compile(r"[A-Z]{3}")

_WHOLE_FROM = 1_000
"""Amounts from here on are shown without cents."""


class Money(NamedTuple):
    """An amount in one currency."""

    amount: Decimal
    currency: str


def parse_money(text: str) -> Money:
    """An amount and its currency, in either order. UsageError states what is wrong."""
    words = text.split()
    if len(words) == 2 and _CURRENCY.fullmatch(words[0].upper()):
        words.reverse()
    amount, currency = (*words, "", "")[:2]
    if len(words) > 2 or not _AMOUNT.fullmatch(amount):
        why = "is not an amount of money" if amount else "is empty"
        raise UsageError(f"{text!r} {why}", hint=f"write {FORMS}")
    if not _CURRENCY.fullmatch(currency.upper()):
        what = f"{currency!r} is not the three letters of a currency" if currency else "it has no currency"
        raise UsageError(f"{text!r}: {what}", hint=f"write {FORMS}")
    money = Money(Decimal(amount), currency.upper())
    if not 0 < money.amount <= AMOUNT_MAX:
        raise UsageError(f"{text!r}: the amount must be above 0 and at most {AMOUNT_MAX:,}")
    return money


def format_money(amount: Decimal | float, currency: str) -> str:
    """`23,017 EUR`; below 1,000 with cents: `99.90 EUR`."""
    number = f"{amount:,.0f}" if amount >= _WHOLE_FROM or amount == int(amount) else f"{amount:,.2f}"
    return f"{number} {currency}"


def format_rough(amount: Decimal | float, currency: str) -> str:
    """An amount at 3 significant digits, for what is only about right: `1,430 EUR`."""
    if amount < _WHOLE_FROM:
        return format_money(amount, currency)
    digits = len(str(int(amount))) - 3
    return f"{round(int(amount), -digits):,} {currency}"
