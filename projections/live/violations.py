"""Writes violations of scope 'cross'."""

from __future__ import annotations

from typing import Final

import polars as pl

from coupon_ledger.projections.connection import Adding
from coupon_ledger.projections.store import Store

SCHEMA: Final = {
    "violation": pl.String,
    "topic": pl.String,
    "key_hash": pl.Int64,
    "key": pl.String,
    "event_id": pl.String,
    "occurred_at": pl.Datetime("us"),
    "counterpart": pl.String,
    "order_hash": pl.Int64,
    "trigger_topic": pl.String,
    "trigger_recorded_at": pl.Datetime("us"),
}
"""The columns of a violation of scope 'cross'."""


def replace(store: Store, stored: pl.DataFrame, wanted: pl.DataFrame) -> None:
    """Replace the rows `stored` in the table `violations` by the rows `wanted`. `stored`: as read from the table, with
    `row_id`. `wanted`: the columns of `SCHEMA`. A row that is in both is not touched."""
    store.replace("violations", stored, _scoped(wanted))


def add(adding: Adding, new: pl.DataFrame) -> None:
    """Insert violations (columns of `SCHEMA`) that are not stored yet."""
    adding.insert("violations", _scoped(new))


def _scoped(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select(pl.lit("cross").alias("scope"), *SCHEMA)
