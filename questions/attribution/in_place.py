"""Brings the paths up to date for one question. If paths are stale, temporary tables shadow the live ones; these
disappear with the transaction.

Invariant: an answer is the same as if all paths were rebuilt from the committed state, however many paths `upkeep`
still has to update.
"""

from __future__ import annotations

from coupon_ledger.projections.attribution import upkeep
from coupon_ledger.projections.attribution.paths import hashed
from coupon_ledger.projections.attribution.persons import whose
from coupon_ledger.projections.attribution.upkeep import put_beside
from coupon_ledger.projections.connection import Reading, live_schema


def complete(reading: Reading) -> None:
    """Make the path tables up to date for queries of this transaction, which the caller must roll back."""
    stale = upkeep.stale_ids(reading)
    if not stale.height:
        return
    live = live_schema(reading)
    ids = whose(reading, stale)
    for table, kept in (("touch_sources", ""), ("stale_users", "WHERE false")):
        reading.execute(f"CREATE TEMP TABLE {table} AS SELECT * FROM {live}.{table} {kept}")
    for table, columns in (("paths_again", "*"), ("paths_gone", "person_hash, person")):
        reading.execute(f"CREATE TEMP TABLE {table} AS SELECT {columns} FROM {live}.paths LIMIT 0")
    put_beside(reading, "paths_gone", hashed(upkeep.once_persons(ids)))
    upkeep.build(
        reading, lambda table, rows: put_beside(reading, "paths_again" if table == "paths" else table, rows), ids
    )
    reading.execute(
        f"CREATE TEMP VIEW paths AS SELECT * FROM {live}.paths ANTI JOIN paths_gone USING (person_hash, person)"
        " UNION ALL SELECT * FROM paths_again"
    )
