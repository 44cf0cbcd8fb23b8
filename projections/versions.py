"""The version of each projection.

Raise a projection's version when a change of the code makes other rows from the same log. A database that was filled by
another version cannot be opened. `coupon-ledger rebuild` then builds a new one, and compares the projections whose
versions are equal in both.
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
    "alerts": 2,
}


def written_versions(reading: Reading) -> dict[str, int]:
    """By projection, the version of the code that filled the database. Empty for a database of an old release, which
    does not store them."""
    if not reading.rows(
        "SELECT 1 FROM duckdb_tables() WHERE database_name = current_database() AND table_name = 'projections'"
    ):
        return {}
    return dict(reading.rows("SELECT name, version FROM projections"))


def differing(written: Mapping[str, int]) -> Iterator[tuple[str, int | None, int | None]]:
    """Yield each projection whose version in the database differs from that of this code: its name, the version in the
    database and the version of this code. A version is None if there is none."""
    for name in sorted(VERSIONS.keys() | written.keys()):
        if written.get(name) != VERSIONS.get(name):
            yield name, written.get(name), VERSIONS.get(name)
