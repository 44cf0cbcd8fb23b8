"""Lists the tables of each projection, the columns that identify a row of each table, and the topics that are folded
again when a projection is rebuilt."""

from __future__ import annotations

from typing import Final

from coupon_ledger.ledger.topics import CAMPAIGN, COUPON, INPUT_TOPICS, ORDER, USER
from coupon_ledger.projections.kept import KEPT

_LOG_POSITION: Final = ("recorded_at", "log_partition", "log_offset")


def _of_topic(journal: str, conflicts: str, rows: str, key: str) -> dict[str, tuple[str, ...]]:
    return {journal: (key, "event_id"), conflicts: (key, "event_id", *_LOG_POSITION), rows: (key,)}


def _of_kept(projection: str) -> dict[str, tuple[str, ...]]:
    mine = (table.tables for table in KEPT if table.projection == projection)
    return {name: identity for tables in mine for name, identity in tables.items()}


TABLES: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    "intake": {
        "dead_letters": ("topic", "log_partition", "log_offset"),
        "checkpoints": ("topic", "log_partition"),
    },
    "coupons": _of_topic("coupon_events", "coupon_conflicts", "coupons", "coupon_id"),
    "orders": _of_topic("order_events", "order_conflicts", "orders", "order_id"),
    "campaigns": _of_topic("campaign_events", "campaign_conflicts", "campaigns", "campaign_id"),
    "users": _of_topic("user_events", "user_conflicts", "users", "user_id"),
    "rules": {
        "violations": ("topic", "key", "event_id", "violation", "counterpart"),
        "acquisitions": ("coupon_id",),
        "campaign_terms": ("campaign_id", "since"),
        "stock_cuts": ("campaign_id", "quantity"),
        "coupons_in_use": ("coupon_id",),
        "uses": ("coupon_id", "event_id"),
        "awaited": ("order_id",),
    },
    **{name: _of_kept(name) for name in dict.fromkeys(table.projection for table in KEPT)},
}
"""The tables of each projection, each with the columns that identify a row. All violations belong to the projection
`rules`, including violations of the rules within one key."""

TOPICS: Final = {
    "intake": INPUT_TOPICS,
    "coupons": (COUPON,),
    "orders": (ORDER,),
    "campaigns": (CAMPAIGN,),
    "users": (USER,),
    "rules": (COUPON,),
    **{table.projection: () for table in KEPT},
}
"""By projection, the topics that are folded again when only this projection is rebuilt. The tables of the rules across
coupons and the kept tables are always rebuilt with it."""

IDENTITY: Final = {table: identity for tables in TABLES.values() for table, identity in tables.items()}
"""By table, the columns that identify a row."""
