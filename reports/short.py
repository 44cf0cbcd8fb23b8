"""Short numbers for cards and charts: "¥ 9.42 M", and in tens of thousands for
whoever reads Chinese. Tables and hovers show the
exact number (`reports.labels.shown`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from coupon_ledger.ledger.amounts import NOTHING, decimals
from coupon_ledger.reports.labels import kind, say, shown
from coupon_ledger.reports.view import view

SPACE: Final = "\u00a0"
"""Between a number and its unit, where no line may break."""

_SYMBOLS: Final[Mapping[str, str]] = {
    "CNY": "¥",
    "EUR": "€",
    "GBP": "£",
    "INR": "₹",
    "JPY": "JP¥",
    "KRW": "₩",
    "USD": "$",
}
"""One sign is one currency here: the yen is not shown with the sign of the yuan."""

MAGNITUDES: Final[Mapping[str, tuple[tuple[int, str], ...]]] = {
    "en": ((1_000_000_000, "{n} bn"), (1_000_000, "{n} M"), (1_000, "{n} k")),
    "zh": ((100_000_000, "{n} hundred million"), (10_000, "{n} ten thousand")),
}
"""By language, largest first: how many, and the template of what is said."""

_EXACT_COUNTS: Final = 1_000_000
"""Counts below this are short enough as they are."""
_DIGITS: Final = 3


def short_count(number: float) -> str:
    """The count as on a card: exact below a million."""
    exact = abs(number) < _EXACT_COUNTS and number == round(number)
    return f"{number:,.0f}" if exact else _scaled(Decimal(str(number)))


def short_money(minor: float, currency: str | None) -> str:
    """The amount `minor`, in minor units, with the sign or the code of its currency. Amounts in a currency without a
    known minor unit are shown in full."""
    digits = decimals(currency)
    if currency is None or digits is None:
        return shown("amount_minor", {"amount_minor": minor}, currency)
    major = Decimal(str(minor)).scaleb(-digits)
    sign = "−" if major < 0 else ""
    return f"{sign}{_SYMBOLS.get(currency, currency)}{SPACE}{_scaled(abs(major))}"


def _scaled(number: Decimal) -> str:
    """The number with three digits, in the largest unit that it reaches."""
    for size, template in MAGNITUDES[view().lang]:
        if round(abs(number)) >= size * Decimal("0.9995"):
            return say(template, n=_three_digits(number / size)).replace(" ", SPACE)
    return f"{number:,.0f}" if number == round(number) or abs(number) >= 100 else f"{number:,.2f}"


def _three_digits(number: Decimal) -> str:
    whole = len(str(int(abs(round(number, 2)))))
    text = f"{number:,.{max(0, _DIGITS - whole)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


@dataclass(frozen=True)
class Quantity:
    """What the numbers of a chart or a card are: those of the column or metric `name`, in `currency` if they are
    amounts."""

    name: str
    currency: str | None = None

    def exact(self, value: float | None) -> str:
        """As in tables."""
        return NOTHING if value is None else shown(self.name, {self.name: value}, self.currency)

    def short(self, value: float | None) -> str:
        """As on cards and axes."""
        if value is None:
            return NOTHING
        kinds = {"money": lambda: short_money(value, self.currency), "count": lambda: short_count(value)}
        return kinds.get(kind(self.name, {self.name: value}), lambda: self.exact(value))()
