"""The changes of a batch, as input for the rules and the kept tables."""

from __future__ import annotations

from dataclasses import dataclass, field

import polars as pl


@dataclass(frozen=True, slots=True)
class Changes:
    """The changes of a batch in one topic.

    `before`: the rows of the touched keys, null for new keys; `after`: their new rows, in the same order.
    `journalled`, `dropped`: events added to the journal, and removed from it. `stored`: earlier events of the keys that
    were refolded.
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
    """Orders to evaluate. `orders`: `order_hash`, `order_id`; `values`: one row per order that has events; `in_use`:
    the coupons in use on the orders."""

    orders: pl.DataFrame
    values: pl.DataFrame
    in_use: pl.DataFrame
