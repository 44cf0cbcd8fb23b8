"""Which violations of the rules across coupons and between topics (docs/events.md) a hypothetical change of coupons
would cause or remove.

The consumer's own rules are applied twice to the campaigns and orders of these coupons: to the coupons as they are, and
as they would be. Grace periods count as over, so the result includes violations that still wait for the other topic.
Nothing is written to the database.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import polars as pl

from coupon_ledger.projections.connection import Reading, live_schema, sql
from coupon_ledger.projections.live import campaign_rules, order_rules
from coupon_ledger.projections.live.cross import clock_and_grace
from coupon_ledger.projections.live.signature import stable_hash
from coupon_ledger.questions.states.parameters import Become

_VIOLATION: Final = ["violation", "topic", "key", "event_id", "occurred_at", "counterpart"]
_INSTANT: Final = pl.Datetime("us")
_ROW: Final[dict[str, Any]] = {
    "coupon_id": pl.String,
    "state": pl.String,
    "campaign_id": pl.String,
    "acquired_at": _INSTANT,
    "acquired_event_id": pl.String,
    "acquired_by": pl.String,
    "order_id": pl.String,
    "used_at": _INSTANT,
    "used_event_id": pl.String,
    "discount_minor": pl.Int64,
    "min_spend_minor": pl.Int64,
    "coupon_type": pl.String,
    "face_value_minor": pl.Int64,
    "percent_off_bp": pl.Int64,
}
_ACQUIRED: Final = ["campaign_id", "acquired_at", "acquired_event_id", "acquired_by"]
_USE: Final = (
    "order_id used_at used_event_id discount_minor min_spend_minor coupon_type face_value_minor percent_off_bp".split()
)


def changed(reading: Reading, coupons: Sequence[Become]) -> pl.DataFrame:
    """The violations that would appear (`change` = comes) or disappear (`change` = goes) if the coupons became as in
    `coupons`. The function creates temporary tables, so the caller must roll back its transaction."""
    rows = [{name: getattr(coupon, name) for name in _ROW} for coupon in coupons]
    after = _hashed(pl.DataFrame(rows, schema=_ROW), "coupon_id")
    with reading.given(wanted=after.select("key_hash", "coupon_id")):
        before = reading.frame(sql(__package__, "coupons_as_they_are")).cast({"state": pl.String})
    uses = [(c.coupon_id, event_id, order_id) for c in coupons for event_id, order_id in c.uses]
    new_uses = pl.DataFrame(
        uses, schema=dict.fromkeys(("coupon_id", "event_id", "order_id"), pl.String()), orient="row"
    )
    was, becomes = _within_campaigns(reading, before, after)
    was_between, becomes_between = _between_topics(reading, before, after, new_uses)
    was, becomes = (
        pl.concat([a.select(_VIOLATION), b.select(_VIOLATION)])
        for a, b in ((was, was_between), (becomes, becomes_between))
    )
    come = becomes.join(was, on=_VIOLATION, how="anti", nulls_equal=True).select(
        pl.lit("comes").alias("change"), pl.all()
    )
    gone = was.join(becomes, on=_VIOLATION, how="anti", nulls_equal=True).select(
        pl.lit("goes").alias("change"), pl.all()
    )
    return pl.concat([come, gone]).sort("change", "occurred_at", "topic", "key", "violation", "counterpart")


def _hashed(rows: pl.DataFrame, of: str, name: str = "key_hash") -> pl.DataFrame:
    return rows.with_columns(pl.Series(stable_hash(rows[of]), dtype=pl.Int64).alias(name))


def _within_campaigns(reading: Reading, before: pl.DataFrame, after: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The violations before and after the change, as two frames, in the campaigns for which the change affects which
    coupons count as acquired. `before`, `after`: the changed coupons as they are and as they would be."""
    columns = ["key_hash", "coupon_id", *_ACQUIRED]
    counts = pl.col("campaign_id").is_not_null() & pl.col("acquired_at").is_not_null()
    had, has = (rows.select(columns).filter(counts) for rows in (before, after))
    lost, got = (a.join(b, on=columns, how="anti", nulls_equal=True) for a, b in ((had, has), (has, had)))
    campaigns = _hashed(pl.concat([lost, got]).select("campaign_id").unique(), "campaign_id", "campaign_hash")
    campaigns = campaigns.select("campaign_hash", "campaign_id")
    terms = campaign_rules.terms_of(reading, campaigns)
    ruled = terms.select("campaign_hash", "campaign_id").unique()
    with reading.given(chosen=ruled):
        members = reading.frame(sql("coupon_ledger.projections.live", "members_of_campaigns")).select(columns)
    mine = got.join(ruled, on="campaign_id", how="semi")
    others = members.join(lost, on=["key_hash", "coupon_id"], how="anti")
    as_it_is, becomes = members, pl.concat([others, mine])
    return campaign_rules.broken(reading, as_it_is, terms), campaign_rules.broken(reading, becomes, terms)


def _between_topics(
    reading: Reading, before: pl.DataFrame, after: pl.DataFrame, new_uses: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The violations before and after the change, as two frames, of the affected orders. These are the orders on which
    the coupons are (or would be) used or reserved, and the orders named by `new_uses`, the new `used` events. `before`,
    `after`: the changed coupons as they are and as they would be."""
    columns = ["key_hash", "coupon_id", *_USE]
    used = pl.col("state") == "used"
    in_use, becomes = (_hashed(rows.filter(used).select(columns), "order_id", "order_hash") for rows in (before, after))
    uses = _hashed(_hashed(new_uses, "coupon_id"), "order_id", "order_hash")
    uses = uses.with_columns(recorded_at=pl.lit(None, _INSTANT))
    held = [
        _hashed(rows.filter(pl.col("state") == "reserved").select("order_id"), "order_id", "order_hash")
        for rows in (before, after)
    ]
    orders = pl.concat([rows.select("order_hash", "order_id") for rows in (in_use, becomes, uses, *held)]).unique()
    _, grace = clock_and_grace(reading)

    def broken() -> pl.DataFrame:
        return order_rules.broken(reading, order_rules.as_stored(reading, orders), datetime.max, grace)[0]

    as_it_is = broken()
    for table, rows in (("coupons_in_use", becomes), ("uses", uses)):
        _stand_in(reading, table, orders, rows, after if table == "coupons_in_use" else after.clear())
    with reading.given(becoming=after.select("key_hash", "coupon_id", "state", "order_id")):
        reading.execute("CREATE TEMP TABLE coupons AS SELECT * FROM becoming")
    live = f"{live_schema(reading)}.coupons"
    reading.execute(
        f"INSERT INTO coupons SELECT key_hash, coupon_id, state::VARCHAR, order_id FROM {live} c"
        " WHERE state = 'reserved' AND NOT EXISTS (FROM coupons t WHERE t.coupon_id = c.coupon_id)"
    )
    return as_it_is, broken()


def _stand_in(reading: Reading, table: str, orders: pl.DataFrame, rows: pl.DataFrame, gone: pl.DataFrame) -> None:
    """Shadow the live table `table` with a temporary one. The temporary table contains the live rows of `orders`,
    except those of the coupons in `gone`, and also `rows`."""
    with reading.given(affected=orders):
        live = reading.frame(f"SELECT t.* FROM {table} t SEMI JOIN affected USING (order_hash, order_id)")
    remaining = live.join(gone, on=["key_hash", "coupon_id"], how="anti")
    with reading.given(replacement=pl.concat([remaining, rows.select(remaining.columns)])):
        reading.execute(f"CREATE TEMP TABLE {table} AS SELECT * FROM replacement")
