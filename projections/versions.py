"""The projections by name: their tables, and the version of what is computed into them.

Raise a version when the same log would give other rows. A database that was filled by another version is not touched;
`coupon-ledger rebuild` makes one by this version, and compares those projections whose versions are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from coupon_ledger.ledger.topics import CAMPAIGN, COUPON, INPUT_TOPICS, ORDER, USER
from coupon_ledger.projections.kept import KEPT

if TYPE_CHECKING:
    from coupon_ledger.projections.connection import Reading

VERSIONS: Final = {
    **dict.fromkeys(("intake", "coupons", "orders", "campaigns", "rules"), 2),
    "users": 1,
    **{table.projection: table.version for table in KEPT},
}

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
"""Which projection fills which table, and what tells a table's rows apart. The violations within single keys are among
the rules', too."""

TOPICS: Final = {
    "intake": INPUT_TOPICS,
    "coupons": (COUPON,),
    "orders": (ORDER,),
    "campaigns": (CAMPAIGN,),
    "users": (USER,),
    "rules": (COUPON,),
    **{table.projection: () for table in KEPT},
}
"""What is to be folded again for a projection; the rules across coupons and the kept tables always follow."""

IDENTITY: Final = {table: identity for tables in TABLES.values() for table, identity in tables.items()}


def written_versions(reading: Reading) -> dict[str, int]:
    """By which versions the database was filled; none where it is older than that is kept."""
    if not reading.rows(
        "SELECT 1 FROM duckdb_tables() WHERE database_name = current_database() AND table_name = 'projections'"
    ):
        return {}
    return dict(reading.rows("SELECT name, version FROM projections"))


def differing(written: Mapping[str, int]) -> Iterator[tuple[str, int | None, int | None]]:
    """Name, version there, version here, of the projections that another version filled."""
    for name in sorted(VERSIONS.keys() | written.keys()):
        if written.get(name) != VERSIONS.get(name):
            yield name, written.get(name), VERSIONS.get(name)
