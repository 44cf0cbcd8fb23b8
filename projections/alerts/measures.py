"""What the metrics of alert rules sum up: for each metric a numerator and, for ratios, a denominator, over events.

A metric here counts events as they come, bucket by bucket. It is the event view of docs/metrics.md: a use counts when
it happens, whatever becomes of it later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import polars as pl

from coupon_ledger.analysis.detector.floors import Floor
from coupon_ledger.ledger.topics import COUPON, ORDER
from coupon_ledger.projections.alerts.chunk import CAMPAIGN_OF
from coupon_ledger.projections.alerts.rules import COUPON_SLICES, ORDER_SLICES

SLICES: Final[Mapping[str, Mapping[str, str]]] = {
    COUPON: {name: CAMPAIGN_OF if name == "campaign" else name for name in COUPON_SLICES},
    ORDER: {name: name for name in ORDER_SLICES},
}
"""By topic, the slices of its metrics, each with the column of the journal."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One metric. `of`: what the numerator sums over events of `topic`; `per`: what the denominator sums, None if the
    metric is no ratio. `columns`: the columns of the journal that both need. `floor`: the least uncertainty of a
    value."""

    topic: str
    of: pl.Expr
    per: pl.Expr | None = None
    columns: tuple[str, ...] = ()
    floor: Floor = "none"


def _count(*types: str) -> pl.Expr:
    return pl.col("type").is_in(types).cast(pl.Int64)


def _sum(column: str, kind: str) -> pl.Expr:
    return pl.when(pl.col("type") == kind).then(pl.col(column).fill_null(0)).otherwise(0)


_COUPON_DISCOUNTS: Final = (
    pl.when(pl.col("type") == "paid")
    .then(
        pl.col("discounts")
        .list.eval(
            pl.when(pl.element().struct.field("kind") == "coupon")
            .then(pl.element().struct.field("amount_minor"))
            .otherwise(0)
        )
        .list.sum()
        .fill_null(0)
    )
    .otherwise(0)
)
ACQUIRED: Final = (
    (pl.col("type") == "claimed") | ((pl.col("type") == "issued") & pl.col("user_id").is_not_null())
).cast(pl.Int64)
"""Coupons that get an owner: claimed, or granted."""
_COUNTED: Final = ("created", "issued", "claimed", "reserved", "released", "used", "returned", "expired", "revoked")

MEASURES: Final[Mapping[str, Measure]] = {
    **{kind: Measure(COUPON, _count(kind), floor="poisson") for kind in _COUNTED},
    "discount": Measure(COUPON, _sum("discount_minor", "used"), columns=("discount_minor",)),
    "claim_rate": Measure(COUPON, _count("claimed"), _count("issued"), floor="binomial"),
    "use_rate": Measure(COUPON, _count("used"), ACQUIRED, columns=("user_id",), floor="binomial"),
    "return_rate": Measure(COUPON, _count("returned"), _count("used"), floor="binomial"),
    "orders": Measure(ORDER, _count("paid"), floor="poisson"),
    "cancelled_orders": Measure(ORDER, _count("cancelled"), floor="poisson"),
    "gmv": Measure(ORDER, _sum("gross_minor", "paid"), columns=("gross_minor",)),
    "net_sales": Measure(
        ORDER, _sum("net_minor", "paid") - _sum("refund_minor", "refunded"), columns=("net_minor", "refund_minor")
    ),
    "refunds": Measure(ORDER, _sum("refund_minor", "refunded"), columns=("refund_minor",)),
    "discount_share": Measure(
        ORDER, _COUPON_DISCOUNTS, _sum("gross_minor", "paid"), columns=("discounts", "gross_minor")
    ),
    "average_order": Measure(ORDER, _sum("net_minor", "paid"), _count("paid"), columns=("net_minor",)),
}

_SUMS: Final[Mapping[str, tuple[str, str]]] = {
    **{kind: (f"count(*) FILTER (type = '{kind}')", "0") for kind in _COUNTED},
    "discount": ("sum(discount_minor) FILTER (type = 'used')", "0"),
    "claim_rate": ("count(*) FILTER (type = 'claimed')", "count(*) FILTER (type = 'issued')"),
    "use_rate": (
        "count(*) FILTER (type = 'used')",
        "count(*) FILTER (type = 'claimed' OR (type = 'issued' AND user_id IS NOT NULL))",
    ),
    "return_rate": ("count(*) FILTER (type = 'returned')", "count(*) FILTER (type = 'used')"),
    "orders": ("count(*) FILTER (type = 'paid')", "0"),
    "cancelled_orders": ("count(*) FILTER (type = 'cancelled')", "0"),
    "gmv": ("sum(gross_minor) FILTER (type = 'paid')", "0"),
    "net_sales": (
        "coalesce(sum(net_minor) FILTER (type = 'paid'), 0)"
        " - coalesce(sum(refund_minor) FILTER (type = 'refunded'), 0)",
        "0",
    ),
    "refunds": ("sum(refund_minor) FILTER (type = 'refunded')", "0"),
    "discount_share": (
        "sum(list_sum(list_transform(list_filter(discounts, lambda d: d.kind = 'coupon'), lambda d: d.amount_minor)))"
        " FILTER (type = 'paid')",
        "sum(gross_minor) FILTER (type = 'paid')",
    ),
    "average_order": ("sum(net_minor) FILTER (type = 'paid')", "count(*) FILTER (type = 'paid')"),
}


def summed(metric: str) -> tuple[str, str]:
    """What `MEASURES` sums up for the metric, as SQL over rows of the journal: numerator and denominator (0 if the
    metric is no ratio)."""
    of, per = _SUMS[metric]
    return f"coalesce({of}, 0)", f"coalesce({per}, 0)"
