"""Kept tables: computed from journals and rows and stored, so that questions are answered quickly."""

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
    """The changes of a batch. `changes`: by topic; `relinked`: the ids (`user_id`) whose person may have changed;
    `affected`: the orders to evaluate again, None if the database has no events yet."""

    changes: Mapping[str, Changes]
    relinked: pl.DataFrame
    affected: Affected | None


@dataclass(frozen=True, slots=True)
class OfSlices:
    """How a bulk load fills a table slice by slice instead of from the live tables.

    `part`: computes the part of one slice of coupons from its facts and rows. `put`: adds up all parts and writes them.
    """

    part: Callable[[pl.DataFrame, pl.DataFrame], pl.DataFrame]
    put: Callable[[Store, Iterable[pl.DataFrame]], None]


@dataclass(frozen=True, slots=True)
class KeptTable:
    """One entry of `projections.kept.KEPT`.

    `folder`: the package with its `schema.sql` and the SQL of its audits (`audit_NAME.sql`).
    `projection`: the name under which it is rebuilt; its version is in `projections.versions`.
    `tables`: the tables that are compared and digested, each with the columns that identify a row.
    `helpers`: its other tables.
    `settle`: updates it with the changes of a batch, inside the batch's transaction.
    `fill`: fills the empty table from the live tables, after a bulk load.
    `stand_in`: puts its past state in the place of the live one. Rows, journals and persons are already in place.
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
        """Empty its tables, and create those that an older database lacks. Inside the caller's transaction."""
        store.make_tables(self.folder)
        for table in (*self.tables, *self.helpers):
            store.execute(f"DELETE FROM {table}")
