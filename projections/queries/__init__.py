"""What people ask the live tables; each question is a `.sql` file here, with its grain, and bound parameters."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC
from typing import Any

import polars as pl

from ledger.codec import micros
from ledger.errors import LedgerError
from ledger.lifecycle import Delivery, Folded, fold
from ledger.topics import COUPON
from projections.live import journal
from projections.live.signature import stable_hash
from projections.store import Store, sql


class UnknownCoupon(LedgerError):
    pass


def _query(name: str) -> str:
    return sql(__package__, name)


def key_hash(key: str) -> int:
    return int(stable_hash(pl.Series([key]))[0])


def coupon(store: Store, coupon_id: str) -> dict[str, Any]:
    """One coupon's row. Raises `UnknownCoupon`."""
    found = store.frame(_query("coupon"), {"coupon_id": coupon_id, "key_hash": key_hash(coupon_id)})
    if not found.height:
        raise UnknownCoupon(f"coupon {coupon_id}: no event of it has been consumed; check the id, or run `consume`")
    return found.row(0, named=True)


def coupons(store: Store, filters: dict[str, Any], limit: int | None) -> Iterator[pl.DataFrame]:
    """Coupons by id, piece by piece. `filters`: campaign_id, state, owner (each may be None)."""
    yield from store.batches(_query("coupons"), {**filters, "limit": limit})


def history(store: Store, coupon_id: str) -> tuple[Folded, dict[str, dict[str, Any]]]:
    """The coupon folded by the reference, step by step, and per event_id where and when the log recorded it.

    Raises `UnknownCoupon`.
    """
    parameters = {"coupon_id": coupon_id, "key_hash": key_hash(coupon_id)}
    rows = [
        row
        for table in (journal.JOURNAL[COUPON], journal.CONFLICTS[COUPON])
        for row in store.frame(
            f"SELECT * EXCLUDE (key_hash) FROM {table} WHERE key_hash = $key_hash AND coupon_id = $coupon_id",
            parameters,
        ).iter_rows(named=True)
    ]
    if not rows:
        coupon(store, coupon_id)
    positions: dict[str, dict[str, Any]] = {}
    deliveries = []
    for row in rows:
        position = {name: row.pop(name) for name in journal.POSITION}
        positions.setdefault(row["event_id"], position)
        recorded_at = micros(position["recorded_at"].replace(tzinfo=UTC))
        deliveries.append(Delivery(row, recorded_at, position["log_partition"], position["log_offset"]))
    return fold(deliveries), positions


def campaigns(store: Store) -> pl.DataFrame:
    return store.frame(_query("campaigns"))


def violations(store: Store, filters: dict[str, Any], limit: int | None) -> Iterator[pl.DataFrame]:
    """Violations by time. `filters`: coupon_id, violation, scope (each may be None)."""
    yield from store.batches(_query("violations"), {**filters, "limit": limit})


def violation_counts(store: Store, filters: dict[str, Any]) -> pl.DataFrame:
    """Violations per code. `filters` as of `violations`."""
    return store.frame(_query("violation_counts"), filters)


def states(store: Store, filters: dict[str, Any]) -> pl.DataFrame:
    """Coupons per state. `filters` as of `coupons`."""
    return store.frame(_query("states"), filters)


def dead_letters(store: Store, limit: int | None) -> Iterator[pl.DataFrame]:
    yield from store.batches(_query("dead_letters"), {"limit": limit})


def dead_letter(store: Store, topic: str, partition: int, offset: int) -> dict[str, Any] | None:
    found = store.frame(_query("dead_letter"), {"topic": topic, "log_partition": partition, "log_offset": offset})
    return found.row(0, named=True) if found.height else None


def summary(store: Store) -> dict[str, Any]:
    """Counts over the whole database, the data's clock and the last commit."""
    return store.frame(_query("summary")).row(0, named=True)
