"""Folds a whole history into empty tables, one slice of the keys after another. The result equals that of a consumer,
but is faster, since nothing is looked up, replaced or refolded.

Always true: a slice has all events of its keys, including repeats, so its rows are final once it is folded
(`fold_slice`, which needs no tables). The tables in which the rules across coupons and between topics look things up
are filled together with the rows. The rules themselves are applied once, after all slices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np
import polars as pl

from coupon_ledger.ledger.rules import STATES
from coupon_ledger.ledger.topics import COUPON
from coupon_ledger.projections.attribution.persons import persons_of
from coupon_ledger.projections.connection import Adding, Inserts, Reading, sql
from coupon_ledger.projections.kept import KEPT
from coupon_ledger.projections.live import campaign_rules, journal, order_rules
from coupon_ledger.projections.live.apply import PROJECTED, from_the_start, insert, numbered, split_conflicts
from coupon_ledger.projections.live.changes import Changes
from coupon_ledger.projections.live.cross import clock_and_grace, latest
from coupon_ledger.projections.lookup import OF_LATE
from coupon_ledger.projections.store import Store

_ACQUISITIONS_AT_ONCE: Final = 300_000
"""Approximate number of acquisitions in the campaigns to which the rules are applied at once. A campaign is never
split."""
_BESIDE: Final = ("acquisitions", "coupons_in_use", "uses")
"""The tables, filled from coupon events, in which the rules across coupons and between topics look things up."""
_OTHERS: Final = "others"
_ROW: Final = "place"


@dataclass(frozen=True, slots=True)
class Slice:
    """The result of folding one slice of a topic.

    `facts`: the events that belong in the journal. `repeats`: the positions of all other deliveries, with `conflict`:
    whether the delivery is a conflict. `rows`: the rows of the keys. `beside`: by table, rows of other tables
    (violations and the tables for look-ups). `kept`: by folder of a kept table, the result of `OfSlices.part`. `clock`:
    the highest min(occurred_at, recorded_at) of the facts.
    """

    topic: str
    facts: pl.DataFrame
    repeats: pl.DataFrame
    rows: pl.DataFrame
    beside: dict[str, pl.DataFrame]
    kept: dict[str, pl.DataFrame]
    clock: datetime | None


def rows_like(reading: Reading, topic: str) -> pl.DataFrame:
    """An empty frame with the columns of the topic's rows, for `fold_slice`."""
    like = reading.frame(f"SELECT * FROM {PROJECTED[topic].table} LIMIT 0")
    return like.cast({pl.Categorical: pl.Enum(list(STATES))})


def narrowed(topic: str, events: pl.DataFrame) -> pl.DataFrame:
    """The events with only the columns that `fold_slice` needs: those that the fold reads, and one hash of all other
    columns. The hash shows whether two deliveries with the same id have different contents. `events`: as for `prepare`,
    with `key_hash`."""
    on = PROJECTED[topic]
    read = ["key_hash", on.key, *on.reads, *journal.POSITION]
    others = events.select(name for name in journal.wire_fields(topic) if name not in read)
    narrow = events.select(read)
    return narrow.with_columns(others.hash_rows().alias(_OTHERS)) if others.width else narrow


def fold_slice(topic: str, events: pl.DataFrame, like: pl.DataFrame) -> Slice:
    """Fold all events of some keys. `events`: not empty, as returned by `narrowed`."""
    on = PROJECTED[topic]
    content = tuple(name for name in events.columns if name not in ("key_hash", *journal.POSITION))
    events, keys = numbered(topic, events)
    facts, conflicts = split_conflicts(events.with_row_index(_ROW), content)
    rows, violations = from_the_start(on, keys, like, facts.drop(_ROW), conflicts.drop(_ROW))
    repeated = np.ones(events.height, dtype=np.bool_)
    repeated[facts[_ROW].to_numpy()] = False
    in_conflict = np.zeros(events.height, dtype=np.bool_)
    in_conflict[conflicts[_ROW].to_numpy()] = True
    repeats = events.select(journal.POSITION).with_columns(conflict=pl.Series(in_conflict)).filter(pl.Series(repeated))
    beside, kept = {"violations": violations}, {}
    if topic == COUPON:
        changes = Changes(COUPON, rows.clear(rows.height), rows, [facts], [])
        _, acquired = campaign_rules.acquisitions(changes)
        beside |= {"acquisitions": acquired} | order_rules.looked_up(changes)
        kept = {table.folder: table.of_slices.part(facts, rows) for table in KEPT if table.of_slices}
    return Slice(topic, facts, repeats, rows, beside, kept, latest([facts]))


def write_journal(into: Inserts, topic: str, events: pl.DataFrame) -> None:
    """Write events, which may include repeats and conflicts, to the journal. Call in the order of the log, so that
    later look-ups can skip parts of the journal. `take_out` removes repeats and conflicts at the end."""
    insert(into, PROJECTED[topic].journal, events.select(journal.columns(topic)))


def put_beside(into: Inserts, folded: Slice) -> None:
    """Write the rows of a folded slice that belong in other tables (`Slice.beside`)."""
    for table, rows in folded.beside.items():
        insert(into, table, rows)


def unread(store: Store, topic: str, read: Mapping[int, int]) -> None:
    """Delete from the journal the events that an interrupted run wrote after its last mark. `read`: the next offset of
    each partition at the time of the mark."""
    reached = pl.DataFrame(list(read.items()), schema={"log_partition": pl.Int32, "log_offset": pl.Int64}, orient="row")
    with store.given(reached=reached):
        store.execute(
            f"DELETE FROM {PROJECTED[topic].journal} j WHERE NOT EXISTS (FROM reached r"
            " WHERE r.log_partition = j.log_partition AND r.log_offset > j.log_offset)"
        )


def unfold(store: Store, topic: str, first_hash: int) -> None:
    """Delete the rows of all keys whose hash, as an unsigned integer, is at least `first_hash`. An interrupted run
    wrote them, from slices that it folded after its last mark."""
    unsigned = f"key_hash + CASE WHEN key_hash < 0 THEN {1 << 64}::HUGEINT ELSE 0 END"
    for table in (PROJECTED[topic].table, *(_BESIDE if topic == COUPON else ())):
        store.execute(f"DELETE FROM {table} WHERE {unsigned} >= $first", {"first": first_hash})
    store.execute(
        f"DELETE FROM violations WHERE topic = $topic AND {unsigned} >= $first", {"topic": topic, "first": first_hash}
    )


def take_out(store: Store, topic: str, repeats: pl.DataFrame) -> None:
    """Move conflicts from the journal to their own table, and delete repeats from the journal. `repeats`: the positions
    of both from all slices, as in `Slice.repeats`. Call when all slices are committed."""
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


def put_rows(into: Inserts, topic: str, rows: pl.DataFrame) -> None:
    """Write these rows to the table of the topic."""
    insert(into, PROJECTED[topic].table, rows)


def parted(rows: pl.DataFrame, slices: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Split the rows of a slice into early ones and late ones, which have the latest events. The late rows are written
    last, to the end of the table, since look-ups search there first (lookup.py). `slices`: the number of slices. All
    slices together have at most `OF_LATE` late rows."""
    rows = rows.sort("last_event_at")
    early = max(0, rows.height - OF_LATE // slices)
    return rows[:early], rows[early:]


def clear(store: Store, topics: Sequence[str]) -> None:
    """Empty the tables of these topics, those of the rules across coupons and between topics, and the kept tables,
    inside the caller's transaction."""
    for topic in topics:
        on = PROJECTED[topic]
        for table in (on.journal, on.conflicts, on.table):
            store.execute(f"DELETE FROM {table}")
        for table in ("dead_letters", "checkpoints"):
            store.execute(f"DELETE FROM {table} WHERE topic = $topic", {"topic": topic})
        store.execute("DELETE FROM violations WHERE scope = 'coupon' AND topic = $topic", {"topic": topic})
    for table in _BESIDE if COUPON in topics else ():
        store.execute(f"DELETE FROM {table}")
    for kept in KEPT:
        if kept.of_slices:
            kept.clear(store)
    unsettle(store)


def unsettle(store: Store) -> None:
    """Empty the tables that are filled after all slices, inside the caller's transaction."""
    for table in ("campaign_terms", "stock_cuts", "awaited"):
        store.execute(f"DELETE FROM {table}")
    store.execute("DELETE FROM violations WHERE scope = 'cross'")
    for kept in KEPT:
        if not kept.of_slices:
            kept.clear(store)


def set_clock(store: Store, clock: datetime | None) -> None:
    """Advance the data's clock to `clock`, unless it is already later or `clock` is None."""
    store.execute("UPDATE ledger SET data_clock = greatest(data_clock, $clock)", {"clock": clock})


def put_persons(store: Store) -> None:
    """Fill `persons`. Call after all slices are written."""
    store.insert("persons", persons_of(store))


def settle_campaigns(adding: Adding) -> None:
    """Write terms, cuts and violations of the rules across coupons. Call after all slices and `persons` are written."""
    everyone = adding.frame(sql(__package__, "campaign_sizes"))
    pieces = everyone.with_columns(piece=pl.col("acquisitions").cum_sum() // _ACQUISITIONS_AT_ONCE)
    for campaigns in pieces.partition_by("piece"):
        campaign_rules.settle_new(adding, campaigns.select("campaign_hash", "campaign_id"))


def settle_orders(adding: Adding) -> None:
    """Write violations of the rules between topics, and the orders that await their grace. Call after all slices are
    written and the data's clock is set."""
    now, grace = clock_and_grace(adding)
    if now is not None:
        for affected in order_rules.everything(adding):
            order_rules.settle_new(adding, affected, now, grace)


def put_kept(store: Store, parts: Callable[[str], Iterable[pl.DataFrame]]) -> None:
    """Write the kept tables that are filled slice by slice. `parts`: a function that returns, for the folder of a kept
    table, its results from all slices (`Slice.kept`)."""
    for table in KEPT:
        if table.of_slices:
            table.of_slices.put(store, parts(table.folder))


def fills() -> list[Callable[[Adding], None]]:
    """The tasks that fill all tables that are not filled slice by slice. They may run in parallel, after all slices and
    `persons` are written and the data's clock is set. The longest tasks come first."""
    return [settle_orders, settle_campaigns, *(table.fill for table in KEPT)]
