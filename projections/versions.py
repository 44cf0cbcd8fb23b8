"""The projections by name: their tables, and the version of what is computed into them.

Raise a version when the same log would give other rows. A database that was filled by another version is not touched;
`coupon-ledger rebuild` makes one by this version, and compares those projections whose versions are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from projections.store import Reading

VERSIONS: Final = {"intake": 1, "coupons": 1, "orders": 1, "campaigns": 1, "users": 1, "rules": 1}

TABLES: Final = {
    "intake": ("dead_letters", "checkpoints"),
    "coupons": ("coupon_events", "coupon_conflicts", "coupons"),
    "orders": ("order_events", "order_conflicts", "orders"),
    "campaigns": ("campaign_events", "campaign_conflicts", "campaigns"),
    "users": ("user_events", "user_conflicts", "users"),
    "rules": ("violations", "acquisitions", "campaign_terms", "stock_cuts", "coupons_in_use", "uses", "awaited"),
}
"""Which projection fills which table. The violations within single keys are among the rules', too."""


def written_versions(reading: Reading) -> dict[str, int]:
    """By which versions the database was filled; none where it is older than that is kept."""
    if not reading.rows("SELECT 1 FROM duckdb_tables() WHERE table_name = 'projections'"):
        return {}
    return dict(reading.rows("SELECT name, version FROM projections"))


def differing(written: Mapping[str, int]) -> Iterator[tuple[str, int | None, int | None]]:
    """Name, version there, version here, of the projections that another version filled."""
    for name in sorted(VERSIONS.keys() | written.keys()):
        if written.get(name) != VERSIONS.get(name):
            yield name, written.get(name), VERSIONS.get(name)
