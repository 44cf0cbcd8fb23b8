"""Memory of DuckDB in the owner: what a company would lose if a large question took it all, or ended without a word."""

from __future__ import annotations

from pathlib import Path

import pytest

from coupon_ledger.ledger.errors import StoreError
from coupon_ledger.projections.database import create_database, open_database


def test_a_slow_question_gets_more_memory_and_gives_it_back(tmp_path: Path) -> None:
    """Else reports of a year end where those of a month do not; or one of them leaves the batches without."""
    create_database(tmp_path / "x.duckdb")
    with open_database(tmp_path / "x.duckdb") as store:
        cursor = store.cursor()
        cursor.begin()
        [before] = store.rows("SELECT current_setting('memory_limit')")
        with cursor.roomy():
            [meanwhile] = cursor.rows("SELECT current_setting('memory_limit')")
        assert cursor.rows("SELECT current_setting('memory_limit')") == [before] != [meanwhile]
        cursor.close()


@pytest.mark.long
def test_too_little_memory_is_told_with_a_remedy(tmp_path: Path) -> None:
    """Else it would be a traceback."""
    create_database(tmp_path / "x.duckdb")
    with open_database(tmp_path / "x.duckdb") as store:
        store.execute("SET memory_limit = '20MB'")
        with pytest.raises(StoreError, match=r"x\.duckdb: more memory is needed than DuckDB is given .*; ask for less"):
            store.rows("SELECT list(range) FROM range(5_000_000)")
