"""Both folds behind one face: deliveries in, rows and violations out, in the same plain words."""

from __future__ import annotations

import contextlib
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import polars as pl

from coupon_ledger.ledger.codec import SCHEMA_NAME
from coupon_ledger.ledger.columns import polars_schema
from coupon_ledger.ledger.lifecycle import Coupon, Delivery, Folded
from coupon_ledger.ledger.topics import COUPON, KEY_FIELD
from coupon_ledger.ledger.validity import split_valid
from coupon_ledger.projections.connection import Reading
from coupon_ledger.projections.database import create_database, open_database
from coupon_ledger.projections.live.apply import Counts
from coupon_ledger.projections.live.journal import CONFLICTS, JOURNAL, POSITION
from coupon_ledger.projections.store import Store

Row = dict[str, Any]
Reference = Callable[[Iterable[Delivery]], Folded]
Apply = Callable[[Store, str, pl.DataFrame], Counts]
Broken = tuple[str, str, str, str | None, datetime]
"""Key, event_id, violation, state found, occurred_at."""

COUPON_COLUMNS = tuple(f.name for f in fields(Coupon))
TABLE = {"coupon.events": "coupons", "order.events": "orders", "campaign.events": "campaigns", "user.events": "users"}
LOOKED_UP = (
    "persons",
    "stale_users",
    "partition_progress",
    "acquisitions",
    "campaign_terms",
    "stock_cuts",
    "coupons_in_use",
    "uses",
    "awaited",
    "event_counts",
    "coupon_sales",
    "alert_episodes",
    "alert_progress",
)
BOOK_KEEPING = ("last_type", "ids_low", "ids_high", "first_recorded_at", "key_hash")


@dataclass
class Outcome:
    """Rows by key; every violation with its number."""

    rows: dict[str, Row] = field(default_factory=dict)
    violations: Counter[Broken] = field(default_factory=Counter)

    @cached_property
    def violations_by_key(self) -> dict[str, Counter[Broken]]:
        """When all are there."""
        found: dict[str, Counter[Broken]] = {}
        for broken, number in self.violations.items():
            found.setdefault(broken[0], Counter())[broken] = number
        return found


def key_of(topic: str, delivery: Delivery) -> str:
    key: str = delivery.event[KEY_FIELD[topic]]
    return key


def by_key(topic: str, deliveries: Iterable[Delivery]) -> dict[str, list[Delivery]]:
    found: dict[str, list[Delivery]] = {}
    for delivery in deliveries:
        found.setdefault(key_of(topic, delivery), []).append(delivery)
    return found


def by_reference(fold: Reference, deliveries: Iterable[Delivery]) -> Outcome:
    """What the reference fold says of these coupons."""
    outcome = Outcome()
    for key, mine in by_key(COUPON, deliveries).items():
        folded = fold(mine)
        outcome.rows[key] = asdict(folded.coupon)
        outcome.violations.update(
            (v.coupon_id, v.event_id, v.violation, v.state, v.occurred_at) for v in folded.violations
        )
    return outcome


def frame_of(topic: str, deliveries: Sequence[Delivery]) -> pl.DataFrame:
    """The deliveries as `apply` takes them: validated, JSON canonical, instants naive."""
    schema = polars_schema(SCHEMA_NAME[topic])
    rows = [{name: d.event.get(name) for name in schema} for d in deliveries]
    frame, invalid = split_valid(topic, pl.DataFrame(rows, schema=schema))
    assert not invalid, invalid
    return frame.drop("row").with_columns(
        pl.col(pl.Datetime("us", "UTC")).dt.replace_time_zone(None),
        recorded_at=pl.Series([d.recorded_at for d in deliveries], dtype=pl.Int64).cast(pl.Datetime("us")),
        log_partition=pl.Series([d.partition for d in deliveries], dtype=pl.Int32),
        log_offset=pl.Series([d.offset for d in deliveries], dtype=pl.Int64),
    )


@cache
def _empty_database() -> bytes:
    """Made once: making the tables takes longer than most histories."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "empty.duckdb"
        create_database(path)
        return path.read_bytes()


@contextlib.contextmanager
def scratch_store(folder: Path) -> Iterator[Store]:
    """An empty database, quick since nothing of it must last."""
    path = folder / "scratch.duckdb"
    path.write_bytes(_empty_database())
    with open_database(path) as store:
        store.execute("PRAGMA disable_checkpoint_on_shutdown")
        store.execute("SET threads = 1")
        yield store


@contextlib.contextmanager
def emptied(store: Store) -> Iterator[Store]:
    """The store with no rows in it, before and after."""
    clear(store)
    yield store
    clear(store)


def clear(store: Store) -> None:
    with store.transaction():
        for table in (*TABLE.values(), "violations", *JOURNAL.values(), *CONFLICTS.values(), *LOOKED_UP):
            store.execute(f"DELETE FROM {table}")
        store.execute("UPDATE ledger SET data_clock = NULL")


def fold_in(store: Store, apply: Apply, topic: str, batches: Iterable[Sequence[Delivery]]) -> list[Counts]:
    """Each batch in a transaction of its own, as the consumer does it."""
    counts = []
    for batch in batches:
        frame = frame_of(topic, batch)
        with store.transaction():
            counts.append(apply(store, topic, frame))
    return counts


def stored(store: Reading, topic: str) -> Outcome:
    """What the tables say."""
    key = KEY_FIELD[topic]
    frame = store.frame(f"SELECT * FROM {TABLE[topic]}").with_columns(pl.col(pl.Datetime).dt.replace_time_zone("UTC"))
    frame = frame.drop(BOOK_KEEPING).cast({pl.Categorical: pl.String, pl.Enum: pl.String})
    rows = frame.to_dicts()
    outcome = Outcome({row[key]: row for row in rows})
    assert len(outcome.rows) == len(rows), "one row a key"
    broken = store.frame(
        "SELECT key, event_id, violation, state, occurred_at FROM violations WHERE topic = $topic AND scope = 'coupon'",
        {"topic": topic},
    )
    outcome.violations.update(
        (key, event_id, violation, state, at.replace(tzinfo=UTC))
        for key, event_id, violation, state, at in broken.rows()
    )
    return outcome


def everything(store: Store) -> dict[str, list[str]]:
    """Every column of every row of the live tables: what the full digest covers."""
    tables = (*TABLE.values(), "violations", *JOURNAL.values(), *CONFLICTS.values())
    return {table: sorted(map(repr, store.frame(f"SELECT * FROM {table}").rows())) for table in tables}


def positions(store: Store, table: str, topic: str) -> Counter[tuple[str, str, datetime, int, int]]:
    """Key, event_id and position of every row of a journal or of its conflicts."""
    columns = ", ".join((KEY_FIELD[topic], "event_id", *POSITION))
    return Counter(store.frame(f"SELECT {columns} FROM {table}").rows())
