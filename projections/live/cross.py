"""Settles the rules across coupons and between topics (docs/events.md), whose violations have the scope 'cross', and
the kept tables.

Runs once per batch, in its transaction, on the changes of all topics. Always true afterwards: the violations equal
those of an evaluation of the whole tables at the same data's clock. They are not counted in the rows of coupons or
orders.
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
    """Update the data's clock, the cross violations and the kept tables with these changes. Returns the batch's data
    clock."""
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
    """The highest min(occurred_at, recorded_at) of events added to journals. So an event from the future does not move
    the clock, and neither does a later repeat."""
    clocks = [e.select(pl.min_horizontal("occurred_at", "recorded_at").max()).item() for e in journalled]
    return max((at for at in clocks if at is not None), default=None)


def use_grace(store: Store, grace: timedelta) -> None:
    """Set the grace. If it changes, the rules between topics are evaluated again for all orders."""
    now, before = clock_and_grace(store)
    if grace == before:
        return
    store.execute("UPDATE ledger SET grace_minutes = $minutes", {"minutes": grace // _MINUTE})
    if now is not None:
        for affected in order_rules.everything(store):
            order_rules.settle(store, affected, now, grace)


def _advanced(store: Store, clock: datetime | None) -> tuple[datetime | None, timedelta]:
    """Advance the data's clock to the batch's clock. Returns clock and grace."""
    moved = store.frame(sql(__package__, "move_clock"), {"clock": clock})
    return _as_clock_and_grace(moved)


def clock_and_grace(reading: Reading) -> tuple[datetime | None, timedelta]:
    return _as_clock_and_grace(reading.frame("SELECT data_clock, grace_minutes FROM ledger"))


def _as_clock_and_grace(ledger: pl.DataFrame) -> tuple[datetime | None, timedelta]:
    clock, minutes = ledger.row(0)
    return clock, minutes * _MINUTE
