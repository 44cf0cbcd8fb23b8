"""The projections by name: their tables, and the version of what is computed into them.

Raise a version when the same log would give other rows. A database that another version filled is not touched;
`coupon-ledger rebuild` builds one with this version, and compares the projections with equal versions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from coupon_ledger.projections.connection import Reading

VERSIONS: Final = {
    **dict.fromkeys(("intake", "coupons", "orders", "campaigns", "rules"), 2),
    "users": 1,
    "metrics": 3,
    "attribution": 3,
}


def written_versions(reading: Reading) -> dict[str, int]:
    """The versions that filled the database, by projection; empty if it is too old to keep them."""
    if not reading.rows(
        "SELECT 1 FROM duckdb_tables() WHERE database_name = current_database() AND table_name = 'projections'"
    ):
        return {}
    return dict(reading.rows("SELECT name, version FROM projections"))


def differing(written: Mapping[str, int]) -> Iterator[tuple[str, int | None, int | None]]:
    """Name, version in the database and version of this code, for each projection where they differ."""
    for name in sorted(VERSIONS.keys() | written.keys()):
        if written.get(name) != VERSIONS.get(name):
            yield name, written.get(name), VERSIONS.get(name)
