"""Paths for a question, in temporary tables that stand before the live ones and go with the transaction: of the past,
or of the present where the live ones are behind.

What always holds: an answer is that of all paths made again from what is committed, however far `upkeep` has come.
"""

from __future__ import annotations

import polars as pl

from projections.attribution import upkeep
from projections.attribution.paths import hashed
from projections.attribution.persons import whose
from projections.past import Past, live_schema
from projections.store import Reading


def complete(reading: Reading) -> None:
    """Let the tables say what they will when all is settled, for the rest of a transaction that is rolled back."""
    stale = upkeep.stale_ids(reading)
    if not stale.height:
        return
    live = live_schema(reading)
    ids = whose(reading, stale)
    for table, kept in (("touch_sources", ""), ("stale_users", "WHERE false")):
        reading.execute(f"CREATE TEMP TABLE {table} AS SELECT * FROM {live}.{table} {kept}")
    for table, columns in (("paths_again", "*"), ("paths_gone", "person_hash, person")):
        reading.execute(f"CREATE TEMP TABLE {table} AS SELECT {columns} FROM {live}.paths LIMIT 0")
    _put(reading, "paths_gone", hashed(upkeep.once_persons(ids)))
    upkeep.build(reading, lambda table, rows: _put(reading, "paths_again" if table == "paths" else table, rows), ids)
    reading.execute(
        f"CREATE TEMP VIEW paths AS SELECT * FROM {live}.paths ANTI JOIN paths_gone USING (person_hash, person)"
        " UNION ALL SELECT * FROM paths_again"
    )


def stand_in(past: Past) -> None:
    """Put the paths of the past in the place of the live ones. Coupons, orders, users and persons are in place."""
    reading = past.reading
    for table in upkeep.TABLES[1:]:
        past.make(table, f"SELECT * FROM {live_schema(reading)}.{table} LIMIT 0")
    upkeep.build(reading, lambda table, rows: _put(reading, table, rows))


def _put(reading: Reading, table: str, rows: pl.DataFrame) -> None:
    if rows.height:
        with reading.given(added=rows):
            reading.execute(f"INSERT INTO {table} BY NAME SELECT * FROM added")
