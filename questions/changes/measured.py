"""What a question about a change is about, after validation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from coupon_ledger.questions.metrics.definitions import MINUTES, Metric
from coupon_ledger.questions.metrics.statements import Slice

GoodsRates = Mapping[str, list[Any]] | None


@dataclass(frozen=True)
class Measured:
    """The metric, and the rows that count (`slice`, without dimensions). `by`: the dimension by which causes are split.
    `goods_rates_before`: the rates with which the earlier number is computed; those of the later one are in `slice`."""

    metric: Metric
    slice: Slice
    by: str | None
    goods_rates_before: GoodsRates

    @property
    def parts(self) -> tuple[str, ...]:
        return self.metric.parts

    @property
    def money(self) -> bool:
        return self.metric.money

    @property
    def split(self) -> Slice:
        """The slice with the dimension `by`."""
        return replace(self.slice, by=(self.by,) if self.by else ())

    @property
    def earlier(self) -> Measured:
        """The same with the goods rates of the earlier number."""
        return replace(self, slice=replace(self.slice, goods_rates=self.goods_rates_before))

    @property
    def in_minutes(self) -> bool:
        """Whether the formula divides by the minutes of the period."""
        return MINUTES in self.metric.base

    @property
    def needs_clock(self) -> bool:
        """Whether the value depends on the data's clock."""
        return self.in_minutes or self.metric.view == "now"
