"""Questions about customers, listed in `questions.registry.QUESTIONS`.

A customer is a person (all linked ids together) with at least one order that stands (`sold.sql`). Customers are counted
per currency: a person with orders in two currencies has two rows, and the scores of each row compare it with the
customers in the same currency.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

import numpy as np
import polars as pl

from coupon_ledger.analysis import need
from coupon_ledger.analysis.customers import SEGMENTS, TooLittleData, drivers, scored, tiered
from coupon_ledger.analysis.customers import clusters as clusters_of
from coupon_ledger.analysis.lifetime import CannotFit, fit_purchases, fit_spend
from coupon_ledger.ledger.errors import WrongQuestion
from coupon_ledger.ledger.labels import codes
from coupon_ledger.ledger.words import Note, of_error
from coupon_ledger.projections.connection import Reading, sql
from coupon_ledger.projections.wide import as_integers
from coupon_ledger.questions.customers.parameters import (
    AHEAD_DAYS,
    Behaviour,
    Clusters,
    Cohorts,
    Customers,
    Drivers,
    Listed,
    Segments,
)
from coupon_ledger.questions.metrics.money import goods_rates as goods
from coupon_ledger.questions.metrics.periods import Zone
from coupon_ledger.questions.parameters import OfPast

_ORDERS_AT_ONCE: Final = 2_000_000
FEATURES: Final = ("recency_days", "orders", "net_sales_minor", "coupon_order_share")
DRIVERS: Final = {
    "use": (
        "coupon_user",
        ("received", "orders", "recency_days", "tenure_days", "average_order_minor"),
    ),
    "repurchase": ("came_again", ("first_net_minor", "began_with_coupon", "tenure_days")),
}
"""By outcome: its column, and the features that may be associated with it."""
STEPS: Final = ("view", "coupon", "cart", "ordered", "paid", "returned")
TIERS: Final = ("high_value", "active", "bargain_hunter")
_AMOUNTS: Final = (
    "net_sales_minor",
    "gross_minor",
    "discounted_net_minor",
    "coupon_discount_minor",
    "coupon_margin_minor",
    "projected_minor",
)
_PROJECTED: Final = ("alive", "expected_orders", "projected_minor")


def customers(reading: Reading, parameters: Customers) -> pl.DataFrame:
    """All customers: one row per person and currency, highest net sales first.

    The columns are purchases and use of coupons, the RFM scores (`recency`, `frequency`, `money`, 5 is best) with the
    `segment`, the tiers (`high_value`, `active`, `bargain_hunter`), and a forecast for the next `ahead_days`: `alive`
    (probability that the customer is still active), `expected_orders`, `projected_minor` (expected net sales). The
    forecast is null if too few customers bought again to fit a model.

    Raises `WrongQuestion`.
    """
    rows = known(reading, parameters.ahead_days)
    if parameters.rule is not None:
        rows = _satisfying(rows, parameters.rule)
    rows = rows.sort("currency", "net_sales_minor", "user_id", descending=[False, True, False])
    return _first(rows, parameters.limit)


def known(reading: Reading, ahead_days: int = AHEAD_DAYS, goods_rates: Mapping[str, int] | None = None) -> pl.DataFrame:
    """All customers, with the columns of the question `customers`. Raises `WrongQuestion`."""
    need("customers", "scipy")
    rows = _read(reading, goods_rates)
    nothing = _projected(tiered(scored(rows.clear())), ahead_days)
    return pl.concat([nothing, *(_projected(tiered(scored(part)), ahead_days) for part in _by_currency(rows))])


def segments(reading: Reading, parameters: Segments) -> pl.DataFrame:
    """Customers by RFM segment: one row per segment and currency, the best segment first.

    `sales_share` is the segment's part of all net sales. `coupon_order_share` is the part of the segment's orders that
    have a coupon. `discount_share` = discounts / list price. `discounted_sales_share` is the part of the segment's net
    sales that comes from orders with any discount. `use_rate` = coupons used / coupons received. `came_again` is the
    share of customers with more than one order.

    `simple_roi` = margin of orders with a coupon / discount of the coupons. It is not incremental. The margin covers
    orders with a known cost of goods; `coupon_orders_without_cost` counts the others. If no order has a known cost, the
    return is null.
    """
    by_name = _summed(known(reading, goods_rates=parameters.goods_rates), "segment")
    names = _named("segment", SEGMENTS)
    return (
        by_name.join(names, on="segment")
        .sort("currency", "n")
        .drop("n")
        .select("segment", "name", pl.exclude("segment", "name"))
    )


def _named(column: str, codes_in_order: Sequence[str]) -> pl.DataFrame:
    """One row per code: the code (in a column named `column`), its Chinese `name`, and `n`, its place in
    `codes_in_order`, to sort by."""
    names = [codes()[code].zh for code in codes_in_order]
    return pl.DataFrame({column: codes_in_order, "name": names}).with_row_index("n")


def in_segments(reading: Reading) -> pl.DataFrame:
    """All customers: one row per person and currency, with the RFM scores, the values from which they are computed, and
    the segment."""
    with _sold(reading):
        rows = reading.frame(sql(__package__, "bought"))
    return pl.concat([scored(rows.clear()), *map(scored, _by_currency(rows))])


def tiers(reading: Reading, parameters: Segments) -> pl.DataFrame:
    """Customers by tier (high value, active, bargain hunters): one row per tier and currency, with the same figures as
    in the question `customer-segments`. A customer can be in several tiers."""
    everyone = known(reading, goods_rates=parameters.goods_rates)
    parts = [_summed(everyone.with_columns(tier=pl.when(name).then(pl.lit(name))), "tier") for name in TIERS]
    sums = pl.concat(parts).filter(pl.col("tier").is_not_null())
    names = _named("tier", TIERS)
    return (
        sums.join(names, on="tier").sort("currency", "n").drop("n").select("tier", "name", pl.exclude("tier", "name"))
    )


def clusters(reading: Reading, parameters: Clusters) -> pl.DataFrame:
    """K-means clusters of customers. There are two kinds of rows per currency.

    `kind` = choice: one row per number of clusters that was tried (`number`), with its silhouette score. The number
    with the highest score is `chosen`. `kind` = centre: one row per cluster (`number`), with its number of customers
    and the mean of each feature.

    Raises `WrongQuestion`.
    """
    need("clusters", "sklearn")

    def clustered(part: pl.DataFrame) -> pl.DataFrame:
        of = clusters_of(part, FEATURES, parameters.most)
        choice = of.choice.select(kind=pl.lit("choice"), number="k", silhouette="silhouette", chosen="chosen")
        centres = of.centres.select(
            pl.lit("centre").alias("kind"), pl.col("cluster").alias("number"), "customers", *FEATURES
        )
        return pl.concat([choice, centres], how="diagonal_relaxed")

    return _each_currency(_read(reading, None), "clusters", clustered)


_DRIVERS_OF: Final = {"use": "drivers of use", "repurchase": "drivers of repurchase"}


def goes_with(reading: Reading, parameters: Drivers) -> pl.DataFrame:
    """Which features of customers are associated with using coupons (`outcome` = use) or with buying again
    (repurchase): one row per feature and currency.

    `odds_ratio` (with `low`, `high`, `p`) is for one standard deviation of the feature, from a logistic regression on
    all features. `correlation` is the rank correlation of the outcome with this feature alone. Both show association,
    not causation.

    Raises `WrongQuestion`.
    """
    outcome = parameters.outcome
    if outcome not in DRIVERS:
        raise WrongQuestion(f"drivers of {outcome}: not known; there are {', '.join(DRIVERS)}")
    need("drivers", "statsmodels")
    name, features = DRIVERS[outcome]
    rows = _read(reading, None).with_columns(
        coupon_user=pl.col("used") > 0,
        came_again=pl.col("orders") > 1,
        began_with_coupon=(pl.col("first_coupon_at") == pl.col("first_paid_at")).fill_null(False),
    )
    return _each_currency(rows, _DRIVERS_OF[outcome], lambda part: drivers(part, name, features))


def lapsing(reading: Reading, parameters: Listed) -> pl.DataFrame:
    """Customers about to lapse: one row per customer and currency, highest net sales first. They have at least three
    orders, and `gaps_silent` is from 1.5 to 4: the time since their last order, divided by the mean gap between their
    orders."""
    late = pl.col("recency_days") / pl.col("mean_gap_days")
    rows = (
        known(reading)
        .with_columns(gaps_silent=late)
        .filter((pl.col("orders") >= 3) & (pl.col("mean_gap_days") > 0) & late.is_between(1.5, 4.0))
    )
    shown = (
        "user_id currency segment orders net_sales_minor last_paid_at mean_gap_days recency_days gaps_silent alive"
        " projected_minor coupon_order_share"
    ).split()
    rows = rows.sort("currency", "net_sales_minor", descending=[False, True]).select(shown)
    return _first(rows, parameters.limit)


def orders(reading: Reading, parameters: Listed) -> pl.DataFrame:
    """The orders from which the figures about customers are computed: one row per order that stands (paid, and neither
    cancelled nor refunded in full), sorted by customer, with the customer's RFM segment."""
    segment = in_segments(reading).select("user_id", "currency", "segment")
    with _sold(reading):
        rows = reading.frame("FROM sold ORDER BY user_id, paid_at, order_id")
    rows = rows.join(segment, on=["user_id", "currency"], how="left", nulls_equal=True, maintain_order="left")
    rows = rows.select("user_id", "segment", pl.exclude("user_id", "segment"))
    return _first(rows, parameters.limit)


def cohorts(reading: Reading, parameters: Cohorts) -> pl.DataFrame:
    """Retention by cohort: one row per cohort and number of months since (`months_later`).

    A cohort is all customers whose first order (first order with a coupon, if `with_coupon`) was in the same month.
    `customers` is the size of the cohort. `came` counts those with an order in the month that is `months_later` months
    after the first. `retention` = came / customers. `open`: the month is not over yet.

    Raises `WrongQuestion`.
    """
    with _sold(reading), reading.given(zone=Zone(parameters.zone).offsets()):
        return reading.frame(sql(__package__, "cohorts"), {"with_coupon": parameters.with_coupon})


def at_use(reading: Reading, _: OfPast) -> pl.DataFrame:
    """New and returning customers among the users of coupons: one row per campaign, currency and `customer` (new or
    returning).

    A use counts as new if the order is the customer's first, else as returning. `share` is the part of the campaign's
    uses in this currency that the row counts. `came_again` counts customers with a later order.
    """
    with _sold(reading):
        return reading.frame(sql(__package__, "at_use"))


def repurchase(reading: Reading, _: OfPast) -> pl.DataFrame:
    """How many customers bought again after their first use of a coupon: one row per number of days (7, 30, 60, 90) and
    currency.

    `could` counts customers whose first order with a coupon is at least that many days ago. Of these, `came` counts
    those with another order within that many days, and `full_price` those with another order without any discount
    within that many days.
    """
    with _sold(reading):
        return reading.frame(sql(__package__, "repurchase"))


def behaviour(reading: Reading, parameters: Behaviour) -> pl.DataFrame:
    """The funnel from view to return: one row per step (view, coupon, cart, ordered, paid, returned).

    `users` counts persons with an event of this step in the period; the steps need not happen in this order.
    `of_before` is `users` divided by `users` of the previous step. With `explain`: one row per step and person.
    """
    reached = sql(__package__, "behaviour")
    steps = ", ".join(f"({number}, '{step}')" for number, step in enumerate(STEPS))
    by_step = f"FROM (VALUES {steps}) s(n, step) LEFT JOIN ({reached}) r ON r.step = s.step"
    query = f"""
        SELECT s.step, count(r.user_id) AS users,
               round(count(r.user_id) / nullif(lag(count(r.user_id)) OVER (ORDER BY s.n), 0), 4) AS of_before
        {by_step} GROUP BY s.n, s.step ORDER BY s.n
    """
    if parameters.explain:
        query = f"SELECT s.step, r.user_id {by_step} WHERE r.user_id IS NOT NULL ORDER BY s.n, r.user_id"
    period = {"since": parameters.since, "until": parameters.until}
    rows = reading.frame(query, {"campaign": parameters.campaign, **period})
    return _first(rows, parameters.limit)


def _first(rows: pl.DataFrame, limit: int | None) -> pl.DataFrame:
    return rows if limit is None else rows.head(limit)


@contextmanager
def _sold(reading: Reading, goods_rates: Mapping[str, int] | None = None) -> Iterator[None]:
    """Within the block, queries can read the table `sold`: the orders that stand (sold.sql)."""
    rates = {"goods_rates": goods(goods_rates)}
    with (
        reading.holding("given_back", sql("coupon_ledger.questions.finance", "given_back"), {}),
        reading.holding("sold", sql(__package__, "sold"), rates),
    ):
        yield


def _read(reading: Reading, goods_rates: Mapping[str, int] | None) -> pl.DataFrame:
    """The rows of customers.sql for all customers. The query runs in parts to limit memory."""
    with _sold(reading, goods_rates):
        [(orders,)] = reading.rows("SELECT count(*) FROM sold")
        parts = 1 + orders // _ORDERS_AT_ONCE
        query = sql(__package__, "customers")
        frames = [reading.frame(query, {"parts": parts, "part": part}) for part in range(parts)]
    return pl.concat(frames, how="vertical_relaxed").sort("user_id", "currency", nulls_last=True)


def _by_currency(rows: pl.DataFrame) -> list[pl.DataFrame]:
    return rows.partition_by("currency", maintain_order=True) if rows.height else []


def _each_currency(rows: pl.DataFrame, what: str, compute: Callable[[pl.DataFrame], pl.DataFrame]) -> pl.DataFrame:
    """The results of `compute` for the rows of each currency that has enough data, in one frame. Raises `WrongQuestion`
    if no currency has. `what`: what is computed, used in the error."""
    results, why = [], []
    for part in _by_currency(rows):
        currency = part["currency"][0]
        try:
            results.append(compute(part).with_columns(currency=pl.lit(currency, pl.String)))
        except TooLittleData as error:
            why.append(Note("{currency}: {why}", {"currency": currency, "why": of_error(error)}))
    if not results:
        nobody = Note("nobody has bought anything", {})
        raise WrongQuestion(Note("{what}: {why}", {"what": Note(what, {}), "why": why or nobody}))
    return pl.concat(results)


def _projected(rows: pl.DataFrame, ahead_days: int) -> pl.DataFrame:
    """Add the forecast columns (`_PROJECTED`) to `rows`, the customers of one currency."""
    again = (rows["orders"] - 1).cast(pl.Float64).to_numpy()
    observed = rows["tenure_days"].cast(pl.Float64).to_numpy()
    last = observed - rows["recency_days"].cast(pl.Float64).to_numpy()
    later = (rows["net_sales_minor"] - rows["first_net_minor"]).cast(pl.Float64).to_numpy()
    mean = later / np.maximum(again, 1)
    try:
        coming, spending = fit_purchases(again, last, observed), fit_spend(again, mean)
        expected = coming.expected(ahead_days, again, last, observed)
        values = (
            coming.alive(again, last, observed),
            expected,
            expected * spending.expected(again, np.maximum(mean, 0)),
        )
        columns = [pl.Series(name, value) for name, value in zip(_PROJECTED, values, strict=True)]
    except CannotFit:
        columns = [pl.Series(name, [None] * rows.height, dtype=pl.Float64) for name in _PROJECTED]
    return rows.with_columns(columns).with_columns(pl.col("projected_minor").round().cast(pl.Int64))


def _satisfying(rows: pl.DataFrame, rule: str) -> pl.DataFrame:
    """The rows that satisfy `rule`, an SQL condition. It is evaluated as an expression on `rows`, so it can refer to no
    other data."""
    try:
        return rows.filter(pl.sql_expr(rule))
    except (pl.exceptions.PolarsError, TypeError, ValueError) as error:
        why = str(error).splitlines()[0]
        raise WrongQuestion(
            f'rule {rule!r}: cannot be used ({why}); write an SQL condition such as "orders >= 3 AND segment ='
            f" 'loyal'\" on {', '.join(rows.columns)}"
        ) from error


def _summed(rows: pl.DataFrame, by: str) -> pl.DataFrame:
    # Sums of amounts may exceed 64 bits; the averages below do not.
    rows = rows.with_columns(pl.col(_AMOUNTS).cast(pl.Int128))
    some_known = (pl.col("coupon_orders") > pl.col("coupon_orders_without_cost")).any()
    sums = rows.group_by("currency", by).agg(
        customers=pl.len(),
        orders=pl.col("orders").sum(),
        net_sales_minor=pl.col("net_sales_minor").sum(),
        coupon_orders=pl.col("coupon_orders").sum(),
        discount_share=(pl.col("discount_share") * pl.col("gross_minor")).sum() / pl.col("gross_minor").sum(),
        discounted_sales_share=pl.col("discounted_net_minor").sum() / pl.col("net_sales_minor").sum(),
        received=pl.col("received").sum(),
        used=pl.col("used").sum(),
        coupon_discount_minor=pl.col("coupon_discount_minor").sum(),
        coupon_margin_minor=pl.when(some_known | (pl.col("coupon_orders").sum() == 0)).then(
            pl.col("coupon_margin_minor").sum()
        ),
        coupon_orders_without_cost=pl.col("coupon_orders_without_cost").sum(),
        came_again=(pl.col("orders") > 1).mean(),
        full_price_after=pl.col("full_price_after").sum(),
        recency_days=pl.col("recency_days").median(),
        projected_minor=pl.col("projected_minor").sum(),
    )
    total = pl.col("net_sales_minor").sum().over("currency")
    summary = sums.select(
        by,
        "currency",
        "customers",
        "orders",
        "net_sales_minor",
        sales_share=pl.col("net_sales_minor") / total,
        coupon_order_share=pl.col("coupon_orders") / pl.col("orders"),
        discount_share="discount_share",
        discounted_sales_share=pl.when(pl.col("net_sales_minor") > 0).then(pl.col("discounted_sales_share")),
        coupon_discount_minor="coupon_discount_minor",
        simple_roi=pl.when(pl.col("coupon_discount_minor") > 0).then(
            pl.col("coupon_margin_minor") / pl.col("coupon_discount_minor")
        ),
        coupon_orders_without_cost="coupon_orders_without_cost",
        use_rate=pl.when(pl.col("received") > 0).then(pl.col("used") / pl.col("received")),
        came_again="came_again",
        full_price_after="full_price_after",
        median_recency_days="recency_days",
        projected_minor="projected_minor",
    )
    return as_integers(summary)
