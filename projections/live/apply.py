"""Folds a batch into the tables, inside the caller's transaction. The steps are the same for every topic.

0. Prepare: number the keys and sort their events (`prepare`, which needs no tables).
1. Read the rows of the keys that the batch touches. For keys with many events, look up the ids of the batch in the
   journal, and drop repeats.
2. *Advance* the keys whose events are all new and later than everything folded.
3. *Refold* the other keys, which have late or repeated events, from their journal. Of deliveries with the same id, the
   content at the earliest position is the fact; the others are repeats of it, or conflicts.
4. Write journal, rows and violations. Count the deliveries by partition: applied, repeats, conflicts.

Always true afterwards: the tables equal a fold from the start of everything that was read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from coupon_ledger.ledger.rules import STATES, types
from coupon_ledger.ledger.topics import CAMPAIGN, COUPON, KEY_FIELD, ORDER, USER
from coupon_ledger.projections import lookup
from coupon_ledger.projections.connection import Inserts
from coupon_ledger.projections.live import cross, entities, fold, journal
from coupon_ledger.projections.live.changes import Changes
from coupon_ledger.projections.live.signature import bits_of, stable_hash
from coupon_ledger.projections.store import Store

Int64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Fold = Callable[[pl.DataFrame, pl.DataFrame], tuple[pl.DataFrame, pl.DataFrame]]
"""A function from (rows, events) to (new rows, violations). Violations have the columns of `fold.Folded.violations`."""

_STATES: Final = pl.Enum(list(STATES))
_ODD: Final = np.uint64(0x9E3779B97F4A7C15)
"""An odd factor. Multiplication by it spreads small numbers over all 64 bits."""
_POSITION: Final = list(journal.POSITION)
_MANY: Final = 50
"""Number of events of a key from which its id filter says "maybe seen" for most new ids. For such keys, these ids are
looked up in the journal. Refolding the key whenever its filter says so would take quadratic time."""
_OF_VIOLATION: Final = ("violation", "state", "user_id", "owner")
_NO_VIOLATIONS: Final = pl.DataFrame(schema={"event": pl.Int64, **dict.fromkeys(_OF_VIOLATION, pl.String)})


@dataclass(frozen=True, slots=True)
class Projected:
    """How a topic is folded. `table`: the table of its rows; `fold`: folds events into rows; `reads`: the event fields
    that `fold` reads."""

    topic: str
    table: str
    fold: Fold
    reads: tuple[str, ...]

    @property
    def key(self) -> str:
        return KEY_FIELD[self.topic]

    @property
    def journal(self) -> str:
        return journal.JOURNAL[self.topic]

    @property
    def conflicts(self) -> str:
        return journal.CONFLICTS[self.topic]


def _coupons(rows: pl.DataFrame, events: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Fold coupons. In `rows` and in the result, the states are names; the fold itself uses codes."""
    coded = rows.with_columns(pl.col("state", "resting").to_physical().cast(pl.Int8).fill_null(0))
    folded = fold.fold(coded, events.rename({"entity": "coupon"}))
    named = folded.rows.with_columns(
        pl.Series(n, list(STATES), dtype=_STATES).gather(folded.rows[n].cast(pl.Int64)) for n in ("state", "resting")
    )
    return named, folded.violations


def _plain(advance: Callable[[pl.DataFrame, pl.DataFrame], pl.DataFrame]) -> Fold:
    """Returns a fold that reports no violations, from `advance`, a function that returns only the new rows."""
    return lambda rows, events: (advance(rows, events), _NO_VIOLATIONS)


def _without_key(topic: str) -> tuple[str, ...]:
    """The wire fields of the topic, except the field that is the key."""
    return tuple(name for name in journal.wire_fields(topic) if name != KEY_FIELD[topic])


PROJECTED: Final = {
    p.topic: p
    for p in (
        Projected(COUPON, "coupons", _coupons, fold.EVENT_FIELDS),
        *(
            Projected(topic, table, _plain(entities.FOLDS[topic]), _without_key(topic))
            for topic, table in ((ORDER, "orders"), (CAMPAIGN, "campaigns"), (USER, "users"))
        ),
    )
}


@dataclass(slots=True)
class Counts:
    """By partition, how much a batch changes the number of applied deliveries (`applied`) and of conflicts
    (`conflicts`).

    A change can be negative: a delivery that was applied is no longer, if the batch has an earlier delivery of the same
    event from another partition.
    """

    applied: dict[int, int] = field(default_factory=dict)
    conflicts: dict[int, int] = field(default_factory=dict)
    late: int = 0
    """Number of events in the batch whose keys were refolded."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A batch of one topic, ready to be folded.

    `keys`: one row per key that has events in the batch, with `key_hash` and the key. `events`: sorted by key, then in
    canonical order, with the additional columns `entity` (row number in `keys`), `key_hash`, `type_order` and the
    filter bits of the event's id (`id_low`, `id_high`). `first`: per key, the row number of its first event.
    `maybe_twice`: per key, whether an id may occur twice among its events.
    """

    topic: str
    keys: pl.DataFrame
    events: pl.DataFrame
    first: Int64
    maybe_twice: Mask


def prepare(topic: str, events: pl.DataFrame) -> Prepared:
    """Prepare a batch for folding. This is the part of the work that needs no tables, so another thread can do it.

    `events`: valid events in any order, including repeats, with the wire fields (instants in naive UTC),
    `recorded_at`, `log_partition` and `log_offset`.
    """
    events, keys = numbered(topic, events)
    events = _canonical(events, topic)
    first = _first_of_each(events["entity"].to_numpy())
    return Prepared(topic, keys, events, first, _maybe_twice(events, keys.height))


def _first_of_each(entity: npt.NDArray[np.uint32]) -> Int64:
    """The row number of the first event of each entity. `entity` is sorted."""
    return np.flatnonzero(np.r_[True, entity[1:] != entity[:-1]][: len(entity)])


def numbered(topic: str, events: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Returns the events, in the same order, with `entity` and `key_hash` as in `Prepared`, and the keys as in
    `Prepared.keys`."""
    key = KEY_FIELD[topic]
    key_hash = events["key_hash"].to_numpy() if "key_hash" in events.columns else stable_hash(events[key])
    order = np.argsort(key_hash)
    placed = key_hash[order]
    is_first = np.r_[True, placed[1:] != placed[:-1]][: len(placed)]
    entity = np.empty(len(order), dtype=np.int64)
    entity[order] = np.cumsum(is_first) - 1
    keys = pl.DataFrame({"key_hash": placed[is_first], key: events[key].gather(order[is_first])})
    if (keys[key].gather(entity) != events[key]).any():  # two keys with one hash
        keys = events.select(key).with_columns(key_hash=pl.Series(key_hash)).unique(subset=[key], maintain_order=True)
        keys = keys.select("key_hash", key)
        rows = keys.select(key).with_row_index("entity")
        entity = events.select(key).join(rows, on=key, how="left", maintain_order="left")["entity"].to_numpy()
    return events.with_columns(entity=pl.Series(entity).cast(pl.UInt32), key_hash=pl.Series(key_hash)), keys


def _maybe_twice(events: pl.DataFrame, n: int) -> Mask:
    """Per key, whether an id may occur twice among its events in the batch: whether the ids of two events have the same
    filter bits. `n`: the number of keys."""
    columns = [events[c].to_numpy() for c in ("id_high", "id_low", "entity")]
    order = np.lexsort(columns)
    same = np.ones(max(len(order) - 1, 0), dtype=np.bool_)
    for column in columns:
        same &= column[order[1:]] == column[order[:-1]]
    twice = np.zeros(n, dtype=np.bool_)
    twice[columns[2][order[1:][same]]] = True
    return twice


def apply(store: Store, topic: str, events: pl.DataFrame) -> Counts:
    """Fold a batch of one topic, and settle the rules across coupons and the kept tables. `events`: as for
    `prepare`."""
    batch = prepare(topic, events)
    if not batch.events.height:
        return Counts()
    counts, changes = fold_in(store, batch)
    cross.settle(store, [changes])
    return counts


def fold_in(store: Store, batch: Prepared) -> tuple[Counts, Changes]:
    """Fold a prepared batch, which must not be empty, into the tables. Returns the counts, and what the batch changed.
    The caller must pass these changes, with those of other topics, to `cross.settle` once per transaction."""
    run = _Batch(store, batch)
    counts = run.apply()
    return counts, run.changes()


class _Batch:
    """The work on one batch of one topic. All arrays and frames with one value or row per key are in the order of
    `keys`.

    `rows`: the stored rows of the keys. `exact`: per key, whether all its events in the batch are known to be new and
    distinct. `folded`: the folded rows. `order`: per folded row, the row number of its key in `keys`. `journalled`,
    `dropped`, `stored`: as in `Changes`.
    """

    def __init__(self, store: Store, batch: Prepared) -> None:
        self.store = store
        self.on = PROJECTED[batch.topic]
        self.counts = Counts()
        self.keys = batch.keys
        self.events = batch.events
        self.first = batch.first
        self.maybe_twice = batch.maybe_twice
        self.rows = self._rows()
        self.exact = self._set_repeats_aside()
        self.order: Int64 = np.arange(self.keys.height)
        self.folded = self.rows
        self.journalled: list[pl.DataFrame] = []
        self.dropped: list[pl.DataFrame] = []
        self.stored: list[pl.DataFrame] = []

    def changes(self) -> Changes:
        """What the batch changed in rows and journal. Call after `apply`."""
        rows = self.rows[self.order]
        return Changes(self.on.topic, rows, self.folded, self.journalled, self.dropped, self.stored)

    def _rows(self) -> pl.DataFrame:
        """The stored row of each key, in the order of `keys`. A key that is new has a row without events, whose
        `row_id` is null."""
        stored = lookup.of_keys(self.store, self.on.table, self.keys)
        stored = stored.drop("key_hash").cast({pl.Categorical: _STATES})
        rows = self.keys.join(stored, on=self.on.key, how="left", maintain_order="left")
        rows = rows.cast(pl.Schema({name: kind for name, kind in entities.WIDE.items() if name in rows.columns}))
        return rows.with_columns(
            pl.col("events", "violations", "ids_low", "ids_high").fill_null(0),
        )

    def _set_repeats_aside(self) -> Mask:
        """For keys with many events, look up in the journal which events of the batch are repeats, and drop these from
        the batch. A key with a conflict keeps all its events.

        Returns, per remaining key, whether all its events in the batch are known to be new and distinct.
        """
        many = (self.rows["events"] >= _MANY).to_numpy()
        exact = many.copy()
        entity = self.events["entity"].to_numpy()
        suspects: Int64 = np.zeros(0, dtype=np.int64)
        if many.any():
            suspects = np.flatnonzero(many[entity] & (self._maybe_seen() | self.maybe_twice[entity]))
        if not suspects.size:
            return exact
        facts, odd = self._among_stored(self.events[suspects].with_columns(row=pl.Series(suspects)))
        exact[odd] = False
        kept = ~exact[entity]
        kept[facts] = True
        kept |= np.isin(np.arange(len(entity)), suspects, invert=True)
        return self._keep(kept, exact)

    def _among_stored(self, suspects: pl.DataFrame) -> tuple[Int64, Int64]:
        """Compare these events, which may be repeats, with the journal. Returns the numbers (`row`) of those that are
        new facts, and the numbers (`entity`) of the keys that have conflicts.

        A new fact may replace a stored one at a later position. Its key is then refolded: `_must_refold` selects it,
        since the new fact is not later than the last event that the key has folded.
        """
        columns = ["entity", *journal.columns(self.on.topic), "row"]
        keys = self.keys.with_row_index("entity")
        identities = suspects.select("key_hash", self.on.key, "event_id").unique()
        stored = lookup.of_identities(self.store, self.on.journal, identities, self._since(self.rows))
        stored = stored.join(keys, on=["key_hash", self.on.key]).with_columns(row=pl.lit(-1, pl.Int64)).select(columns)
        deliveries = pl.concat([stored, suspects.select(columns)])
        facts, conflicts = split_conflicts(deliveries, journal.wire_fields(self.on.topic))
        odd: Int64 = conflicts["entity"].unique().cast(pl.Int64).to_numpy()
        return facts.filter(pl.col("row") >= 0)["row"].to_numpy(), odd

    def _keep(self, kept: Mask, exact: Mask) -> Mask:
        """Remove from the batch all events that `kept` does not select, and all keys that then have no events. `exact`:
        one value per key. Returns the values of the remaining keys."""
        if kept.all():
            return exact
        events = self.events.filter(pl.Series(kept))
        left: Int64 = events["entity"].unique().sort().cast(pl.Int64).to_numpy()
        self.events = _renumbered(events, left, self.keys.height)
        self.keys, self.rows, self.maybe_twice = self.keys[left], self.rows[left], self.maybe_twice[left]
        self.first = _first_of_each(self.events["entity"].to_numpy())
        return exact[left]

    def apply(self) -> Counts:
        """Fold the batch and write journal, rows and violations."""
        if not self.events.height:  # all were repeats
            self._write_journal(self.events)
            return self.counts
        again = self._must_refold()
        rows, events, conflicts = self.rows, self.events, self.events.clear()
        if again.any():
            rows, events, conflicts = self._with_history(again)
        else:
            self._write_journal(events)
        folded, violations = onward(self.on, rows, events, conflicts)
        self._insert("violations", violations)
        self.folded = folded.select(self.rows.columns)
        self._write_rows(self.folded)
        return self.counts

    def _must_refold(self) -> Mask:
        """Per key, whether it must be refolded. It must be if an event of the batch may be a repeat, or is not later
        than the last event that the key's row has folded."""
        entity = self.events["entity"].to_numpy()
        again = self.maybe_twice.copy()
        again[entity[self._maybe_seen()]] = True
        again &= ~self.exact
        first = self.events.select("occurred_at", "type_order")[self.first]
        # If both are equal, the ids decide. That is rare, and a refold is correct in either case.
        not_later = first.with_columns(self.rows.select("last_event_at", "last_type")).select(
            (pl.col("occurred_at") < pl.col("last_event_at"))
            | ((pl.col("occurred_at") == pl.col("last_event_at")) & (pl.col("type_order") <= pl.col("last_type")))
        )
        again |= not_later.to_series().fill_null(False).to_numpy()
        return again

    def _maybe_seen(self) -> Mask:
        """Per event of the batch, whether its key may already have an event with the same id."""
        entity = self.events["entity"].to_numpy()
        low, high = self.events["id_low"].to_numpy(), self.events["id_high"].to_numpy()
        seen_low, seen_high = self.rows["ids_low"].to_numpy()[entity], self.rows["ids_high"].to_numpy()[entity]
        seen: Mask = ((seen_low & low) == low) & ((seen_high & high) == high)
        return seen

    def _with_history(self, again: Mask) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
        """The rows, events and conflicts to fold, in case keys must be refolded. `again`: per key, whether it must be.
        First come the keys that advance, with their stored rows and new events. Then come the keys to refold, with
        empty rows and all their events, old and new."""
        advancing, refolding = np.flatnonzero(~again), np.flatnonzero(again)
        late = again[self.events["entity"].to_numpy()]
        self.counts.late = int(np.count_nonzero(late))
        events = _renumbered(self.events.filter(pl.Series(~late)), advancing, self.keys.height)
        facts, conflicts = self._refolding(refolding, self.events.filter(pl.Series(late)), events)
        fresh = self.rows[refolding].select("row_id", "key_hash", self.on.key)
        rows = pl.concat([self.rows[advancing], _nothing_folded(fresh, self.rows)], rechunk=True)
        behind = pl.col("entity") + pl.lit(len(advancing), pl.UInt32)
        facts, conflicts = _canonical(facts, self.on.topic).with_columns(behind), conflicts.with_columns(behind)
        self.order = np.concatenate([advancing, refolding])
        return rows, pl.concat([events.select(facts.columns), facts], rechunk=True), conflicts

    def _refolding(
        self, chosen: Int64, events: pl.DataFrame, others: pl.DataFrame
    ) -> tuple[pl.DataFrame, pl.DataFrame]:
        """The facts and conflicts of the keys to refold, from the journal and from `events`, their events in the batch.
        `chosen`: the numbers of these keys.

        Also writes the journal and the conflicts, and deletes the stored violations of these keys. `others`: the events
        of the keys that advance. They are written to the journal in the same statement.
        """
        keys = self.keys[chosen]
        stored, conflicting = self._history(keys, self.rows[chosen])
        self.stored.append(stored)
        events = _renumbered(events, chosen, self.keys.height)
        deliveries = pl.concat([stored, conflicting, events.select(stored.columns)])
        facts, conflicts = split_conflicts(deliveries, journal.wire_fields(self.on.topic))
        self._replace_journal(stored, facts, others)
        self._replace_conflicts(keys, conflicting, conflicts)
        self._delete_violations(keys.filter(self.rows[chosen]["violations"] > 0))
        return facts, conflicts

    def _history(self, keys: pl.DataFrame, rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """The stored facts and the stored conflicts of `keys`. Each event has `entity`, the row number of its key in
        `keys`. `rows`: the stored rows of the keys, in the same order."""
        known = keys.with_row_index("entity").filter(rows["row_id"].is_not_null())
        since = self._since(rows)
        on, columns = ["key_hash", self.on.key], ["entity", *journal.columns(self.on.topic)]
        stored = lookup.of_journal(self.store, self.on.journal, known["key_hash"], since)
        conflicting = lookup.of_hashes(self.store, self.on.conflicts, "key_hash", known["key_hash"])
        return stored.join(known, on=on).select(columns), conflicting.join(known, on=on).select(columns)

    def _since(self, rows: pl.DataFrame) -> datetime:
        """An instant: every stored event of the keys of `rows` was recorded at or after it."""
        return rows.select(pl.col("first_recorded_at").min()).item() or datetime.max

    def _replace_journal(self, stored: pl.DataFrame, facts: pl.DataFrame, others: pl.DataFrame) -> None:
        """Write to the journal: insert `others`, and those of `facts` that are not in `stored`. A stored event is
        deleted if the fact with its id is now at another position."""
        at = ["entity", "event_id", *_POSITION]
        added = facts.join(stored.select(at), on=at, how="anti")
        replaced = stored.join(facts.select(at), on=at, how="anti")
        if replaced.height:
            key = self.on.key
            with self.store.given(gone=replaced.select("key_hash", key, "event_id")):
                self.store.execute(
                    f"DELETE FROM {self.on.journal} j USING gone g"
                    f" WHERE j.key_hash = g.key_hash AND j.{key} = g.{key} AND j.event_id = g.event_id"
                )
            self.dropped.append(replaced)
            _add(self.counts.applied, replaced, -1)
        self._write_journal(pl.concat([others.select(added.columns), added]))

    def _replace_conflicts(self, keys: pl.DataFrame, before: pl.DataFrame, after: pl.DataFrame) -> None:
        if before.height:
            self._delete(self.on.conflicts, keys)
        if after.height:
            self._insert(self.on.conflicts, after.select(journal.columns(self.on.topic)))
        _add(self.counts.conflicts, before, -1)
        _add(self.counts.conflicts, after)

    def _write_journal(self, events: pl.DataFrame) -> None:
        self.journalled.append(events)
        _add(self.counts.applied, events)
        self._insert(self.on.journal, events.select(journal.columns(self.on.topic)))

    def _write_rows(self, rows: pl.DataFrame) -> None:
        """Write the folded rows in place of the stored ones."""
        self.store.delete(self.on.table, rows["row_id"].drop_nulls())
        self._insert(self.on.table, rows.drop("row_id"))

    def _delete_violations(self, keys: pl.DataFrame) -> None:
        stored = lookup.of_hashes(self.store, "violations", "key_hash", keys["key_hash"])
        of_topic = (pl.col("scope") == "coupon") & (pl.col("topic") == self.on.topic)
        removed = stored.filter(of_topic).join(keys, left_on="key", right_on=self.on.key, how="semi")
        self.store.delete("violations", removed["row_id"])

    def _delete(self, table: str, keys: pl.DataFrame) -> None:
        key = self.on.key
        with self.store.given(gone=keys):
            self.store.execute(
                f"DELETE FROM {table} t USING gone g WHERE t.key_hash = g.key_hash AND t.{key} = g.{key}"
            )

    def _insert(self, table: str, rows: pl.DataFrame) -> None:
        insert(self.store, table, rows)


def insert(into: Inserts, table: str, rows: pl.DataFrame) -> None:
    """Insert rows. Leaves out columns that are null in all rows, which is cheaper."""
    if rows.height:
        into.insert(table, rows.select(c.name for c in rows if c.null_count() < rows.height))


def from_the_start(
    on: Projected, keys: pl.DataFrame, like: pl.DataFrame, facts: pl.DataFrame, conflicts: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Fold these keys from their first event on. Returns their rows and violations.

    `keys`: one row per key, with `key_hash`, the key and optionally more columns. `like`: a frame with the columns that
    the rows get. `facts` (at least one per key) and `conflicts`: from `split_conflicts`; `entity` is the row number in
    `keys`.
    """
    folded, violations = onward(on, _nothing_folded(keys, like), _canonical(facts, on.topic), conflicts)
    return folded.select(like.columns), violations


def onward(
    on: Projected, rows: pl.DataFrame, events: pl.DataFrame, conflicts: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Fold `events` into `rows`. Returns the new rows, and the violations with the columns of the table, including one
    for each delivery in `conflicts`.

    In `events` and `conflicts`, `entity` is the row number in `rows`. The events are sorted by `entity`, then in
    canonical order.
    """
    folded, violations = _folded(on, rows, events)
    if conflicts.height:
        folded = _with_conflicts(folded, conflicts)
        nothing = dict.fromkeys(("state", "user_id", "owner"), pl.lit(None, dtype=pl.String))
        keyed = conflicts.select("key_hash", key=on.key, event_id="event_id", occurred_at="occurred_at")
        named = keyed.with_columns(violation=pl.lit("conflicting_duplicate"), **nothing)
        violations = pl.concat([violations, _as_stored(on, named)])
    return folded, violations


def _nothing_folded(keys: pl.DataFrame, like: pl.DataFrame) -> pl.DataFrame:
    """Rows for `keys` before their first event, with the columns of `like`."""
    rows = pl.concat([like.clear(), keys], how="diagonal")
    return rows.with_columns(pl.col("events", "violations", "ids_low", "ids_high").fill_null(0))


def _folded(on: Projected, rows: pl.DataFrame, events: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Fold `events` into `rows`. Returns the new rows with their book-keeping columns, and the violations with the
    columns of the table `violations`."""
    folded, violations = on.fold(rows, events)
    of = events.select("key_hash", key=on.key, event_id="event_id", occurred_at="occurred_at")[violations["event"]]
    broken = _as_stored(on, of.hstack(violations.select(_OF_VIOLATION)))
    return _with_book_keeping(folded, events, violations), broken


def _as_stored(on: Projected, violations: pl.DataFrame) -> pl.DataFrame:
    return violations.select(
        "key_hash",
        pl.lit("coupon").alias("scope"),
        pl.lit(on.topic).alias("topic"),
        "key",
        "event_id",
        "occurred_at",
        *_OF_VIOLATION,
    )


def split_conflicts(deliveries: pl.DataFrame, wire_fields: tuple[str, ...]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Split deliveries into facts and conflicts, two frames. For each identity (key, `event_id`), the content at the
    earliest position is the fact. Each other distinct content is one conflict, with its earliest position."""
    identity = ["entity", "event_id"]
    twice = _maybe_repeated(deliveries)
    if not twice.size:
        return deliveries, deliveries.clear()
    several = deliveries[twice].with_columns(row=pl.Series(twice)).sort(_POSITION, maintain_order=True)
    contents = several.unique(subset=["entity", *wire_fields], keep="first", maintain_order=True)
    stands = contents.select(pl.struct(identity).is_first_distinct()).to_series()
    kept = np.ones(deliveries.height, dtype=np.bool_)
    kept[twice] = False
    kept[contents.filter(stands)["row"].to_numpy()] = True
    return deliveries.filter(pl.Series(kept)), contents.filter(~stands).drop("row")


def _maybe_repeated(events: pl.DataFrame) -> Int64:
    """The numbers of all rows that share their identity (`entity`, `event_id`) with another row. May include a few
    other rows."""
    ids: npt.NDArray[np.uint64] = events["event_id"].hash().to_numpy()
    identities = ids ^ (events["entity"].to_numpy().astype(np.uint64) * _ODD)
    placed = np.sort(identities)
    repeated = placed[1:][placed[1:] == placed[:-1]]
    return np.flatnonzero(pl.Series(identities).is_in(pl.Series(repeated).implode()).to_numpy())


def _canonical(events: pl.DataFrame, topic: str) -> pl.DataFrame:
    """Sort events by key, canonical order and position. Adds `type_order` and the filter bits of the ids."""
    order = events["type"].cast(pl.Enum(list(types(topic)))).to_physical().cast(pl.UInt8)
    low, high = bits_of(stable_hash(events["event_id"]))
    events = events.with_columns(type_order=order, id_low=pl.Series(low), id_high=pl.Series(high))
    return events.sort("entity", "occurred_at", "type_order", "event_id", *_POSITION)


def _renumbered(events: pl.DataFrame, chosen: Int64, n: int) -> pl.DataFrame:
    """The events with new values of `entity`, counted from 0. `chosen`: the old values that occur in the events,
    ascending. `n`: how many keys the old values number."""
    if len(chosen) == n:
        return events
    number = np.zeros(n, dtype=np.uint32)
    number[chosen] = np.arange(len(chosen), dtype=np.uint32)
    return events.with_columns(entity=pl.Series(number[events["entity"].to_numpy()]))


def _add(counts: dict[int, int], events: pl.DataFrame, sign: int = 1) -> None:
    """Change `counts` by the number of these events per partition. `sign`: 1 adds them, -1 subtracts them."""
    partitions, numbers = np.unique(events["log_partition"].to_numpy(), return_counts=True)
    for partition, number in zip(partitions.tolist(), numbers.tolist(), strict=True):
        counts[partition] = counts.get(partition, 0) + sign * number


def _with_book_keeping(rows: pl.DataFrame, events: pl.DataFrame, violations: pl.DataFrame) -> pl.DataFrame:
    n = rows.height
    entity: Int64 = events["entity"].cast(pl.Int64).to_numpy()
    counted = np.bincount(entity, minlength=n).astype(np.int32)
    broken = np.bincount(entity[violations["event"].to_numpy()], minlength=n).astype(np.int32)
    last = np.zeros(n, dtype=np.int64)
    last[entity] = np.arange(len(entity))
    tail = events.select("occurred_at", "type_order")[last]
    ids_low, ids_high = rows["ids_low"].to_numpy().copy(), rows["ids_high"].to_numpy().copy()
    np.bitwise_or.at(ids_low, entity, events["id_low"].to_numpy())
    np.bitwise_or.at(ids_high, entity, events["id_high"].to_numpy())
    return rows.with_columns(
        last_event_at=tail["occurred_at"],
        events=rows["events"] + pl.Series(counted),
        violations=rows["violations"] + pl.Series(broken),
        last_type=tail["type_order"],
        ids_low=pl.Series(ids_low),
        ids_high=pl.Series(ids_high),
        first_recorded_at=_first_recorded(rows, events),
    )


def _with_conflicts(rows: pl.DataFrame, conflicts: pl.DataFrame) -> pl.DataFrame:
    entity: Int64 = conflicts["entity"].cast(pl.Int64).to_numpy()
    number = np.bincount(entity, minlength=rows.height).astype(np.int32)
    return rows.with_columns(
        violations=rows["violations"] + pl.Series(number), first_recorded_at=_first_recorded(rows, conflicts)
    )


def _first_recorded(rows: pl.DataFrame, events: pl.DataFrame) -> pl.Series:
    """Per row, the earliest `recorded_at`: that of the row so far, or of one of its new events."""
    recorded = np.full(rows.height, np.iinfo(np.int64).max)
    np.minimum.at(recorded, events["entity"].to_numpy(), events["recorded_at"].cast(pl.Int64).to_numpy())
    first = pl.Series(recorded).cast(pl.Datetime("us"))
    return pl.select(pl.min_horizontal(rows["first_recorded_at"], first)).to_series()
