"""Updates the kept tables, and the violations of the rules across coupons and between topics (docs/events.md). These
violations have the scope 'cross'. They are not counted in the column `violations` of coupons and orders.

`settle` runs once per batch, in its transaction, on the changes of all topics. Always true afterwards: the violations
equal those that an evaluation of the whole tables finds at the same data's clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

import polars as pl

from coupon_ledger.ledger.topics import CAMPAIGN, COUPON, ORDER, USER
from coupon_ledger.projections.attribution import persons
from coupon_ledger.projections.connection import Reading, sql
from coupon_ledger.projections.kept import KEPT
from coupon_ledger.projections.kept_table import Batch
from coupon_ledger.projections.live import campaign_rules, order_rules
from coupon_ledger.projections.live.changes import Changes
from coupon_ledger.projections.store import Store

_MINUTE: Final = timedelta(minutes=1)


def settle(store: Store, changes: Iterable[Changes]) -> datetime | None:
    """Update the data's clock, the violations of scope 'cross' and the kept tables for the changes of a batch. Returns
    the highest min(occurred_at, recorded_at) of the events that the batch added; None if it added none."""
    by_topic = {c.topic: c for c in changes}
    relinked = persons.settle(store, by_topic.get(USER))
    clock = latest([events for c in by_topic.values() for events in c.journalled])
    coupons, orders, campaigns = (by_topic.get(topic) for topic in (COUPON, ORDER, CAMPAIGN))
    campaign_rules.settle(store, coupons, campaigns, relinked)
    now, grace = _advanced(store, clock)
    affected = None
    if now is not None:
        affected = order_rules.update(store, coupons, orders, now)
        order_rules.settle(store, affected, now, grace)
    for table in KEPT:
        table.settle(store, Batch(by_topic, relinked, affected))
    return clock


def latest(journalled: Iterable[pl.DataFrame]) -> datetime | None:
    """The highest min(occurred_at, recorded_at) of the events in `journalled`, which were added to journals. None if
    there are none. The minimum keeps an event that claims to be from the future from advancing the data's clock beyond
    its recording. Repeats do not advance the clock, since they are not added to journals."""
    clocks = [e.select(pl.min_horizontal("occurred_at", "recorded_at").max()).item() for e in journalled]
    return max((at for at in clocks if at is not None), default=None)


def use_grace(store: Store, grace: timedelta) -> None:
    """Set the grace, inside the caller's transaction. If it changes, evaluate the rules between topics for all orders
    again."""
    now, before = clock_and_grace(store)
    if grace == before:
        return
    store.execute("UPDATE ledger SET grace_minutes = $minutes", {"minutes": grace // _MINUTE})
    if now is not None:
        for affected in order_rules.everything(store):
            order_rules.settle(store, affected, now, grace)


def _advanced(store: Store, clock: datetime | None) -> tuple[datetime | None, timedelta]:
    """Advance the data's clock to `clock`. If the clock is already later, or `clock` is None, it stays. Returns the
    data's clock and the grace."""
    moved = store.frame(sql(__package__, "move_clock"), {"clock": clock})
    return _as_clock_and_grace(moved)


def clock_and_grace(reading: Reading) -> tuple[datetime | None, timedelta]:
    """A pair: the data's clock (naive UTC; None if there are no events) and the grace."""
    return _as_clock_and_grace(reading.frame("SELECT data_clock, grace_minutes FROM ledger"))


def _as_clock_and_grace(ledger: pl.DataFrame) -> tuple[datetime | None, timedelta]:
    clock, minutes = ledger.row(0)
    return clock, minutes * _MINUTE
