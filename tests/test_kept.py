"""The list of kept tables against what reads it."""

from __future__ import annotations

from pathlib import Path

from coupon_ledger.projections.connection import sql
from coupon_ledger.projections.kept import KEPT
from coupon_ledger.projections.tables import TABLES
from coupon_ledger.projections.versions import VERSIONS
from coupon_ledger.questions.audits import AUDITS

ROOM = Path(__file__).parent.parent / "projections"


def test_every_kept_table_has_a_version_a_schema_and_an_audit() -> None:
    """A table that nobody rebuilds or audits would drift from the log unseen."""
    for table in KEPT:
        assert table.projection in VERSIONS
        assert table.tables.items() <= TABLES[table.projection].items()
        schema = sql(table.folder, "schema")
        assert all(f"CREATE TABLE {name} (" in schema for name in (*table.tables, *table.helpers))
        assert table.audits and set(table.audits) <= AUDITS.keys()


def test_a_folder_with_a_schema_is_listed() -> None:
    """A new table that nobody lists would be neither made nor kept."""
    others = {"live", "identity", "operations"}  # what is folded, which log was read, what no rebuild compares
    folders = {path.parent.name for path in ROOM.glob("*/schema.sql")} - others
    assert folders == {table.folder.rpartition(".")[2] for table in KEPT}
