"""Describes kept tables: tables that are computed from journals and rows and stored, so that questions are answered
quickly."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import polars as pl

from coupon_ledger.projections.connection import Adding
from coupon_ledger.projections.live.changes import Affected, Changes
from coupon_ledger.projections.store import Store

if TYPE_CHECKING:
    from coupon_ledger.projections.past import Past


@dataclass(frozen=True, slots=True)
class Batch:
    """The changes of a batch, as input for `KeptTable.settle`. `changes`: by topic. `relinked`: the ids (`user_id`)
    whose person may have changed. `affected`: the orders that the rules between topics evaluate again; None if the
    database has no events yet."""

    changes: Mapping[str, Changes]
    relinked: pl.DataFrame
    affected: Affected | None


@dataclass(frozen=True, slots=True)
class OfSlices:
    """The functions with which a bulk load fills a kept table slice by slice, instead of from the live tables.

    `part`: computes an intermediate result for one slice of coupons, from its facts and rows. `put`: sums the
    intermediate results of all slices and writes the table.
    """

    part: Callable[[pl.DataFrame, pl.DataFrame], pl.DataFrame]
    put: Callable[[Store, Iterable[pl.DataFrame]], None]


@dataclass(frozen=True, slots=True)
class KeptTable:
    """The description of a kept table: one entry of `projections.kept.KEPT`.

    `folder`: the package with its `schema.sql` and the SQL of its audits (`audit_NAME.sql`).
    `projection`: the name of the projection that it is rebuilt with; its version is in `projections.versions`.
    `tables`: its tables that are digested, and compared after a rebuild, each with the columns that identify a row.
    `helpers`: its other tables.
    `settle`: updates the tables with the changes of a batch, inside the batch's transaction.
    `fill`: fills the empty tables from the live tables, after a bulk load.
    `stand_in`: puts the tables' past state in the place of the live one. Past rows, journals and persons are already in
    place.
    `audits`: the names of its audits.
    `of_slices`: how a bulk load fills it slice by slice; None if only `fill` does.
    `release`: for a table that follows the order of recording: adds what follows from all events recorded up to the
    instant (naive UTC) up to which each topic is complete. Called in the transaction of every batch and bulk load,
    after its positions are stored.
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
    release: Callable[[Store, Mapping[str, datetime]], None] | None = None

    def clear(self, store: Store) -> None:
        """Empty all tables of this kept table, inside the caller's transaction. Creates those that an older database
        lacks."""
        store.make_tables(self.folder)
        for table in (*self.tables, *self.helpers):
            store.execute(f"DELETE FROM {table}")
