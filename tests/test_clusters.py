"""Much that hangs on one key: the tables are what they should be, whichever way they were filled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from benchmarks.clustered import append, consume
from coupon_ledger.consumers.bulk_load import fold_whole
from coupon_ledger.ledger.log import EventLog
from coupon_ledger.ledger.opening import open_log
from coupon_ledger.ledger.progress import ignore
from coupon_ledger.ledger.settings import LogSettings
from coupon_ledger.ledger.topics import INPUT_TOPICS
from coupon_ledger.projections.database import create_database, open_database
from coupon_ledger.projections.digest import digests
from coupon_ledger.questions import audits
from coupon_ledger.questions.local import Local
from tests.clusters import KINDS, Made, followers

pytestmark = pytest.mark.slow

SIZES = {"coupon": 20_000, "campaign": 10_000, "order": 4_000, "user": 20_000, "paths": 4_000, "aliases": 4_000}


@contextmanager
def log_of(made: Sequence[Made], folder: Path) -> Iterator[EventLog]:
    log = open_log(LogSettings(url=f"sqlite:///{folder / 'log.db'}", partitions=1), create=True)
    with closing(log):
        log.create_topics()
        append(log, made)
        yield log


@pytest.mark.parametrize("kind", KINDS)
def test_a_cluster_is_folded_as_the_same_events_would_be_anywhere(kind: str, tmp_path: Path) -> None:
    """An audit needed gigabytes for one busy customer; a cluster has ways of its own through the fold.

    In the memory that DuckDB is given in an owner. What comes after the first batch must not be folded otherwise than
    all at once."""
    made = list(KINDS[kind](SIZES[kind]))
    with log_of(made, tmp_path) as log:
        create_database(tmp_path / "live.duckdb")
        with open_database(tmp_path / "live.duckdb") as store:
            consume(log, store)
            for rows in followers(made).values():
                append(log, rows)
                consume(log, store)
            assert {name: audits.run(store, name, 1) for name in audits.AUDITS} == dict.fromkeys(audits.AUDITS, (0, []))
            live = digests(store)
        create_database(tmp_path / "anew.duckdb")
        with open_database(tmp_path / "anew.duckdb") as store:
            fold_whole(log, store, log.end_positions(log.partitions(INPUT_TOPICS)), ignore)
            assert digests(store) == live


def test_a_path_of_a_busy_customer_that_differs_is_noticed(tmp_path: Path) -> None:
    """The audit counts along the touches of a person: a count, a place or a touch beside the right one must show."""
    with log_of(list(KINDS["paths"](300)), tmp_path) as log:
        create_database(tmp_path / "live.duckdb")
        with open_database(tmp_path / "live.duckdb") as store:
            consume(log, store)
            for change in (
                "touches = touches - 1",
                "sources = list_reverse(sources) || [1]",
                "touched_at = [m - INTERVAL 1 SECOND FOR m IN touched_at]",
                "touched_at = touched_at[2:]",
            ):
                with pytest.raises(ZeroDivisionError), store.transaction():
                    store.execute(f"UPDATE paths SET {change} WHERE order_id IN ('o-50', 'o-250')")
                    offenders, _ = audits.run(store, "paths", 0)
                    assert offenders == (1 if "sources" in change else 2), change
                    raise ZeroDivisionError
            assert audits.run(store, "paths", 1) == (0, [])


def test_the_history_of_a_coupon_with_many_conflicts(tmp_path: Path) -> None:
    """Each event was held against every conflict."""
    [(topic, frame)] = KINDS["coupon"](2_000)
    other = frame.with_columns(source=frame["source"] + "?")
    with log_of([(topic, frame), (topic, other)], tmp_path) as log:
        create_database(tmp_path / "live.duckdb")
        with open_database(tmp_path / "live.duckdb") as store:
            consume(log, store)
            with closing(Local(store)) as local:
                [rows] = local.ask("history", coupon="c").frames
    assert rows.height == 2_000
    assert all("conflicting_duplicate" in codes for codes in rows["violations"])
