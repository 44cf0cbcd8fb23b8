"""Computes the paths of some persons from their touches and orders. Pure functions of frames.

The *window* of an order is the time of length `LOOK_BACK` up to and including its payment. Always true: the path of an
order has the touches of its person within the window; if there are more than `MOST`, only the latest `MOST` of them. A
touch that is in no order's window is in exactly one path without an order.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from coupon_ledger.projections.live.signature import stable_hash

Int64 = npt.NDArray[np.int64]

LOOK_BACK: Final = timedelta(days=90)
"""The longest look-back window that an attribution model can have."""
MOST: Final = 100
"""Maximum number of touches that are stored per path."""

_LOOK_BACK_MICROS: Final = LOOK_BACK // timedelta(microseconds=1)
_FIRST_KINDS: Final = ("issued", "claimed")
"""Of touches at the same instant, those of these kinds come first, in this order."""
_INSTANT: Final = pl.Datetime("us")
SCHEMA: Final[dict[str, Any]] = {
    "person_hash": pl.Int64,
    "person": pl.String,
    "order_id": pl.String,
    "ended_at": _INSTANT,
    "previous_at": _INSTANT,
    "currency": pl.String,
    "sales_minor": pl.Int64,
    "cost_of_goods_minor": pl.Int64,
    "names_coupons": pl.Boolean,
    "touches": pl.Int64,
    "sources": pl.List(pl.Int64),
    "touched_at": pl.List(_INSTANT),
}


def paths_of(touches: pl.DataFrame, orders: pl.DataFrame) -> pl.DataFrame:
    """The rows of the table `paths` for some persons. `touches`: all touches of these persons (`person`, `occurred_at`,
    and `source` and `rank` from `ranked`). `orders`: all their orders, as orders.sql returns them."""
    persons = pl.concat([touches["person"], orders["person"]]).unique()
    coded = pl.DataFrame({"person": persons}).with_row_index("code")
    touches = touches.join(coded, on="person").sort("code", "occurred_at", "rank", "source")
    orders = orders.join(coded, on="person").sort("code", "occurred_at", "order_id")
    windows = _Windows(touches, orders)
    paths = pl.concat([windows.of_orders(), windows.without_order()])
    return paths.join(hashed(persons.to_frame()), on="person").select(*SCHEMA)


def hashed(persons: pl.DataFrame) -> pl.DataFrame:
    """Add the column `person_hash` to a frame with the column `person`."""
    return persons.with_columns(person_hash=pl.Series(stable_hash(persons["person"]), dtype=pl.Int64))


def ranked(sources: pl.DataFrame) -> pl.DataFrame:
    """Add two columns to `sources` (`kind`, `channel`, `campaign_id`). `source` is a hash of the three columns. `rank`
    decides the order of touches that have the same instant."""
    values = [(pl.lit("=") + pl.col(name)).fill_null("") for name in ("kind", "channel", "campaign_id")]
    text = sources.select(pl.concat_str(values, separator="\x1f")).to_series()
    rank = pl.col("kind").replace_strict(
        {k: n for n, k in enumerate(_FIRST_KINDS)}, default=len(_FIRST_KINDS), return_dtype=pl.Int8
    )
    return sources.with_columns(source=pl.Series(stable_hash(text), dtype=pl.Int64), rank=rank)


class _Windows:
    """The look-back windows of orders. Touches and orders are sorted by person (`code`), then by instant, so the
    touches in a window are a range of row numbers."""

    def __init__(self, touches: pl.DataFrame, orders: pl.DataFrame) -> None:
        self._touches, self._orders = touches, orders
        touched, paid = (frame["occurred_at"].cast(pl.Int64).to_numpy() for frame in (touches, orders))
        opened = paid - _LOOK_BACK_MICROS
        self._touched, self._paid, self._opened = _placed(
            (touches["code"], touched), (orders["code"], paid), (orders["code"], opened)
        )

    def of_orders(self) -> pl.DataFrame:
        """The paths of orders, one per order."""
        orders = self._orders
        after = np.searchsorted(self._touched, self._paid, side="right")
        first = np.searchsorted(self._touched, self._opened, side="left")
        same = orders["code"] == orders["code"].shift(1)
        previous = pl.select(pl.when(same).then(orders["occurred_at"].shift(1))).to_series()
        named = orders.select(
            "person",
            "order_id",
            "currency",
            "sales_minor",
            "cost_of_goods_minor",
            "names_coupons",
            ended_at="occurred_at",
        )
        return self._with_touches(named.with_columns(previous_at=previous), first, after)

    def without_order(self) -> pl.DataFrame:
        """The paths without an order, for all touches that are in no order's window. Neighbouring touches of a person
        are in the same path if the person's next order after them is the same, or if both have no next order."""
        touches = self._touches
        following = np.searchsorted(self._paid, self._touched, side="left")
        opened = np.r_[self._opened, np.iinfo(np.int64).max][following]
        paid_by = np.r_[self._orders["code"].to_numpy().astype(np.int64), -1][following]
        mine = paid_by == touches["code"].to_numpy()
        lost = np.flatnonzero(~mine | (self._touched < opened))
        run = np.c_[touches["code"].to_numpy()[lost], following[lost]]
        begins = np.flatnonzero(np.r_[True, (run[1:] != run[:-1]).any(axis=1)][: len(lost)])
        # The touches of a run are consecutive rows: touches in the window of the next order come after all of them.
        first = lost[begins]
        after = lost[np.r_[begins[1:] - 1, len(lost) - 1][: len(begins)]] + 1
        ended = touches[after - 1].select("person", ended_at="occurred_at")
        return self._with_touches(ended, first, after)

    def _with_touches(self, rows: pl.DataFrame, first: Int64, after: Int64) -> pl.DataFrame:
        """Add the columns about touches to paths. `first`, `after`: per path, the row number of its first touch, and
        the one after its last touch. Columns that `rows` lacks become null."""
        kept = np.maximum(first, after - MOST)
        lengths = after - kept
        offsets = np.r_[0, np.cumsum(lengths)]
        among = np.repeat(kept - offsets[:-1], lengths) + np.arange(offsets[-1])
        touches = self._touches[among].select("source", "occurred_at")
        lists = {
            "sources": _lists(touches["source"], offsets),
            "touched_at": _lists(touches["occurred_at"], offsets),
        }
        whole = rows.with_columns(touches=pl.Series(after - first, dtype=pl.Int64), **lists)
        lacking = [
            pl.lit(None, dtype=SCHEMA[n]).alias(n) for n in SCHEMA if n not in whole.columns and n != "person_hash"
        ]
        return whole.with_columns(lacking).select(n for n in SCHEMA if n != "person_hash")


def _lists(values: pl.Series, offsets: Int64) -> pl.Series:
    """A column of lists. The n-th list has the values with the indexes `offsets[n]` to `offsets[n + 1]` (exclusive)."""
    import pyarrow as pa

    array = pa.LargeListArray.from_arrays(pa.array(offsets, type=pa.int64()), values.to_arrow())
    lists = pl.from_arrow(array)
    assert isinstance(lists, pl.Series)
    return lists


def _placed(*of: tuple[pl.Series, Int64]) -> list[Int64]:
    """Combine person and instant into one integer, whose order is by person, then by instant. `of`: pairs of columns
    (person's code, instant). Returns one column of integers per pair. Integers of different pairs are comparable."""
    codes = [code.to_numpy().astype(np.int64) for code, _ in of]
    instants = [at for _, at in of]
    bounds = [bound for at in instants if len(at) for bound in (int(at.min()), int(at.max()))]
    first, last = min(bounds, default=0), max(bounds, default=0)
    persons = 1 + max((int(code.max()) for code in codes if len(code)), default=0)
    if persons * (last - first + 1) >= 1 << 62:  # the instants are too far apart, so rank them instead
        there = np.unique(np.concatenate(instants))
        instants, first, last = [np.searchsorted(there, at).astype(np.int64) for at in instants], 0, len(there)
    return [code * (last - first + 1) + (at - first) for code, at in zip(codes, instants, strict=True)]
