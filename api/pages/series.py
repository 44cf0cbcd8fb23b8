"""Values out of the rows of metrics, in which counts and amounts have rows of their own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from coupon_ledger.questions.metrics.definitions import METRICS
from coupon_ledger.reports.labels import label, say
from coupon_ledger.reports.text import Row

_SHORT: Final = {
    "claimed_events": "Claims",
    "issued_events": "Issued",
    "used_events": "Uses",
    "net_used_events": "Uses kept",
    "coupon_gmv_minor": "GMV with coupons",
    "gmv_minor": "GMV",
    "discount_cost_minor": "Discount",
    "use_rate": "Use rate",
    "simple_roi": "Simple ROI",
    "stock_left": "Stock left",
}
"""Short names of the metrics that pages show most."""


def short_label(name: str) -> str:
    """The name of a metric where there is little room."""
    return say(_SHORT[name]) if name in _SHORT else label(name)


def main_currency(rows: Sequence[Row], name: str) -> str | None:
    """The currency in which the amount `name` is largest. None if there are no amounts."""
    sums: Counter[str] = Counter()
    for row in rows:
        if row.get("currency") is not None and row.get(name) is not None:
            sums[row["currency"]] += abs(row[name])
    return max(sums, key=lambda currency: sums[currency], default=None)


def value_of(rows: Sequence[Row], name: str, currency: str | None) -> Row:
    """The row that has the metric `name`; empty if there is none. `currency`: of amounts."""
    wanted = currency if METRICS[name].money else None
    return next((row for row in rows if row.get("currency") == wanted), {})


def series_of(rows: Sequence[Row], name: str, currency: str | None) -> list[tuple[datetime, Any]]:
    """The instants and values of the metric `name` in rows by grain."""
    wanted = currency if METRICS[name].money else None
    return [(row["starts_at"], row.get(name)) for row in rows if row.get("currency") == wanted]
