"""Questions about attribution. Each one first updates the stale paths within its transaction (`in_place`), so no answer
uses stale paths. For a question about the past, the past paths stand in for the live ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import polars as pl

from coupon_ledger.analysis import attribution as credit
from coupon_ledger.ledger.errors import NotThere
from coupon_ledger.ledger.words import note
from coupon_ledger.projections.attribution.paths import MOST
from coupon_ledger.projections.connection import Reading, sql
from coupon_ledger.projections.wide import as_integers
from coupon_ledger.questions.attribution import in_place
from coupon_ledger.questions.attribution.credits import NOBODY, OTHERS, UNKNOWN_COUPON, Selection, credits, weights_of
from coupon_ledger.questions.attribution.models import OVER_ALL, Model, models_named
from coupon_ledger.questions.attribution.parameters import Credits, CreditsOfOrder, Paid, Roi
from coupon_ledger.questions.metrics.money import goods_rates as goods

_MONEY: Final = ("sales_minor", "margin_minor")


def attribution(reading: Reading, parameters: Credits) -> pl.DataFrame:
    """Orders, sales and margin credited by each model: one row per model, currency and value. A value is a channel, a
    campaign, or a kind of touch, as the question asks.

    `share` is the value's part of all orders in the currency. `removal_effect` (markov) is the share of all orders that
    would be lost without the value. `error` (shapley) is the standard error of `orders` if combinations were sampled.
    `margin_minor` covers orders with a known cost of goods (null if there are none); `without_cost` counts the others.

    Raises `WrongQuestion`, `NotThere`.
    """
    models = models_named(parameters.models)
    in_place.complete(reading)
    selection = Selection(parameters.by, parameters.campaign, parameters.since, parameters.until)
    with _goods(reading, parameters.goods_rates):
        credited = credits(reading, models, selection)
    totals = dict(reading.frame(_query("totals"), selection.window).select("currency", "orders").iter_rows())
    share = pl.col("orders") / pl.col("currency").replace_strict(totals, return_dtype=pl.Float64, default=None)
    return _whole_money(credited).rename({"value": parameters.by}).with_columns(margin_minor=_MARGIN, share=share)


_MARGIN: Final = pl.when((pl.col("orders") == 0) | (pl.col("without_cost") < pl.col("orders") - 1e-9)).then(
    pl.col("margin_minor")
)
"""The margin, or null if no credited order has a known cost of goods. Counts are sums of fractions, hence the
tolerance."""


@contextmanager
def _goods(reading: Reading, goods_rates: Mapping[str, int] | None) -> Iterator[None]:
    """Within the block, queries can read the table `goods` (goods.sql): the cost of goods of those orders that do not
    state it."""
    with reading.holding("goods", _query("goods"), {"goods_rates": goods(goods_rates)}):
        yield


def _whole_money(credited: pl.DataFrame) -> pl.DataFrame:
    """Round the amounts to whole minor units. For each model and currency, the rounded amounts sum to the rounded
    total."""
    parts = [pl.DataFrame(schema=credited.schema).cast(dict.fromkeys(_MONEY, pl.Int128))]
    for part in credited.partition_by("model", "currency", maintain_order=True):
        whole = {n: credit.apportioned(round(part[n].sum()), part[n].to_numpy()) for n in _MONEY}
        parts.append(part.with_columns(pl.Series(n, values, dtype=pl.Int128) for n, values in whole.items()))
    return as_integers(pl.concat(parts))


def attribution_notes(reading: Reading, parameters: Paid) -> pl.DataFrame:
    """Numbers of orders to which a caveat about the credits applies: one row.

    `orders` counts the orders that stand. Of these, `without_touch` have no touch, `cut_off` have more touches than a
    path keeps, `without_sales` have sales of zero or less, and `without_cost` have no known cost of goods.
    `cost_by_rate` counts the orders for which the cost of at least one line is computed from `goods_rates`.
    `unknown_coupon` counts the orders that name coupons, if none of these is known to be used on the order. Orders that
    are `cancelled` or `refunded` in full get no credit; `refunded_more_than_paid` counts orders whose refund is above
    the payment. `currencies` is the number of currencies; amounts in different currencies are never added up.
    """
    in_place.complete(reading)
    with _goods(reading, parameters.goods_rates):
        return reading.frame(_query("notes"), {"since": parameters.since, "until": parameters.until, "most": MOST})


def attribution_order(reading: Reading, parameters: CreditsOfOrder) -> pl.DataFrame:
    """The touches that led to an order: one row per touch, earliest first.

    `credits` lists, for each model, the part of the order that the model credits to the touch. Models that do not
    credit single orders (markov, and shapley with worth `rate`) are left out. `touch` is the number of the touch. Rows
    that are not touches have no number: a used coupon that the model redeemed credits, and the part that is credited to
    nobody.

    Raises `NotThere`.
    """
    order = parameters.order
    models = [
        m
        for m in models_named(parameters.models)
        if m.kind not in OVER_ALL or (m.kind == "shapley" and m.worth == "orders")
    ]
    in_place.complete(reading)
    path = reading.frame(_query("path_of_order"), {"order": order})
    if not path.height:
        raise NotThere(
            f"order {order}: no paid order that stands (not cancelled, not refunded in full) has this id; see"
            f" `coupon-ledger order {order}`"
        )
    touches = _touches(reading, path)
    rows, lost, nobody = touches.to_dicts(), _row(UNKNOWN_COUPON), _row(NOBODY)
    for model in models:
        if model.kind == "redeemed":
            used = _used_on(reading, order)
            rows += [_row("used", model, c["part"], c) for c in used]
            credited = bool(used)
        else:
            weights = _weights(model, touches)
            for row, weight in zip(rows, weights, strict=False):
                row["credits"].append({"model": model.name, "credit": weight})
            credited = any(weights)
        if not credited:
            unknown = model.kind == "redeemed" and path["names_coupons"][0]
            (lost if unknown else nobody)["credits"].append({"model": model.name, "credit": 1.0})
    rows += [row for row in (lost, nobody) if row["credits"]]
    of = path.select("order_id", "person", "currency", "sales_minor", paid_at="ended_at")
    return of.join(pl.DataFrame(rows, schema=_TOUCH), how="cross")


_CREDIT: Final = pl.List(pl.Struct({"model": pl.String, "credit": pl.Float64}))
_TOUCH: Final[dict[str, Any]] = {
    "touch": pl.Int64,
    "at": pl.Datetime("us"),
    "kind": pl.String,
    "channel": pl.String,
    "campaign_id": pl.String,
    "coupon_id": pl.String,
    "days_before": pl.Float64,
    "credits": _CREDIT,
}


def _touches(reading: Reading, path: pl.DataFrame) -> pl.DataFrame:
    row = path.row(0, named=True)
    sources = reading.frame("SELECT * FROM touch_sources")
    listed = pl.DataFrame(
        {"source": row["sources"], "at": row["touched_at"]}, schema={"source": pl.Int64, "at": pl.Datetime("us")}
    )
    dropped = row["touches"] - listed.height
    numbered = listed.with_row_index("touch").join(sources, on="source", how="left", maintain_order="left")
    return numbered.select(
        touch=pl.col("touch").cast(pl.Int64) + 1 + dropped,
        at="at",
        kind="kind",
        channel="channel",
        campaign_id="campaign_id",
        coupon_id=pl.lit(None, dtype=pl.String),
        days_before=(pl.lit(row["ended_at"]) - pl.col("at")).dt.total_microseconds() / 86_400_000_000,
        credits=pl.lit([], dtype=_CREDIT),
    )


def _weights(model: Model, touches: pl.DataFrame) -> list[float]:
    """The part of the order that the model credits to each of `touches`; 0 for touches before the look-back window."""
    days = touches["days_before"].to_numpy()
    seen = days <= model.look_back_days
    channels = touches["channel"].fill_null("(unknown)")
    states = channels.cast(pl.Enum(channels.unique())).to_physical().to_numpy().astype(np.int64)
    paths = credit.Paths(np.array([0, int(seen.sum())]), states[seen], days[seen] * 86_400)
    weights = np.zeros(len(days))
    weights[seen] = weights_of(model, paths)
    return [float(weight) for weight in weights]


def _used_on(reading: Reading, order: str) -> list[dict[str, Any]]:
    used = reading.frame(_query("coupons_on_order"), {"order": order})
    took = used["took"].sum()
    return used.with_columns(part=pl.col("took") / took if took else pl.lit(1 / max(used.height, 1))).to_dicts()


def _row(kind: str, model: Model | None = None, part: float = 0, coupon: Mapping[str, Any] | None = None) -> Any:
    """A row of the answer that is not a touch: a used coupon (`coupon`), or the part that is credited to nobody.
    `part`: the part of the order that `model` credits to the coupon."""
    of = coupon or {}
    row = {"kind": kind, "at": of.get("used_at"), **{n: of.get(n) for n in ("channel", "campaign_id", "coupon_id")}}
    return row | {"credits": [{"model": model.name, "credit": part}] if model else []}


def attribution_roi(reading: Reading, parameters: Roi) -> pl.DataFrame:
    """The return of a campaign according to each model: one row per model and currency.

    `roi` = (credited margin - booked cost) / (discount + booked cost). The discount is not subtracted from the margin,
    because sales are already net of it. The return is attributed, not incremental: some of these orders would have come
    anyway. It is null if there was no cost, or if no credited order has a known cost of goods. Orders `without_cost`
    add nothing to the margin. `without_sale_minor` is the part of the discount that was given on orders that do not
    stand. The period applies to the payments, the uses of coupons and the bookings of costs.

    Raises `WrongQuestion`, `NotThere`.
    """
    campaign, models = parameters.campaign, models_named(parameters.models)
    in_place.complete(reading)
    selection = Selection("campaign", campaign, parameters.since, parameters.until, alone=True)
    costs = reading.frame(_query("campaign_costs"), {"campaign": campaign, **selection.window})
    with _goods(reading, parameters.goods_rates):
        credited = credits(reading, models, selection)
    credited = credited.filter(~pl.col("value").is_in([NOBODY, OTHERS, UNKNOWN_COUPON]))
    if (
        not credited.height
        and not costs.height
        and not reading.frame(_query("campaign_known"), {"campaign": campaign})["known"][0]
    ):
        said = note(
            "campaign {campaign}: no event and no coupon names it; see `coupon-ledger campaigns`", campaign=campaign
        )
        raise NotThere(said)
    grid = pl.DataFrame({"model": [m.name for m in models]}).join(
        pl.concat([credited["currency"], costs["currency"]]).unique().sort().to_frame(), how="cross"
    )
    rows = grid.join(credited, on=["model", "currency"], how="left", maintain_order="left")
    rows = rows.join(costs, on="currency", how="left", maintain_order="left")
    numbers = "orders sales_minor margin_minor without_cost discount_minor without_sale_minor booked_minor".split()
    rows = rows.with_columns(pl.col(numbers).fill_null(0)).with_columns(
        margin_minor=_MARGIN, cost_minor=pl.col("discount_minor") + pl.col("booked_minor")
    )
    roi = pl.when(pl.col("cost_minor") > 0).then(
        (pl.col("margin_minor") - pl.col("booked_minor")) / pl.col("cost_minor")
    )
    whole = rows.with_columns(pl.col(_MONEY).round().cast(pl.Int128), roi=roi)
    return as_integers(whole.select("model", "currency", *numbers, "cost_minor", "roi"))


def _query(name: str) -> str:
    return sql(__package__, name)
