"""Amounts of money: `9.99 EUR`. Amounts of different currencies are never added up."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import NamedTuple

from .errors import UsageError

FORMS = "9.99 EUR or 10 EUR: an amount above 0, and the three letters of a currency"
AMOUNT_MAX = Decimal(10) ** 12

_AMOUNT = re.compile(r"[0-9]{1,13}(?:\.[0-9]{1,6})?")
_CURRENCY = re.compile(r"[A-Z]{3}")

_WHOLE_FROM = 1_000
"""Amounts of this size and above are shown without cents."""

_DECIMALS_MAX, _LEAST = 9, Decimal("0.000001")
"""The maximum number of decimals that are shown, and the smallest amount that can be given or shown."""

_ZERO = (
    "BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI", "VND", "VUV", "XAF", "XOF", "XPF",
)  # fmt: skip
_THREE = ("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND")
_DECIMALS = dict.fromkeys(_ZERO, 0) | dict.fromkeys(_THREE, 3) | {"CLF": 4, "UYW": 4}
"""The number of decimals of currencies whose smallest unit is not a hundredth (ISO 4217)."""


class Money(NamedTuple):
    """An amount in one currency."""

    amount: Decimal
    currency: str


def parse_money(text: str) -> Money:
    """Parse an amount and its currency, in either order. Raises UsageError with the problem."""
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
    """Format an amount of money, such as `23,017 EUR`.

    Whole amounts, and amounts from 1,000 on, have no decimals. Others have the decimals of the currency
    (`99.90 EUR`, `99.900 KWD`), and more if rounding to them would change the amount by more than one part in 2,000
    (`0.001 EUR`). An amount between 0 and 0.000001 is `less than 0.000001 EUR`.
    """
    exact = Decimal(str(amount))
    if 0 < exact < _LEAST:
        return f"less than {_LEAST} {currency}"
    if exact >= _WHOLE_FROM or exact == int(exact):
        return f"{exact:,.0f} {currency}"
    usual = _DECIMALS.get(currency, 2)
    near = (n for n in range(usual, _DECIMALS_MAX) if abs(round(exact, n) - exact) * 2_000 <= exact)
    return f"{exact:,.{next(near, _DECIMALS_MAX)}f} {currency}"


def format_rough(amount: Decimal | float, currency: str) -> str:
    """Format an approximate amount, with 3 significant digits from 1,000 on: `1,430 EUR`."""
    if amount < _WHOLE_FROM:
        return format_money(amount, currency)
    digits = len(str(int(amount))) - 3
    return f"{round(int(amount), -digits):,} {currency}"
