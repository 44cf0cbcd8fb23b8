"""What a batch changed, as the rules and the kept tables read it."""

from __future__ import annotations

from dataclasses import dataclass, field

import polars as pl


@dataclass(frozen=True, slots=True)
class Changes:
    """What a batch did to one topic.

    `before`: the rows of the touched keys, null where there was none; `after`: the same keys' rows, in the same order.
    `journalled`, `dropped`: events that came into the journal, and that left it. `stored`: what it had before of the
    keys that were folded again.
    """

    topic: str
    before: pl.DataFrame
    after: pl.DataFrame
    journalled: list[pl.DataFrame]
    dropped: list[pl.DataFrame]
    stored: list[pl.DataFrame] = field(default_factory=list)

    def events(self, *columns: str) -> pl.DataFrame:
        """Of all events that came or went."""
        return pl.concat([e.select(columns) for e in (*self.journalled, *self.dropped)])


@dataclass(frozen=True, slots=True)
class Affected:
    """Orders to be looked at (`order_hash`, `order_id`), and what stands about them: what they say of themselves, a
    row for each that does, and the coupons in use on them."""

    orders: pl.DataFrame
    said: pl.DataFrame
    in_use: pl.DataFrame
