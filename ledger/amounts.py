"""Formats amounts, shares and counts for people. All tables, notes, reports and pages use these functions.

The ledger stores amounts as integers in the currency's minor unit. ISO 4217 defines the number of decimals: none for
JPY, two for CNY, three for KWD. Amounts are converted in decimal arithmetic, never in
floating-point numbers.
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Final

from coupon_ledger.ledger.rules import CURRENCIES

NOTHING: Final = "–"
"""Shown in place of a missing value."""
# ISO 4217: currencies whose minor unit is not a hundredth.
_DECIMALS: Final = {
    **dict.fromkeys("BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF".split(), 0),
    **dict.fromkeys("BHD IQD JOD KWD LYD OMR TND".split(), 3),
    **dict.fromkeys("CLF UYW".split(), 4),
}
_EXACT: Final = Context(prec=80, rounding=ROUND_HALF_EVEN)
"""More digits than any 128-bit sum has."""
# Metals, funds and test codes have no minor unit in ISO 4217; XXX is "no currency".
_WITHOUT_MINOR_UNIT: Final = frozenset("XAG XAU XBA XBB XBC XBD XDR XPD XPT XSU XTS XUA XXX".split())


def decimals(currency: str | None) -> int | None:
    """How many decimals ISO 4217 defines for amounts in `currency`. None if the currency is unknown or has no minor
    unit."""
    if currency is None or currency not in CURRENCIES or currency in _WITHOUT_MINOR_UNIT:
        return None
    return _DECIMALS.get(currency, 2)


def amount(minor: float | Decimal | None, currency: str | None) -> str:
    """The amount `minor`, given in minor units, as a text in major units without the currency: "1,234.50". For a column
    whose header names the currency.

    Fractions of a minor unit, as statistics produce them, are rounded half to even. If the currency has no known minor
    unit, the text is the number of minor units. NaN, infinity and None give "–".
    """
    if minor is None:
        return NOTHING
    exact = Decimal(minor)
    if not exact.is_finite():
        return NOTHING
    digits = decimals(currency) or 0
    rounded = exact.scaleb(-digits, _EXACT).quantize(Decimal(1).scaleb(-digits), context=_EXACT)
    return f"{rounded if rounded else abs(rounded):,.{digits}f}"  # a zero has no sign


def money(minor: float | Decimal | None, currency: str | None) -> str:
    """The amount `minor`, given in minor units, as a text in major units with the currency: "1,234.50 CNY". For
    sentences, and for a column with several currencies.

    If the currency has no known minor unit, the text is "123,450 minor units", followed by the currency's code if there
    is one. Zero without a currency is "0". NaN, infinity and None give "–".
    """
    if minor is None or amount(minor, currency) == NOTHING:
        return NOTHING
    if not minor and currency in (None, "", "XXX"):
        return "0"
    if decimals(currency) is None:
        named = f" of {currency}" if currency not in (None, "", "XXX") else ""
        return f"{amount(minor, currency)} minor units{named}"
    return f"{amount(minor, currency)} {currency}"


def percent(share: float | Decimal | None) -> str:
    """The ratio `share` as a percentage with one decimal: 0.0356 gives "3.6%". A nonzero ratio that would be rounded to
    0.0% gives "<0.1%" or ">-0.1%"."""
    if share is None:
        return NOTHING
    exact = Decimal(share)
    if not exact.is_finite():
        return NOTHING
    rounded = exact.scaleb(2, _EXACT).quantize(Decimal("0.1"), context=_EXACT)
    if exact and not rounded:
        return "<0.1%" if exact > 0 else ">-0.1%"
    return f"{rounded if rounded else abs(rounded):,.1f}%"


def percent_of_bp(basis_points: float | None) -> str:
    """Basis points as a percentage: 1250 gives "12.5%"."""
    return percent(None if basis_points is None else Decimal(basis_points) / 10_000)


def counted(number: int, noun: str) -> str:
    """A count with its English noun: "1 record", "1,234 records"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def count(number: int | None) -> str:
    """A count with thousands separators: "1,234,567"."""
    return NOTHING if number is None else f"{number:,}"
