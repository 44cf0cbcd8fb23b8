"""What a batch changed, as input for the rules across coupons and between topics, and for the kept tables."""

from __future__ import annotations

from dataclasses import dataclass, field

import polars as pl


@dataclass(frozen=True, slots=True)
class Changes:
    """What a batch changed in one topic.

    `before`: the rows that the keys with events in the batch had; for a new key, a row without values. `after`: their
    new rows, in the same order. `journalled`, `dropped`: the events that were added to the journal, and those that were
    removed from it. `stored`: the events of refolded keys that were in the journal before.
    """

    topic: str
    before: pl.DataFrame
    after: pl.DataFrame
    journalled: list[pl.DataFrame]
    dropped: list[pl.DataFrame]
    stored: list[pl.DataFrame] = field(default_factory=list)

    def events(self, *columns: str) -> pl.DataFrame:
        """These columns of all events that were added to the journal or removed from it."""
        return pl.concat([e.select(columns) for e in (*self.journalled, *self.dropped)])


@dataclass(frozen=True, slots=True)
class Affected:
    """Orders for which the rules between topics are evaluated. `orders`: one row per order (`order_hash`, `order_id`).
    `values`: the row of each order that has events. `in_use`: the coupons in use on these orders."""

    orders: pl.DataFrame
    values: pl.DataFrame
    in_use: pl.DataFrame
