"""The folds of orders, campaigns and users. Most values of a row are from the canonically last event in which the field
has a value.

The folds are pure functions from (rows, events) to new rows, with the conventions of the coupon fold. `events` has a
column `entity` (row number in `rows`), and is sorted by this column, then in canonical order. All its events are later
than those that the rows have folded.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from coupon_ledger.ledger.topics import CAMPAIGN, ORDER, USER

Int64 = npt.NDArray[np.int64]

ORDER_LAST: Final = (
    "user_id channel store region currency gross_minor net_minor discounts cost_of_goods_minor reason coupon_ids lines"
).split()
CAMPAIGN_LAST: Final = (
    "name rule_id mechanic visibility quantity per_user_limit claim_from claim_until coupon_type "
    "face_value_minor percent_off_bp min_spend_minor currency applies_to exclusion_group priority "
    "platform_or_store budget_minor channel funded_by"
).split()
USER_LAST: Final = ("attributes",)

TERM_EVENTS: Final = ("drafted", "published", "unpublished", "amended", "ended")
"""The event types that carry a campaign's terms. Booked costs, targets and assignments do not change them."""
WIDE: Final = pl.Schema({"refunded_minor": pl.Int128()})
"""The columns of rows that are sums, with their type, since sums may need 128 bits."""

_RULE_EVENTS: Final = ("drafted", "published", "unpublished", "amended")
_STATUS_EVENTS: Final = ("drafted", "published", "unpublished", "ended")


def fold_orders(rows: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    rows = _last_carried(rows, events, ORDER_LAST)
    return rows.with_columns(
        placed_at=_first_of_type(rows["placed_at"], events, "placed"),
        paid_at=_first_of_type(rows["paid_at"], events, "paid"),
        cancelled_at=_cancelled(rows, events),
        repaid_at=_repaid(rows, events),
        refunded_minor=_refunded(rows, events),
    )


def fold_campaigns(rows: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    rows = _last_carried(rows, events.filter(pl.col("type").is_in(TERM_EVENTS)), CAMPAIGN_LAST)
    versions = events.filter(pl.col("type").is_in(_RULE_EVENTS))
    statuses = events.filter(pl.col("type").is_in(_STATUS_EVENTS))
    return rows.with_columns(
        rule_version=_latest(rows["rule_version"], versions["event_id"], versions["entity"]),
        status=_latest(rows["status"], statuses["type"], statuses["entity"]),
    )


def fold_users(rows: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    rows = _last_carried(rows, events, USER_LAST).with_row_index("entity")
    gained = events.group_by("entity").agg(
        pl.col("alias_id").filter(pl.col("type") == "linked").alias("more"),
        (pl.col("type") == "touched").sum().alias("contacts"),
    )
    gained = gained.with_columns(pl.col("entity").cast(pl.UInt32))
    joined = rows.join(gained, on="entity", how="left", maintain_order="left")
    empty = pl.lit([], dtype=pl.List(pl.String))
    return joined.with_columns(
        aliases=pl.concat_list(pl.col("aliases").fill_null(empty), pl.col("more").fill_null(empty))
        .list.unique()
        .list.sort(),
        touches=pl.col("touches").fill_null(0) + pl.col("contacts").fill_null(0).cast(pl.Int64),
    ).drop("entity", "more", "contacts")


FOLDS: Final = {ORDER: fold_orders, CAMPAIGN: fold_campaigns, USER: fold_users}


def _last_carried(rows: pl.DataFrame, events: pl.DataFrame, names: list[str] | tuple[str, ...]) -> pl.DataFrame:
    columns = {}
    for name in names:
        carrying = events.filter(pl.col(name).is_not_null())
        columns[name] = _latest(rows[name], carrying[name], carrying["entity"])
    return rows.with_columns(**columns)


def _latest(old: pl.Series, values: pl.Series, entity: pl.Series) -> pl.Series:
    """Per row, the last of its values in `values`. If there is none, the row's value in `old`. `values`: new values of
    rows, in order. `entity`: the row number of each value."""
    reference = len(values) + np.arange(len(old))
    reference[entity.to_numpy()] = np.arange(len(values))
    return pl.concat([values, old]).gather(reference).alias(old.name)


def _first_of_type(old: pl.Series, events: pl.DataFrame, kind: str) -> pl.Series:
    """Per row, its instant in `old`. If that is null, the instant of the row's first event of type `kind`."""
    those = events.filter(pl.col("type") == kind).reverse()
    first = _latest(old, those["occurred_at"], those["entity"])
    return pl.select(pl.coalesce(old, first)).to_series().alias(old.name)


def _cancelled(rows: pl.DataFrame, events: pl.DataFrame) -> pl.Series:
    """Per row, the instant of the first cancellation that no later payment follows. Null if there is none."""
    entity, place = events["entity"].to_numpy(), np.arange(events.height)
    paid = (events["type"] == "paid").to_numpy()
    last_paid = np.full(rows.height, -1, dtype=np.int64)
    last_paid[entity[paid]] = place[paid]
    standing = rows["cancelled_at"].set(pl.Series(last_paid >= 0), None)
    return _first_of_type(standing, events.filter(pl.Series(place > last_paid[entity])), "cancelled")


def _repaid(rows: pl.DataFrame, events: pl.DataFrame) -> pl.Series:
    """Per row, the instant of the first payment after a cancellation. Null if there is none."""
    entity, place = events["entity"].to_numpy(), np.arange(events.height)
    cancelled = np.flatnonzero((events["type"] == "cancelled").to_numpy())[::-1]
    first_cancelled = np.full(rows.height, events.height, dtype=np.int64)
    first_cancelled[entity[cancelled]] = cancelled
    first_cancelled[rows["cancelled_at"].is_not_null().to_numpy()] = -1
    return _first_of_type(rows["repaid_at"], events.filter(pl.Series(place > first_cancelled[entity])), "paid")


def _refunded(rows: pl.DataFrame, events: pl.DataFrame) -> pl.Series:
    """Per row, the sum of its refunds. Null if there are none."""
    amounts = pl.col("refund_minor").cast(pl.Int128)
    refunds = events.filter(pl.col("type") == "refunded").group_by("entity").agg(amounts.sum())
    old = rows["refunded_minor"].cast(pl.Int128)
    fresh = _latest(old.clear(rows.height), refunds["refund_minor"], refunds["entity"])
    return pl.select(pl.when(fresh.is_not_null()).then(old.fill_null(0) + fresh).otherwise(old)).to_series()
