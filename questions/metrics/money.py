"""Amounts in several currencies. They are never added up as they are: the user must supply rates, with which they are
converted first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import polars as pl

from coupon_ledger.ledger.amounts import decimals
from coupon_ledger.ledger.errors import WrongQuestion
from coupon_ledger.ledger.rules import CURRENCIES
from coupon_ledger.questions.metrics.parameters import RATES_HINT, Rate

_LEAST: Final = Decimal("0.000000001")
_MOST: Final = Decimal(1_000_000_000)
UNKNOWN: Final = "XXX"
"""The ISO 4217 code for no currency, used for amounts without one."""


@dataclass(frozen=True)
class Rates:
    """Conversion rates to the currency `to`. `rates`: for each currency, the price of one unit (not minor unit) of it
    in `to`."""

    to: str
    rates: Mapping[str, Decimal]

    @classmethod
    def of(cls, rows: Sequence[Rate]) -> Rates:
        """The rates in `rows`, which must all convert to the same currency. Raises `WrongQuestion`."""
        if any(row.rate <= 0 for row in rows):
            raise WrongQuestion(f"rates: {RATES_HINT}")
        if odd := [row.rate for row in rows if not _LEAST <= row.rate <= _MOST]:
            raise WrongQuestion(f"rates: {odd[0]:.3g} is no rate; give one from {_LEAST:f} to {_MOST:,f}")
        targets = sorted({row.to for row in rows})
        if len(targets) != 1:
            raise WrongQuestion(f"rates: lead to {', '.join(targets) or 'no currency'}; give a table that leads to one")
        if strange := sorted({c for row in rows for c in (row.currency, row.to)} - CURRENCIES):
            raise WrongQuestion(f"rates: {', '.join(strange)} is no ISO 4217 code; correct it")
        named = [row.currency for row in rows]
        if twice := sorted({c for c in named if named.count(c) > 1}):
            raise WrongQuestion(f"rates: {', '.join(twice)} comes twice; give one rate for each currency")
        return cls(targets[0], {targets[0]: Decimal(1)} | {row.currency: row.rate for row in rows})

    def _factor(self, currency: str) -> float:
        """By which to multiply minor units of `currency` to get minor units of `to`. Raises `WrongQuestion`."""
        if currency == UNKNOWN:
            raise WrongQuestion(
                f"rates: some amounts carry no currency ({UNKNOWN}); ask without rates to see them, or filter by"
                " currency"
            )
        if currency not in self.rates:
            raise WrongQuestion(f"rates: there is none for {currency}; add it, or filter by currency")
        digits = (decimals(self.to) or 0) - (decimals(currency) or 0)
        return float(self.rates[currency] * Decimal(10) ** digits)

    def convert(self, parts: pl.DataFrame, keys: list[str], money: list[str]) -> pl.DataFrame:
        """Add up the rows of `parts` that differ only in `currency`: the result has one row per value of `keys`, in the
        currency `to`. `money`: the columns with amounts, which are converted.

        Converted amounts are summed first and rounded once. If a value is unknown (null) in one currency, the sum is
        unknown.
        """
        currencies = parts["currency"].unique().to_list()
        factors = pl.DataFrame(
            {"currency": currencies, "factor": [self._factor(c) for c in currencies]},
            schema={"currency": pl.String, "factor": pl.Float64},
        )
        joined = parts.join(factors, on="currency", how="left", nulls_equal=True)
        values = [name for name in parts.columns if name not in (*keys, "currency")]
        whole: dict[str, Any] = {name: parts.schema[name] for name in values}
        sums = []
        for name in values:
            value = pl.col(name) * pl.col("factor") if name in money else pl.col(name)
            known = pl.when(pl.col(name).null_count() == 0).then(value.sum())
            sums.append((known.round() if whole[name].is_integer() else known).cast(whole[name]).alias(name))
        one = joined.with_columns(_all=pl.lit(0))
        grouped = one.group_by("_all", *keys, maintain_order=True).agg(sums).drop("_all")
        return grouped.with_columns(currency=pl.lit(self.to))


def goods_rates(rates: Mapping[str, int] | None) -> dict[str, list[Any]] | None:
    """`rates` (cost of goods in basis points, by category) in the form of a query parameter of the type MAP."""
    return None if rates is None else {"key": list(rates), "value": list(rates.values())}
