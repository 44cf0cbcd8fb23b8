"""Paths for a question, in temporary tables that stand before the live ones and go with the transaction: of the past,
or of the present where the live ones are behind.

What always holds: an answer is that of all paths made again from what is committed, however far `upkeep` has come.
"""

from __future__ import annotations

import polars as pl

from projections.attribution import upkeep
from projections.attribution.paths import hashed
from projections.past import Past, live_schema
from projections.store import Reading


def complete(reading: Reading) -> None:
    """Let the tables say what they will when all is settled, for the rest of a transaction that is rolled back."""
    stale = upkeep.stale_ids(reading)
    if not stale.height:
        return
    live = live_schema(reading)
    ids, fresh = upkeep.with_relinked(reading, stale)
    before = upkeep.whose(reading, ids)
    for table in ("persons", "touch_sources", "stale_users"):
        kept = "WHERE false" if table == "stale_users" or (table == "persons" and fresh is not None) else ""
        reading.execute(f"CREATE TEMP TABLE {table} AS SELECT * FROM {live}.{table} {kept}")
    if fresh is not None:
        _put(reading, "persons", fresh)
    after = upkeep.whose(reading, ids)
    gone = hashed(pl.concat([before["person"], after["person"]]).unique().to_frame())
    for table, columns in (("paths_again", "*"), ("paths_gone", "person_hash, person")):
        reading.execute(f"CREATE TEMP TABLE {table} AS SELECT {columns} FROM {live}.paths LIMIT 0")
    _put(reading, "paths_gone", gone)
    upkeep.build(reading, lambda table, rows: _put(reading, "paths_again" if table == "paths" else table, rows), after)
    reading.execute(
        f"CREATE TEMP VIEW paths AS SELECT * FROM {live}.paths ANTI JOIN paths_gone USING (person_hash, person)"
        " UNION ALL SELECT * FROM paths_again"
    )


def stand_in(past: Past) -> None:
    """Put the paths of the past in the place of the live ones. Coupons, orders and users are in place."""
    reading = past.reading
    for table in upkeep.TABLES:
        past.make(table, f"SELECT * FROM {live_schema(reading)}.{table} LIMIT 0")
    upkeep.make_all(reading, lambda table, rows: _put(reading, table, rows))


def _put(reading: Reading, table: str, rows: pl.DataFrame) -> None:
    if rows.height:
        with reading.given(added=rows):
            reading.execute(f"INSERT INTO {table} BY NAME SELECT * FROM added")
