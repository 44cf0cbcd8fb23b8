"""Rows are found, and tables made small again, as if the tables were always small.

A row that is not found would be folded as if its coupon had no past: its state, and the money that hangs on it, lost.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.run import encoded
from coupon_ledger.cli.sources.simulate import World, sale_day
from coupon_ledger.consumers.runner import Consumer
from coupon_ledger.ledger.log import EventLog
from coupon_ledger.ledger.opening import open_log
from coupon_ledger.ledger.settings import LogSettings
from coupon_ledger.projections import compaction, lookup
from coupon_ledger.projections.database import create_database, open_database
from coupon_ledger.projections.digest import Digest, digests
from coupon_ledger.projections.key_filter import KeyFilter
from coupon_ledger.projections.store import Store
from tests.examples import examples
from tests.folding import scratch_store

SMALL = {
    lookup: {"_SCANNED_WHOLE": 0, "OF_LATE": 300, "_APART": 20, "_SCANNED_FOR_ONE": 5, "_PUSHED_DOWN": 3},
    compaction: {"_LOOK_AFTER": 50, "_ROW_GROUP": 64},
}
"""Limits at which a table of a thousand rows is treated like one of millions."""


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, limits in SMALL.items():
        for name, value in limits.items():
            monkeypatch.setattr(module, name, value)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with scratch_store(tmp_path_factory.mktemp("lookup")) as opened:
        yield opened


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EventLog]:
    """A sale day with late events, repeats and orders."""
    opened = open_log(LogSettings(url=f"sqlite:///{tmp_path_factory.mktemp('lookup-log') / 'log.db'}"), create=True)
    opened.create_topics()
    for topic, frame in sale_day(World(events=1_000, orders=True, seed=5)):
        opened.append(encoded(topic, frame))
    yield opened
    opened.close()


def consumed(log: EventLog, path: Path, batch_size: int) -> list[Digest]:
    create_database(path)
    with open_database(path) as store:
        for _ in Consumer(log, store, outlet=log, batch_size=batch_size).run():
            pass
        return digests(store)


@pytest.mark.slow
def test_large_tables_hold_what_small_ones_do(
    log: EventLog, tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every row and every digest, to the last position: batch after batch with narrow searches and compactions."""
    written: list[str] = []
    once_more = compaction._rewrite

    def noted(store: Store, table: str, first: int) -> None:
        written.append(table)
        once_more(store, table, first)

    monkeypatch.setattr(compaction, "_rewrite", noted)
    found = consumed(log, tmp_path / "small.duckdb", 150)
    assert "coupons" in written
    monkeypatch.undo()
    assert found == consumed(log, tmp_path / "whole.duckdb", 150)


@pytest.mark.slow
@examples(30)
@given(data=st.data())
def test_what_is_found_is_what_a_scan_finds(store: Store, data: st.DataObject) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SMALL[lookup].items():
            patch.setattr(lookup, name, value)
        patch.setattr(lookup, "OF_LATE", data.draw(st.sampled_from([0, 10, 100, 10_000])))
        patch.setattr(lookup, "_APART", data.draw(st.sampled_from([0, 3, 50])))
        numbers = data.draw(st.lists(st.integers(-300, 300), min_size=1, max_size=400, unique=True))
        store.execute("DROP TABLE IF EXISTS looked_up")
        store.execute("CREATE TABLE looked_up (key_hash BIGINT, name VARCHAR)")
        store.cache(lookup.Known).filters.clear()
        for part in np.array_split(np.array(numbers), 3):  # the filter is made with the first and kept with the others
            store.insert("looked_up", keys(part.tolist()))
            gone = data.draw(st.lists(st.integers(0, len(numbers)), max_size=30))
            store.delete("looked_up", pl.Series(gone, dtype=pl.Int64))
            wanted = keys(data.draw(st.lists(st.integers(-400, 400), max_size=60, unique=True)))
            found = lookup.of_keys(store, "looked_up", wanted).join(wanted, on="name", how="semi")
            scanned = store.frame("SELECT rowid AS row_id, * FROM looked_up").join(wanted, on="name", how="semi")
            assert sorted(found.rows()) == sorted(scanned.rows())


def test_a_key_with_the_hash_of_a_later_one_is_found(tmp_path: Path, small: None) -> None:
    numbers = list(range(1000))
    with scratch_store(tmp_path) as store:
        store.execute("CREATE TABLE looked_up (key_hash BIGINT, name VARCHAR)")
        store.insert("looked_up", keys([*numbers[::2], *numbers[1::2]]))
        found = lookup.of_keys(store, "looked_up", keys(numbers))
        assert sorted(found["name"]) == sorted(f"k{n}" for n in numbers)


class Refused(Exception):
    pass


def test_what_a_failed_transaction_removed_is_found_again(tmp_path: Path) -> None:
    """A violation or a coupon in use would stand for ever, or be stored twice, after an error and a new try."""
    with scratch_store(tmp_path) as store:
        store.insert("awaited", awaited([1, 2, 3]))
        with pytest.raises(Refused), store.transaction():
            store.execute("DELETE FROM awaited WHERE order_hash < 3")
            store.insert("awaited", awaited([4]))
            found = lookup.of_hashes(store, "awaited", "order_hash", pl.Series([1, 2, 3, 4, 5]))
            assert sorted(found["order_hash"]) == [3, 4]
            raise Refused
        found = lookup.of_hashes(store, "awaited", "order_hash", pl.Series([1, 2, 3, 4, 5]))
        assert sorted(found["order_hash"]) == [1, 2, 3]


@pytest.mark.long
@examples(20)
@given(data=st.data())
def test_all_rows_with_a_hash_are_found(store: Store, data: st.DataObject) -> None:
    """Several rows have one hash here, and some come, go or fail to come between two questions."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SMALL[lookup].items():
            patch.setattr(lookup, name, value)
        store.execute("DELETE FROM awaited")
        store.cache(lookup.Known).filters.clear()
        numbers = st.lists(st.integers(0, 400), max_size=80)
        for _ in range(4):
            with contextlib.suppress(Refused), store.transaction():
                store.insert("awaited", awaited(data.draw(numbers)))
                wanted = pl.Series(data.draw(numbers), dtype=pl.Int64).unique()
                found = lookup.of_hashes(store, "awaited", "order_hash", wanted)
                scanned = store.frame("SELECT rowid AS row_id, * FROM awaited")
                assert sorted(found.rows()) == sorted(
                    scanned.filter(pl.col("order_hash").is_in(wanted.to_list())).rows()
                )
                store.delete("awaited", found["row_id"][::2])
                if data.draw(st.booleans()):
                    raise Refused


def awaited(numbers: list[int]) -> pl.DataFrame:
    hashes = pl.Series("order_hash", numbers, dtype=pl.Int64)
    return hashes.to_frame().with_columns(
        order_id=pl.col("order_hash").cast(pl.String), due_at=pl.lit(datetime(2026, 11, 11))
    )


def keys(numbers: list[int]) -> pl.DataFrame:
    """Several keys have one hash, as two in 2^64 may."""
    hashes = pl.Series("key_hash", [n // 20 for n in numbers], dtype=pl.Int64)
    return pl.DataFrame([hashes, pl.Series("name", [f"k{n}" for n in numbers], dtype=pl.String)])


def test_a_key_filter_never_denies_a_key() -> None:
    keys = pl.Series(np.random.default_rng(3).integers(-(2**63), 2**63 - 1, 100_000))
    known = KeyFilter(keys[:50_000])
    known.add(keys[50_000:60_000])
    assert known.maybe(keys[:60_000]).all()
    assert known.maybe(keys[60_000:]).mean() < 0.01, "new keys would all be looked for"
    assert not known.crowded
    known.add(pl.Series(np.arange(2**18) * 2**45 + np.arange(2**18)))
    assert known.crowded


@pytest.mark.long
def test_a_compaction_keeps_every_row_and_every_reader(tmp_path: Path, small: None) -> None:
    """One who reads meanwhile goes on seeing what stood when he began."""
    path = tmp_path / "compacted.duckdb"
    create_database(path)
    with open_database(path) as store:
        store.execute("INSERT INTO awaited SELECT range, range::VARCHAR, TIMESTAMP '2026-01-01' FROM range(1000)")
        cursor = store.cursor()
        cursor.begin()
        whole = cursor.rows("SELECT sum(order_hash), count(*) FROM awaited")
        store.delete("awaited", pl.Series([n for n in range(400, 1000) if n % 10]))
        left = store.rows("SELECT * FROM awaited ORDER BY ALL")
        compaction.compact(store)
        assert store.rows("SELECT * FROM awaited ORDER BY ALL") == left
        assert cursor.rows("SELECT sum(order_hash), count(*) FROM awaited") == whole
        cursor.end()
        cursor.close()
        store.execute("CHECKPOINT")
    with open_database(path) as store:
        assert store.rows("SELECT * FROM awaited ORDER BY ALL") == left
        assert store.deleted == 0


KILLED = """
import os, signal, sys
from pathlib import Path
import polars as pl
from coupon_ledger.projections import compaction
from coupon_ledger.projections.database import create_database, open_database
from coupon_ledger.projections.store import Store

compaction._LOOK_AFTER, compaction._ROW_GROUP = 50, 64
with open_database(Path(sys.argv[1])) as store:
    store.delete("awaited", pl.Series(range(400, 990)))
    execute = store.execute

    def killed(statement, *parameters):
        if statement.startswith("DELETE"):
            os.kill(os.getpid(), signal.SIGKILL)
        return execute(statement, *parameters)

    store.execute = killed
    compaction.compact(store)
"""


@pytest.mark.slow
def test_a_compaction_killed_half_way_changed_nothing(tmp_path: Path) -> None:
    """Rows written once more, but not yet deleted, would be there twice."""
    path = tmp_path / "killed.duckdb"
    create_database(path)
    with open_database(path) as store:
        store.execute("INSERT INTO awaited SELECT range, range::VARCHAR, TIMESTAMP '2026-01-01' FROM range(1000)")
    root = Path(compaction.__file__).parent.parent
    ended = subprocess.run([sys.executable, "-c", KILLED, path], cwd=root, timeout=60, check=False)
    assert ended.returncode == -signal.SIGKILL
    with open_database(path) as store:
        numbers = [n for (n,) in store.rows("SELECT order_hash FROM awaited ORDER BY ALL")]
        assert numbers == [*range(400), *range(990, 1000)]


@pytest.mark.long
def test_what_is_hardly_dead_is_left_alone(tmp_path: Path, small: None) -> None:
    """Writing millions of rows again for a few deleted ones would stop the consumer for nothing."""
    path = tmp_path / "left.duckdb"
    create_database(path)
    with open_database(path) as store:
        store.execute("INSERT INTO awaited SELECT range, range::VARCHAR, TIMESTAMP '2026-01-01' FROM range(1000)")
        store.delete("awaited", pl.Series(range(0, 1000, 3)))
        numbers = store.rows("SELECT rowid FROM awaited ORDER BY ALL")
        compaction.compact(store)
        assert store.rows("SELECT rowid FROM awaited ORDER BY ALL") == numbers
