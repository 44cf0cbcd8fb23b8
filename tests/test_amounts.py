"""Amounts as people read them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coupon_ledger.ledger.amounts import amount, count, money, percent, percent_of_bp
from coupon_ledger.ledger.rules import CURRENCIES


@pytest.mark.parametrize(
    ("minor", "currency", "text"),
    [
        (98_282, "USD", "982.82 USD"),
        (-98_282, "CNY", "-982.82 CNY"),
        (1_234_567, "JPY", "1,234,567 JPY"),
        (1_234_567, "KWD", "1,234.567 KWD"),
        (5, "CLF", "0.0005 CLF"),
        (0, "EUR", "0.00 EUR"),
        (-0.2, "EUR", "0.00 EUR"),
        (4_990_740.1907, "CNY", "49,907.40 CNY"),
        (98_282, None, "98,282 minor units"),
        (98_282, "XXX", "98,282 minor units"),
        (98_282, "XAU", "98,282 minor units of XAU"),
        (98_282, "ZZZ", "98,282 minor units of ZZZ"),
        (None, "CNY", "–"),
        (math.nan, "CNY", "–"),
        (math.inf, "CNY", "–"),
    ],
)
def test_money_is_in_units_of_its_currency(minor: float | None, currency: str | None, text: str) -> None:
    """Else 982.82 dollars are read as 98,282."""
    assert money(minor, currency) == text


@pytest.mark.long
@given(st.integers(-(2**127), 2**127), st.sampled_from(sorted(CURRENCIES)))
def test_no_digit_of_an_amount_is_lost(minor: int, currency: str) -> None:
    """Else large amounts are shown with digits that a binary fraction made up."""
    digits = amount(minor, currency).replace(",", "").replace(".", "")
    assert int(digits) == minor


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0356, "3.6%"),
        (1, "100.0%"),
        (12.5, "1,250.0%"),
        (-0.25, "-25.0%"),
        (0, "0.0%"),
        (0.0001, "<0.1%"),
        (-0.0001, ">-0.1%"),
        (None, "–"),
        (math.nan, "–"),
    ],
)
def test_rates_are_percentages(share: float | None, text: str) -> None:
    assert percent(share) == text


def test_basis_points_and_counts() -> None:
    assert percent_of_bp(1_250) == "12.5%"
    assert percent_of_bp(None) == "–"
    assert count(1_234_567) == "1,234,567"
    assert count(None) == "–"
