"""Writes cross violations: replaces stored rows by the wanted ones, writing only the difference."""

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
"""The columns of a violation of section 4 in `violations`."""


def replace(store: Store, stored: pl.DataFrame, wished: pl.DataFrame) -> None:
    """Replace `stored`, rows of `violations` with their `row_id`, by `wished` (columns of `SCHEMA`)."""
    store.replace("violations", stored, _scoped(wished))


def add(adding: Adding, new: pl.DataFrame) -> None:
    """Add violations of which none is stored."""
    adding.insert("violations", _scoped(new))


def _scoped(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select(pl.lit("cross").alias("scope"), *SCHEMA)
