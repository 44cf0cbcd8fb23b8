"""The fold of a whole history into empty tables, slice by slice of the keys: what a consumer would have made of it
batch by batch, faster, since nothing has to be looked up, replaced or folded again.

What always holds: a slice has every event of its keys, repeats included, so that its rows are final when it is folded
(`fold_slice`, which needs no tables). What the rules across coupons look up is kept with them; the rules themselves are
settled once, when all slices are in (`settle`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np
import polars as pl

from ledger.rules import STATES
from ledger.topics import COUPON
from projections.attribution import upkeep as paths
from projections.live import campaign_rules, journal, order_rules
from projections.live.apply import PROJECTED, from_the_start, insert, numbered, told_apart
from projections.live.cross import Changes, clock_and_grace, latest
from projections.lookup import OF_LATE
from projections.metrics import counts
from projections.store import Reading, Store, sql

_ACQUISITIONS_AT_ONCE: Final = 300_000
"""Of the campaigns that are settled together; a campaign is never parted."""


_OTHERS: Final = "others"
_ROW: Final = "place"


@dataclass(frozen=True, slots=True)
class Slice:
    """What became of some keys of a topic. `facts`: what their journal is to hold, `repeats`: the positions of all
    other events, and which of them are in `conflict`; `clock`: the data's, of the facts."""

    topic: str
    facts: pl.DataFrame
    repeats: pl.DataFrame
    rows: pl.DataFrame
    violations: pl.DataFrame
    clock: datetime | None


def rows_like(reading: Reading, topic: str) -> pl.DataFrame:
    """The columns of the topic's rows, for `fold_slice`."""
    like = reading.frame(f"SELECT * FROM {PROJECTED[topic].table} LIMIT 0")
    return like.cast({pl.Categorical: pl.Enum(list(STATES))})


def narrowed(topic: str, events: pl.DataFrame) -> pl.DataFrame:
    """What `fold_slice` needs of events (as for `prepare`, with `key_hash`): what the fold reads, and one number for
    all else that they say, since two contents of one identity must be told apart."""
    on = PROJECTED[topic]
    read = ["key_hash", on.key, *on.reads, *journal.POSITION]
    others = events.select(name for name in journal.wire_fields(topic) if name not in read)
    narrow = events.select(read)
    return narrow.with_columns(others.hash_rows().alias(_OTHERS)) if others.width else narrow


def fold_slice(topic: str, events: pl.DataFrame, like: pl.DataFrame) -> Slice:
    """Fold all events of some keys, not none, as `narrowed` gives them."""
    on = PROJECTED[topic]
    content = tuple(name for name in events.columns if name not in ("key_hash", *journal.POSITION))
    events, keys = numbered(topic, events)
    facts, conflicts = told_apart(events.with_row_index(_ROW), content)
    rows, violations = from_the_start(on, keys, like, facts.drop(_ROW), conflicts.drop(_ROW))
    repeated = np.ones(events.height, dtype=np.bool_)
    repeated[facts[_ROW].to_numpy()] = False
    in_conflict = np.zeros(events.height, dtype=np.bool_)
    in_conflict[conflicts[_ROW].to_numpy()] = True
    repeats = events.select(journal.POSITION).with_columns(conflict=pl.Series(in_conflict)).filter(pl.Series(repeated))
    return Slice(topic, facts, repeats, rows, violations, latest([facts]))


def write_journal(store: Store, topic: str, events: pl.DataFrame) -> None:
    """Events in the order of the log, which look-ups prune by; the repeats among them go last (`take_out`)."""
    insert(store, PROJECTED[topic].journal, events.select(journal.columns(topic)))


def put(store: Store, folded: Slice) -> None:
    """Write what became of a slice into the tables, but for the rows of its keys and what its `repeats` stand for."""
    insert(store, "violations", folded.violations)
    if folded.topic == COUPON:
        nothing = folded.rows.clear(folded.rows.height)
        changes = Changes(COUPON, nothing, folded.rows, [folded.facts], [])
        campaign_rules.keep(store, changes)
        order_rules.keep(store, changes)


def take_out(store: Store, topic: str, repeats: pl.DataFrame) -> None:
    """Take the repeats of all slices out of the journal, and keep those in conflict apart. The journal is committed."""
    on = PROJECTED[topic]
    if not repeats.height:
        return
    names = ", ".join(journal.columns(topic))
    at = "j.log_partition = g.log_partition AND j.log_offset = g.log_offset"
    with store.given(gone=repeats):
        store.execute(
            f"INSERT INTO {on.conflicts} ({names}) SELECT {names} FROM {on.journal} j"
            f" SEMI JOIN (SELECT * FROM gone WHERE conflict) g ON {at}"
        )
        store.execute(f"DELETE FROM {on.journal} j USING gone g WHERE {at}")


def put_rows(store: Store, topic: str, rows: pl.DataFrame) -> None:
    insert(store, PROJECTED[topic].table, rows)


def parted(rows: pl.DataFrame, slices: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows of a slice, one of so many; apart from them those of the keys that something happened to last. These
    belong at the table's end, where rows are looked for first (lookup.py)."""
    rows = rows.sort("last_event_at")
    early = max(0, rows.height - OF_LATE // slices)
    return rows[:early], rows[early:]


def clear(store: Store, topics: Sequence[str]) -> None:
    """Empty the tables of these topics, and those of the rules across coupons, which `settle` fills. Inside a
    transaction of the caller's."""
    for topic in topics:
        on = PROJECTED[topic]
        for table in (on.journal, on.conflicts, on.table):
            store.execute(f"DELETE FROM {table}")
        for table in ("dead_letters", "checkpoints"):
            store.execute(f"DELETE FROM {table} WHERE topic = $topic", {"topic": topic})
        store.execute("DELETE FROM violations WHERE scope = 'coupon' AND topic = $topic", {"topic": topic})
    kept = ("acquisitions", "coupons_in_use", "uses") if COUPON in topics else ()
    for table in (*kept, "campaign_terms", "stock_cuts", "awaited"):
        store.execute(f"DELETE FROM {table}")
    store.execute("DELETE FROM violations WHERE scope = 'cross'")


def settle(store: Store, clock: datetime | None) -> None:
    """Set the data's clock, find what is broken across coupons and between topics, count the events, make the paths to
    orders. All slices are in."""
    store.execute("UPDATE ledger SET data_clock = greatest(data_clock, $clock)", {"clock": clock})
    everyone = store.frame(sql(__package__, "campaign_sizes"))
    pieces = everyone.with_columns(piece=pl.col("acquisitions").cum_sum() // _ACQUISITIONS_AT_ONCE)
    for campaigns in pieces.partition_by("piece"):
        campaign_rules.settle_new(store, campaigns.select("campaign_hash", "campaign_id"))
    now, grace = clock_and_grace(store)
    if now is not None:
        for affected in order_rules.everything(store):
            order_rules.settle(store, affected, now, grace)
    counts.fill(store)
    paths.settle_all(store)
