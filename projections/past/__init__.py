"""Puts the tables of the past in the place of the live ones, for one connection (docs/decisions/0013-past.md). A past
is defined by instants of one or both clocks, or by positions of the log (`Cut`).

On a cursor's connection, temporary tables and views shadow the live ones of the same name, so the same questions are
answered for the past. They are dropped with the cursor's transaction.

Always true: these tables equal a fold, from the start, of the events in the cut. Events outside the cut are dropped
first; the others are split into facts and conflicts, and then folded. A key whose events are all in the cut keeps its
live row. Every other key is folded again from its journal, slice by slice, into temporary files, so memory does not
grow with the tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final
from uuid import uuid4

import numpy as np
import polars as pl

from coupon_ledger.ledger.progress import Progress, ignore
from coupon_ledger.ledger.rules import STATES
from coupon_ledger.ledger.topics import CAMPAIGN, COUPON, INPUT_TOPICS
from coupon_ledger.projections.attribution.persons import persons
from coupon_ledger.projections.connection import Reading, live_schema, sql
from coupon_ledger.projections.live import campaign_rules, order_rules
from coupon_ledger.projections.live.apply import PROJECTED, Projected, from_the_start
from coupon_ledger.projections.live.cross import clock_and_grace
from coupon_ledger.projections.live.signature import stable_hash
from coupon_ledger.projections.live.views import VIEWS, view
from coupon_ledger.projections.past.slices import Slices, ahead, room_for_files
from coupon_ledger.projections.wide import as_decimals

_AT_ONCE: Final = 50_000
"""Number of keys that are folded at once."""
_READ_AT_ONCE: Final = 200_000
"""Number of events that are split into slices at once."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Which events belong to a past: those that happened at or before `at`, were recorded at or before `known_at` (both
    naive UTC), and are in the log before `positions`. A bound that is None excludes nothing.

    `positions`: the next offset by topic and partition, as in checkpoints. All events in a partition that is not listed
    are excluded. If an event was delivered several times, only the position of the first delivery is known. So the
    answer is exact if the repeats are in the same partition as the first delivery. This is true of a topic that is
    partitioned by key.
    """

    at: datetime | None = None
    known_at: datetime | None = None
    positions: Mapping[tuple[str, int], int] | None = None

    def __bool__(self) -> bool:
        return self.at is not None or self.known_at is not None or self.positions is not None

    def condition(self, topic: str) -> str:
        """The SQL condition on events of this topic."""
        bounds = {"occurred_at": self.at, "recorded_at": self.known_at}
        conditions = [f"{name} <= TIMESTAMP '{at}'" for name, at in bounds.items() if at is not None]
        if self.positions is not None:
            read = [
                f"(log_partition = {partition} AND log_offset < {offset})"
                for (of, partition), offset in sorted(self.positions.items())
                if of == topic
            ]
            conditions.append(f"({' OR '.join(read) or 'false'})")
        return " AND ".join(conditions) or "true"

    def __str__(self) -> str:
        bounds = {"happened until": self.at, "was recorded until": self.known_at}
        parts = [f"{words} {at.isoformat()}Z" for words, at in bounds.items() if at is not None]
        return " and ".join([*parts, *(["lies before these positions"] if self.positions is not None else [])])


def deliveries_of(topic: str, live: str) -> str:
    """A subquery for the first delivery of every distinct content of a topic: its journal and its conflicts. `live`:
    the schema of the live tables."""
    on = PROJECTED[topic]
    return f"(SELECT * FROM {live}.{on.journal} UNION ALL SELECT * FROM {live}.{on.conflicts})"


def _text(value: str) -> str:
    """An SQL string literal."""
    return "'" + value.replace("'", "''") + "'"


def _numbered(
    on: Projected, facts: pl.DataFrame, conflicts: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """The distinct keys of `facts`, then the facts and the conflicts with the additional column `entity`: the row
    number of their key among the keys."""
    hashes, first, entity = np.unique(facts["key_hash"].to_numpy(), return_index=True, return_inverse=True)
    keys = pl.DataFrame({"key_hash": hashes, on.key: facts[on.key].gather(first)})
    if (keys[on.key].gather(entity) != facts[on.key]).any():  # two keys with one hash
        keys = facts.select("key_hash", on.key).unique(on.key, maintain_order=True)
        facts = facts.join(keys.select(on.key).with_row_index("entity"), on=on.key)
    else:
        facts = facts.with_columns(entity=pl.Series(entity, dtype=pl.UInt32))
    return keys, facts, conflicts.join(keys.select(on.key).with_row_index("entity"), on=on.key)


class Past:
    """The tables of one past, as temporary tables and views on a connection: the *stand-ins*. The caller begins a
    transaction before, and rolls it back afterwards.

    The constructor creates the stand-ins of the journals, of `ledger` (with its `data_clock`), of `persons`, and of
    `violations`, which is empty at first. The method `stand_in` adds the rows of one topic and their violations, when a
    question needs them. Call `leave` before another `Past` in the same transaction, and `close` at the end.
    """

    def __init__(self, reading: Reading, cut: Cut, progress: Progress = ignore) -> None:
        """`progress`: in keys that are folded again. The total grows with each topic that is put in place."""
        self.reading = reading
        self.cut = cut
        self._progress = progress
        self._folded = 0
        self._made: list[str] = []
        self._whole: set[str] = set()
        self._across_done = False
        self._folder: TemporaryDirectory[str] | None = None
        self._live = live_schema(reading)
        for topic in INPUT_TOPICS:
            self._cut_journal(PROJECTED[topic])
        self.make("ledger", f"SELECT * FROM {self._live}.ledger")
        reading.execute(sql(__package__, "data_clock"))
        self.make("violations", f"SELECT * FROM {self._live}.violations LIMIT 0")
        self.make("persons", f"SELECT * FROM {self._live}.persons LIMIT 0")
        self._insert("persons", persons(reading.frame(sql(__package__, "links"))))
        for name in VIEWS:
            self.show(name, view(name))

    def leave(self) -> None:
        """Drop all stand-ins and temporary files."""
        self.undo(0)
        self._whole.clear()
        self._across_done = False
        self.close()

    @property
    def made(self) -> int:
        """How many stand-ins exist now."""
        return len(self._made)

    def undo(self, made: int) -> None:
        """Drop all stand-ins except the first `made`."""
        while len(self._made) > made:
            self.reading.execute(f"DROP {self._made.pop()}")

    def close(self) -> None:
        """Remove the temporary files."""
        if self._folder is not None:
            self._folder.cleanup()

    def make(self, table: str, query: str, **parameters: str | Sequence[str] | Sequence[int]) -> None:
        """Create a stand-in for `table` that contains the result of `query`. It exists until `leave` or `undo`."""
        self.reading.execute(f"CREATE TEMP TABLE {table} AS {query}", parameters)
        self._made.append(f"TABLE temp.{table}")

    def show(self, view: str, query: str) -> None:
        """Create a stand-in that is a view: queries for `view` get the result of `query`, until `leave` or `undo`."""
        self.reading.execute(f"CREATE TEMP VIEW {view} AS {query}")
        self._made.append(f"VIEW temp.{view}")

    def _cut_journal(self, on: Projected) -> None:
        """Create the stand-ins of a journal and of its conflicts, with only the events in the cut. The fact of an
        identity may be outside the cut while conflicts are in it. Then the earliest of these becomes the fact."""
        inside = self.cut.condition(on.topic)
        self.make(on.conflicts, f"SELECT * FROM {self._live}.{on.conflicts} WHERE {inside}")
        self.make(
            f"{on.journal}_standing",
            f"""
            SELECT c.* FROM {on.conflicts} c
            ANTI JOIN (
                SELECT key_hash, {on.key}, event_id FROM {self._live}.{on.journal}
                WHERE key_hash IN (SELECT key_hash FROM {on.conflicts}) AND {inside}
            ) j USING (key_hash, {on.key}, event_id)
            QUALIFY row_number() OVER (
                PARTITION BY c.key_hash, c.{on.key}, c.event_id ORDER BY c.recorded_at, c.log_partition, c.log_offset
            ) = 1
            """,
        )
        self.reading.execute(
            f"DELETE FROM {on.conflicts} c USING {on.journal}_standing s"
            " WHERE c.recorded_at = s.recorded_at AND c.log_partition = s.log_partition AND c.log_offset = s.log_offset"
        )
        self.show(
            on.journal,
            f"SELECT * FROM {self._live}.{on.journal} WHERE {inside} UNION ALL SELECT * FROM {on.journal}_standing",
        )

    def stand_in(self, topic: str, among: str | None = None, **carrying: Sequence[str] | Sequence[int] | None) -> None:
        """Put the past rows of this topic's keys, and their violations, in the place of the live ones.

        For questions about some keys only: `among` names a table with their `key_hash`. Or `carrying` gives a field of
        the events and its values (`campaign_id=[...]`), which selects the keys with an event that has one of these
        values, whether in the cut or not. Only the first field in `carrying` that is not None is used. Does nothing if
        all keys of the topic are already in place.
        """
        if topic in self._whole:
            return
        on = PROJECTED[topic]
        deliveries = deliveries_of(topic, self._live)
        narrowing = next(((field, values) for field, values in carrying.items() if values is not None), None)
        if narrowing is not None:
            field, values = narrowing
            among = f"{on.table}_chosen"
            self.make(
                among,
                f"SELECT DISTINCT key_hash FROM {deliveries} WHERE {field} IN (SELECT unnest($values))",
                values=values,
            )
        elif among is None:
            self._whole.add(topic)
        chosen = f"SEMI JOIN {among} USING (key_hash)" if among else ""
        outside = f"SELECT DISTINCT key_hash FROM {deliveries} {chosen} WHERE NOT ({self.cut.condition(topic)})"
        self.make(f"{on.table}_touched", outside)
        unchanged = f"{chosen} ANTI JOIN {on.table}_touched USING (key_hash)"
        self.reading.execute(
            f"INSERT INTO violations SELECT v.* FROM {self._live}.violations v {unchanged}"
            " WHERE v.scope = 'coupon' AND v.topic = $topic",
            {"topic": topic},
        )
        files = self._fold_again(on)
        again = f"UNION ALL BY NAME ({self._rows_in(files, on)})" if files else ""
        self.show(on.table, f"SELECT t.* FROM {self._live}.{on.table} t {unchanged} {again}")

    def _rows_in(self, files: list[Path], on: Projected) -> str:
        """A query that reads the rows in these Parquet files, with the column types of the live table."""
        columns = self.reading.rows(f"DESCRIBE {self._live}.{on.table}")
        cast = ", ".join(f"{name}::{kind} AS {name}" for name, kind, *_ in columns)
        return f"SELECT {cast} FROM read_parquet([{', '.join(_text(str(file)) for file in files)}])"

    def _fold_again(self, on: Projected) -> list[Path]:
        """Fold again the keys that have events outside the cut, using only their events within it. A key without any
        gets no row. Inserts the violations into the stand-in of `violations`, and writes the rows to files. Returns
        these files."""
        like = self.reading.frame(f"SELECT * FROM {self._live}.{on.table} LIMIT 0")
        like = like.cast({pl.Categorical: pl.Enum(list(STATES))})
        [(keys,)] = self.reading.rows(f"SELECT count(*) FROM {on.table}_touched")
        sliced = [self._parted(table, on, 1 + keys // _AT_ONCE) for table in (on.journal, on.conflicts)]

        def folded(slices: Iterable[Callable[[], pl.DataFrame]]) -> tuple[Path, pl.DataFrame] | None:
            facts, conflicts = (read() for read in slices)
            if not facts.height:
                return None
            keys, facts, conflicts = _numbered(on, facts, conflicts)
            rows, violations = from_the_start(on, keys, like, facts, conflicts)
            return self._keep(rows), violations

        files: list[Path] = []
        ends = [keys * number // len(sliced[0]) for number in range(len(sliced[0]) + 1)]
        for folded_slice, (start, end) in zip(ahead(folded, zip(*sliced, strict=True)), pairwise(ends), strict=True):
            if folded_slice is not None:
                files.append(folded_slice[0])
                self._insert("violations", folded_slice[1])
            self._folded += end - start
            self._progress(self._folded, self._folded + keys - end)
        return files

    def _parted(self, table: str, on: Projected, count: int) -> list[Callable[[], pl.DataFrame]]:
        """The events in `table` (a journal or its conflicts) of the keys to fold again, split into `count` slices.
        Returns one function per slice, which reads the slice's events."""
        columns = ", ".join(("key_hash", on.key, *on.reads, "recorded_at", "log_partition", "log_offset"))
        query = f"SELECT {columns} FROM {table} SEMI JOIN {on.table}_touched USING (key_hash)"
        if count == 1:
            frame = self.reading.frame(query)
            return [lambda: frame]
        slices = Slices(self._files(), table, count, self.reading.batches(query, rows=_READ_AT_ONCE))
        return [partial(slices.read, number) for number in range(count)]

    def _keep(self, rows: pl.DataFrame) -> Path:
        """Write `rows` to a new temporary file. Returns the file."""
        with room_for_files():
            file = self._files() / f"{uuid4()}.parquet"
            as_decimals(rows).write_parquet(file, compression="lz4")
        return file

    def _files(self) -> Path:
        """The folder of the temporary files, created on first use."""
        with room_for_files():
            self._folder = self._folder or TemporaryDirectory(prefix="coupon-ledger-")
        return Path(self._folder.name)

    def _ranges(self, table: str) -> Iterator[str]:
        """SQL conditions on `key_hash`. Together they select the whole table, and each of them about `_AT_ONCE`
        rows."""
        [(keys,)] = self.reading.rows(f"SELECT count(*) FROM {table}")
        parts = 1 + keys // _AT_ONCE
        ends = [-(1 << 63) + (1 << 64) * part // parts for part in range(parts)]
        for first, after in zip(ends, [*ends[1:], 1 << 63], strict=True):
            yield f"key_hash BETWEEN {first} AND {after - 1}"

    def _insert(self, table: str, rows: pl.DataFrame) -> None:
        if rows.height:
            with self.reading.given(added=rows):
                self.reading.execute(f"INSERT INTO {table} BY NAME SELECT * FROM added")

    def stand_in_across(self) -> None:
        """Add the violations of the rules across coupons and between topics to the stand-in of `violations`. The past
        rows of coupons, orders and campaigns must be in place. A second call does nothing."""
        if self._across_done:
            return
        self._across_done = True
        self._within_campaigns()
        clock, grace = clock_and_grace(self.reading)
        if clock is not None:
            self._between_topics(clock, grace)

    def stand_in_within_campaigns(self) -> None:
        """Add to the stand-in of `violations` only the violations of the rules across a campaign's coupons. For
        questions that read no other violations of scope 'cross'. The past rows of coupons and campaigns must be in
        place."""
        if not self._across_done:
            self._within_campaigns()

    def _within_campaigns(self) -> None:
        everyone = self.reading.frame(f"SELECT key_hash AS campaign_hash, campaign_id FROM {PROJECTED[CAMPAIGN].table}")
        terms = campaign_rules.terms_of(self.reading, everyone)
        with self.reading.given(ruled=terms.select("campaign_id").unique()):
            sizes = self.reading.frame(sql(__package__, "acquired_in_campaigns"))
        pieces = sizes.with_columns(piece=pl.col("coupons").cum_sum() // _AT_ONCE).partition_by("piece")
        for campaigns in pieces:
            with self.reading.given(chosen=campaigns):
                members = self.reading.frame(sql(__package__, "acquired"))
            mine = terms.join(campaigns, on="campaign_id", how="semi")
            broken = campaign_rules.broken(self.reading, members, mine)
            self._insert("violations", broken.with_columns(scope=pl.lit("cross")))

    def _between_topics(self, clock: datetime, grace: timedelta) -> None:
        for table in ("coupons_in_use", "uses"):
            self.make(table, f"SELECT * FROM {self._live}.{table} LIMIT 0")
            for within in self._ranges(PROJECTED[COUPON].table):
                rows = self.reading.frame(f"{sql(__package__, table)} AND {within}")
                hashes = pl.Series(stable_hash(rows["order_id"]), dtype=pl.Int64)
                self._insert(table, rows.with_columns(order_hash=hashes))
        for affected in order_rules.everything(self.reading):
            due, _ = order_rules.broken(self.reading, affected, clock, grace)
            self._insert("violations", due.with_columns(scope=pl.lit("cross")))
