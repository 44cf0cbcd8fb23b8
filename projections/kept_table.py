"""Kept tables: computed once and stored beside journals and rows, so that answers come soon."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from coupon_ledger.projections.connection import Adding
from coupon_ledger.projections.live.changes import Affected, Changes
from coupon_ledger.projections.store import Store

if TYPE_CHECKING:
    from coupon_ledger.projections.past import Past


@dataclass(frozen=True, slots=True)
class Batch:
    """What a batch changed. `changes`: by topic; `relinked`: the ids (`user_id`) whose person may have changed;
    `affected`: the orders to evaluate again, None before anything happened."""

    changes: Mapping[str, Changes]
    relinked: pl.DataFrame
    affected: Affected | None


@dataclass(frozen=True, slots=True)
class OfSlices:
    """How a table is filled from the slices of a whole history instead of from the live tables.

    `part`: computes what a slice of coupons adds from its facts and rows; `put`: adds up all parts and writes them.
    """

    part: Callable[[pl.DataFrame, pl.DataFrame], pl.DataFrame]
    put: Callable[[Store, Iterable[pl.DataFrame]], None]


@dataclass(frozen=True, slots=True)
class KeptTable:
    """One entry of `projections.kept.KEPT`.

    `folder`: the package with its `schema.sql` and the SQL of its audits (`audit_NAME.sql`).
    `projection`: the name under which it is rebuilt; its version is in `projections.versions`.
    `tables`: those that are compared and digested, each with the columns that identify a row; `helpers`: others.
    `settle`: brings it up to what a batch changed, inside the batch's transaction.
    `fill`: fills it, when empty, from the live tables of a whole history.
    `stand_in`: puts its past state in the place of the present one. Rows, journals and persons are in place already.
    """

    folder: str
    projection: str
    tables: Mapping[str, tuple[str, ...]]
    settle: Callable[[Store, Batch], None]
    fill: Callable[[Adding], None]
    stand_in: Callable[[Past], None]
    audits: tuple[str, ...]
    helpers: tuple[str, ...] = ()
    of_slices: OfSlices | None = None

    def clear(self, store: Store) -> None:
        """Empty its tables, creating those that an older database lacks. Inside the caller's transaction."""
        store.make_tables(self.folder)
        for table in (*self.tables, *self.helpers):
            store.execute(f"DELETE FROM {table}")
