"""What a batch changed, as input for the rules across coupons and between topics, and for the kept tables."""

from __future__ import annotations

from dataclasses import dataclass, field

import polars as pl


@dataclass(frozen=True, slots=True)
class Changes:
    """What a batch changed in one topic.

    `before`: the former rows of all keys that have events in the batch; a new key has a row without values. `after`:
    the new rows of these keys, in the same order. `journalled`: the events added to the journal; `dropped`: the events
    removed from it. `stored`: for refolded keys, the events that were in the journal before.
    """

    topic: str
    before: pl.DataFrame
    after: pl.DataFrame
    journalled: list[pl.DataFrame]
    dropped: list[pl.DataFrame]
    stored: list[pl.DataFrame] = field(default_factory=list)

    def events(self, *columns: str) -> pl.DataFrame:
        """The columns `columns` of all events that were added to the journal or removed from it."""
        return pl.concat([e.select(columns) for e in (*self.journalled, *self.dropped)])


@dataclass(frozen=True, slots=True)
class Affected:
    """Orders for which the rules between topics are evaluated. `orders`: one row per order (`order_hash`, `order_id`).
    `values`: the row of each order that has events. `in_use`: the coupons in use on these orders."""

    orders: pl.DataFrame
    values: pl.DataFrame
    in_use: pl.DataFrame
