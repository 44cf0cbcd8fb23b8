"""Which campaign an event of a coupon belongs to: the one that it carries; else the one that the coupon's earliest
recorded event carries, if that was recorded before.

All events of a coupon are in one partition, so this does not depend on how the log was cut into batches.
"""

from __future__ import annotations

import polars as pl

from coupon_ledger.projections.alerts.chunk import CAMPAIGN_OF
from coupon_ledger.projections.connection import Reading
from coupon_ledger.projections.live.changes import Changes

_JOURNAL = "coupon_events"
_PLACE = "(recorded_at, log_partition, log_offset)"
_PLACE_OF = "({0}.recorded_at, {0}.log_partition, {0}.log_offset)"


def with_campaigns(events: str) -> str:
    """A query for the rows of the query `events`, of the journal's columns, with the campaign of each."""
    return f"""
        WITH these AS MATERIALIZED ({events}),
        known AS (
            SELECT key_hash, arg_min(campaign_id, {_PLACE}) AS campaign, min({_PLACE}) AS place FROM {_JOURNAL}
            WHERE campaign_id IS NOT NULL AND key_hash IN (SELECT key_hash FROM these WHERE campaign_id IS NULL)
            GROUP BY key_hash
        )
        SELECT these.* REPLACE (
            coalesce(these.campaign_id, CASE WHEN known.place < {_PLACE_OF.format("these")} THEN known.campaign END)
            AS campaign_id)
        FROM these LEFT JOIN known ON known.key_hash = these.key_hash
    """


class Campaigns:
    """The campaigns of the coupons in batches whose events are not released yet, as they were before these batches."""

    def __init__(self) -> None:
        self._before: pl.DataFrame | None = _NONE

    @classmethod
    def asking(cls) -> Campaigns:
        """One that remembers nothing, and asks the journal."""
        asking = cls()
        asking.forget(complete=False)
        return asking

    def note(self, coupons: Changes) -> None:
        """Remember the campaigns of the coupons of a batch."""
        if self._before is not None:
            before = coupons.before.select("key_hash", campaign=CAMPAIGN_OF)
            self._before = pl.concat([self._before, before]).unique("key_hash", keep="first", maintain_order=True)

    def forget(self, *, complete: bool) -> None:
        """Forget them. `complete`: whether all events of the batches noted so far are released. If not, the journal is
        asked from now on, until they are."""
        self._before = _NONE if complete else None

    def resolve(self, reading: Reading, events: pl.DataFrame) -> pl.DataFrame:
        """The events of a piece with the campaign of each. `events`: in their total order, from the first event that is
        not released."""
        without = events.filter(pl.col(CAMPAIGN_OF).is_null())["key_hash"].unique()
        if not len(without):
            return events
        known = self._known(reading, without, events)
        order = pl.int_range(pl.len(), dtype=pl.Int64)
        carried = (
            events.select("key_hash", since=order, here=CAMPAIGN_OF)
            .filter(pl.col("here").is_not_null())
            .unique("key_hash", keep="first", maintain_order=True)
        )
        joined = (
            events.with_columns(place=order)
            .join(known, on="key_hash", how="left", maintain_order="left")
            .join(carried, on="key_hash", how="left", maintain_order="left")
        )
        later = pl.when(pl.col("since") < pl.col("place")).then(pl.col("here"))
        return joined.with_columns(pl.coalesce(CAMPAIGN_OF, "campaign", later).alias(CAMPAIGN_OF)).select(
            events.columns
        )

    def _known(self, reading: Reading, wanted: pl.Series, events: pl.DataFrame) -> pl.DataFrame:
        """The campaigns of these coupons from before the piece (`key_hash`, `campaign`)."""
        known = self._before if self._before is not None else _NONE
        missing = wanted.filter(~wanted.is_in(known["key_hash"].implode()))
        if not len(missing):
            return known
        with reading.given(wanted_coupons=missing.to_frame("key_hash")):
            found = reading.frame(
                f"SELECT key_hash, arg_min(campaign_id, {_PLACE}) AS campaign FROM {_JOURNAL}"
                " WHERE campaign_id IS NOT NULL AND recorded_at < $first"
                " AND key_hash IN (SELECT key_hash FROM wanted_coupons) GROUP BY key_hash",
                {"first": events["recorded_at"][0]},
            )
        return pl.concat([known, found])


_NONE = pl.DataFrame(schema={"key_hash": pl.Int64, "campaign": pl.String})
