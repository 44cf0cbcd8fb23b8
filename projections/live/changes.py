"""What a batch changed, as the rules and the kept tables read it."""

from __future__ import annotations

from dataclasses import dataclass, field

import polars as pl


@dataclass(frozen=True, slots=True)
class Changes:
    """What a batch changed in one topic.

    `before`: the rows of the touched keys, null for new keys; `after`: the same keys' rows, in the same order.
    `journalled`, `dropped`: events added to the journal, and removed from it. `stored`: the events that it already had
    of the keys that were refolded.
    """

    topic: str
    before: pl.DataFrame
    after: pl.DataFrame
    journalled: list[pl.DataFrame]
    dropped: list[pl.DataFrame]
    stored: list[pl.DataFrame] = field(default_factory=list)

    def events(self, *columns: str) -> pl.DataFrame:
        """These columns of all events that were added or removed."""
        return pl.concat([e.select(columns) for e in (*self.journalled, *self.dropped)])


@dataclass(frozen=True, slots=True)
class Affected:
    """Orders to evaluate. `orders`: `order_hash`, `order_id`; `said`: the values of those that have events, one row
    each; `in_use`: the coupons in use on them."""

    orders: pl.DataFrame
    said: pl.DataFrame
    in_use: pl.DataFrame
