"""Backtests: which episodes rules would have found in the past, computed from the journal. Nothing is written.

The events come in the order in which they were recorded, as for the live table, or in the order in which they happened,
as if none had been late.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import polars as pl

from coupon_ledger.ledger.progress import Progress, ignore
from coupon_ledger.ledger.topics import COUPON, ORDER
from coupon_ledger.projections.alerts.campaigns import Campaigns
from coupon_ledger.projections.alerts.chunk import EPOCH, released
from coupon_ledger.projections.alerts.engine import TopicEngine, topics_of
from coupon_ledger.projections.alerts.episodes import SCHEMA
from coupon_ledger.projections.alerts.in_force import InForce
from coupon_ledger.projections.alerts.rules import Rule
from coupon_ledger.projections.connection import Reading, live_schema
from coupon_ledger.projections.live.journal import CONFLICTS, JOURNAL


def replay(
    reading: Reading, rules: Sequence[Rule], until: datetime, *, occurred: bool = False, progress: Progress = ignore
) -> pl.DataFrame:
    """The episodes that these rules open up to `until` (naive UTC): one row each, with the columns of the table
    `alert_episodes` except its hash. Rules on the tables are left out.

    `occurred`: take the events in the order in which they happened, up to `until` by that clock. `progress`: in events.
    """
    rows: list[dict[str, Any]] = []
    streamed = {topic: [rule for rule in rules if topic in topics_of(rule)] for topic in (COUPON, ORDER)}
    with in_order(reading, occurred=occurred):
        totals = {topic: _events(reading, topic, until) for topic, mine in streamed.items() if mine}
        done = 0
        progress(0, sum(totals.values()))
        for topic in totals:
            engine = TopicEngine(
                reading, topic, [InForce(r, EPOCH, None) for r in streamed[topic]], EPOCH, None, new=True
            )
            for piece in released(reading, topic, EPOCH, until, engine.columns, None):
                engine.see(reading, engine.with_campaigns(reading, piece, Campaigns.asking()))
                done += len(piece)
                progress(done, sum(totals.values()))
            rows += [row for changed, _ in engine.changed() for row in changed]
    return pl.DataFrame(rows, schema=SCHEMA).sort("opened_at", "rule", "key")


@contextmanager
def in_order(reading: Reading, *, occurred: bool) -> Iterator[None]:
    """Within the block, with `occurred`, each event counts as recorded when it happened."""
    tables = [*JOURNAL.values(), *CONFLICTS.values()] if occurred else []
    live = live_schema(reading)
    for table in tables:
        reading.execute(
            f"CREATE TEMP VIEW {table} AS SELECT * REPLACE (occurred_at AS recorded_at) FROM {live}.{table}"
        )
    try:
        yield
    finally:
        for table in tables:
            reading.execute(f"DROP VIEW IF EXISTS temp.{table}")


def _events(reading: Reading, topic: str, until: datetime) -> int:
    counted = reading.frame(f"SELECT count(*) FROM {JOURNAL[topic]} WHERE recorded_at <= $until", {"until": until})
    return int(counted.item())
