"""Numbers as cards show them: short, and never another number than the exact one."""

from __future__ import annotations

import pytest

from coupon_ledger.ledger.words import catalogue
from coupon_ledger.reports.short import MAGNITUDES, SPACE, Quantity, short_count, short_money
from coupon_ledger.reports.view import View, showing


@pytest.mark.parametrize(
    ("minor", "currency", "en", "zh"),
    [
        (942_318_755, "CNY", "¥ 9.42 M", "¥ 942 万"),
        (41_222_090, "CNY", "¥ 412 k", "¥ 41.2 万"),
        (99_950_000_000, "CNY", "¥ 1 bn", "¥ 10 亿"),
        (123_456, "CNY", "¥ 1.23 k", "¥ 1,235"),
        (99_949, "CNY", "¥ 999", "¥ 999"),
        (1_234, "USD", "$ 12.34", "$ 12.34"),
        (-12_345_600, "EUR", "−€ 123 k", "−€ 12.3 万"),
        (1_500_000, "JPY", "JP¥ 1.5 M", "JP¥ 150 万"),
        (7_000, "SEK", "SEK 70", "SEK 70"),
        (0, "CNY", "¥ 0", "¥ 0"),
    ],
)
def test_an_amount_is_short_with_its_currency(minor: int, currency: str, en: str, zh: str) -> None:
    for lang, expected in (("en", en), ("zh", zh)):
        with showing(View(lang)):
            assert short_money(minor, currency).replace(SPACE, " ") == expected


def test_amounts_in_no_known_currency_are_not_made_up() -> None:
    """A sign before them would be a wrong amount."""
    assert short_money(123_456, None) == "123,456 minor units"
    assert short_money(123_456, "XXX") == "123,456 minor units"


@pytest.mark.parametrize(
    ("number", "en", "zh"),
    [
        (184_210, "184,210", "184,210"),
        (999_999, "999,999", "999,999"),
        (1_234_567, "1.23 M", "123 万"),
        (9_996_000, "10 M", "1,000 万"),
    ],
)
def test_a_count_is_exact_below_a_million(number: int, en: str, zh: str) -> None:
    for lang, expected in (("en", en), ("zh", zh)):
        with showing(View(lang)):
            assert short_count(number).replace(SPACE, " ") == expected


def test_a_quantity_is_written_by_its_kind() -> None:
    money, share = Quantity("discount_minor", "CNY"), Quantity("use_rate")
    assert (money.exact(41_222_090), money.short(41_222_090)) == ("412,220.90 CNY", f"¥{SPACE}412{SPACE}k")
    assert (share.exact(0.3312), share.short(0.3312), share.short(None)) == ("33.1%", "33.1%", "–")


def test_magnitudes_are_in_the_table_of_words() -> None:
    assert not [text for steps in MAGNITUDES.values() for _, text in steps if text not in catalogue()]
