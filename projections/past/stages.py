"""The tables in each of several states between two cuts, for one connection.

Every delivery that is in one of the cuts only belongs to a *stage*, a number from 1. In state `s`, the deliveries of
the stages up to `s` are as in the later cut, and all others as in the earlier one. So state 0 is the earlier cut, and
the state of the last stage is the later one.

Always true: the rows in a state equal a fold, from the start, of the deliveries of that state. Only keys with a
delivery that is not in both cuts are folded, each once for every stage that changes it. All other keys keep their live
rows. `violations` and the kept tables other than `coupon_sales` have no states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Final

import polars as pl

from coupon_ledger.ledger.rules import STATES
from coupon_ledger.ledger.topics import COUPON, ORDER
from coupon_ledger.projections.connection import Reading, live_schema, sql
from coupon_ledger.projections.coupon_sales import TABLE as SALES
from coupon_ledger.projections.live.apply import PROJECTED, Projected, from_the_start
from coupon_ledger.projections.past import deliveries_of

_AT_ONCE: Final = 50_000
"""Number of rows that are folded at once."""
_LAST: Final = 1_000_000
"""Above every stage."""

Condition = Callable[[str], str]
"""A function that returns SQL about the deliveries of a topic."""


class Stages:
    """The states between two cuts. The caller begins a transaction before, and rolls it back after an error.

    The tables `<journal>_delivered` contain the deliveries of all keys that are folded, with `in_before`, `in_after`
    and `stage` (null for a delivery that is in both cuts or in neither).
    """

    def __init__(
        self, reading: Reading, before: Condition, after: Condition, stage: Condition, topics: Iterable[str]
    ) -> None:
        """`before`, `after`: the conditions on deliveries in the two cuts. `stage`: SQL for the stage of a delivery; it
        can use `again`, which says whether the other cut has the identity of the event with another content."""
        self.reading = reading
        self.topics = tuple(topics)
        self._live = live_schema(reading)
        self._made: list[str] = []
        self._shown: set[str] = set()
        for topic in self.topics:
            self._deliver(PROJECTED[topic], before(topic), after(topic), stage(topic))
            self._fold(PROJECTED[topic])

    def of_topics(self) -> dict[int, set[str]]:
        """The stages that have deliveries, in their order, each with the topics of these."""
        found: dict[int, set[str]] = {}
        for topic in self.topics:
            delivered = f"{PROJECTED[topic].journal}_delivered"
            for (stage,) in self.reading.rows(f"SELECT DISTINCT stage FROM {delivered} WHERE stage IS NOT NULL"):
                found.setdefault(stage, set()).add(topic)
        return dict(sorted(found.items()))

    def show(self, stage: int) -> None:
        """Put the tables of this state in the place of the live ones."""
        for topic in self.topics:
            on = PROJECTED[topic]
            for table in (on.table, on.journal):
                self.view(
                    table,
                    f"SELECT * FROM {self._live}.{table} ANTI JOIN {on.table}_stages USING (key_hash) UNION ALL BY NAME"
                    f" SELECT * EXCLUDE (since, until) FROM {table}_staged WHERE since <= {stage} AND until > {stage}",
                )
        if {COUPON, ORDER} <= set(self.topics):
            self.view(SALES, self._sales())

    def _sales(self) -> str:
        """The query for `coupon_sales`: the live rows of coupons and orders that are the same in all states, and the
        others from the tables of the state."""
        return f"""
            SELECT * FROM {self._live}.{SALES}
            ANTI JOIN coupons_stages USING (key_hash)
            ANTI JOIN (SELECT key_hash AS order_hash FROM orders_stages) USING (order_hash)
            UNION ALL BY NAME
            {sql("coupon_ledger.projections.coupon_sales", SALES)}
            AND (c.key_hash IN (SELECT key_hash FROM coupons_stages)
                 OR c.order_id IN (SELECT order_id FROM order_events_delivered))
        """

    def make(self, table: str, query: str) -> None:
        """Create a temporary table that exists until `close`."""
        self.reading.execute(f"CREATE OR REPLACE TEMP TABLE {table} AS {query}")
        self._made.append(f"TABLE temp.{table}")

    def view(self, name: str, query: str) -> None:
        """Create or replace a view that shadows the live table of this name until `close`."""
        self.reading.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS {query}")
        if name not in self._shown:
            self._shown.add(name)
            self._made.append(f"VIEW temp.{name}")

    def close(self) -> None:
        """Drop all tables and views."""
        for made in dict.fromkeys(reversed(self._made)):
            self.reading.execute(f"DROP {made}")
        self._made.clear()

    def _deliver(self, on: Projected, before: str, after: str, stage: str) -> None:
        deliveries = deliveries_of(on.topic, self._live)
        identity = f"key_hash, {on.key}, event_id"
        self.make(
            f"{on.journal}_delivered",
            f"""
            SELECT * EXCLUDE (again), CASE WHEN in_before <> in_after THEN {stage} END AS stage
            FROM (
                SELECT *, if(in_before, bool_or(in_after) OVER identity, bool_or(in_before) OVER identity) AS again
                FROM (SELECT *, {before} AS in_before, {after} AS in_after FROM {deliveries})
                SEMI JOIN (
                    SELECT key_hash FROM {deliveries} WHERE NOT (({before}) AND ({after}))
                ) USING (key_hash)
                WINDOW identity AS (PARTITION BY {identity})
            )
            """,
        )
        self.make(
            f"{on.table}_stages",
            f"""
            SELECT key_hash, since, coalesce(lead(since) OVER (PARTITION BY key_hash ORDER BY since), {_LAST}) AS until
            FROM (
                SELECT key_hash, 0 AS since FROM {on.journal}_delivered
                UNION SELECT key_hash, stage FROM {on.journal}_delivered WHERE stage IS NOT NULL
            )
            """,
        )
        self.make(
            f"{on.journal}_staged",
            f"""
            SELECT d.* EXCLUDE (in_before, in_after, stage), s.since, s.until
            FROM {on.journal}_delivered d JOIN {on.table}_stages s USING (key_hash)
            WHERE CASE WHEN d.stage <= s.since THEN d.in_after ELSE d.in_before END
            QUALIFY row_number() OVER (
                PARTITION BY d.key_hash, d.{on.key}, d.event_id, s.since
                ORDER BY d.recorded_at, d.log_partition, d.log_offset
            ) = 1
            """,
        )

    def _fold(self, on: Projected) -> None:
        """Fold the facts of every key and stage, in pieces, into the table `<table>_staged`."""
        columns = self.reading.rows(f"DESCRIBE {self._live}.{on.table}")
        cast = ", ".join(f"{name}::{kind} AS {name}" for name, kind, *_ in columns)
        like = self.reading.frame(f"SELECT * FROM {self._live}.{on.table} LIMIT 0")
        like = like.cast({pl.Categorical: pl.Enum(list(STATES))})
        self.make(f"{on.table}_staged", f"SELECT *, 0 AS since, 0 AS until FROM {self._live}.{on.table} LIMIT 0")
        reads = ("key_hash", on.key, "since", "until", *on.reads, "recorded_at", "log_partition", "log_offset")
        for within in self._ranges(f"{on.table}_stages"):
            facts = self.reading.frame(f"SELECT {', '.join(reads)} FROM {on.journal}_staged WHERE {within}")
            if facts.height:
                with self.reading.given(added=_rows(on, like, facts)):
                    self.reading.execute(
                        f"INSERT INTO {on.table}_staged BY NAME SELECT {cast}, since, until FROM added"
                    )

    def _ranges(self, table: str) -> Iterator[str]:
        """SQL conditions on `key_hash`. Together they select all keys, and each of them about `_AT_ONCE` rows."""
        [(rows,)] = self.reading.rows(f"SELECT count(*) FROM {table}")
        parts = 1 + rows // _AT_ONCE
        ends = [-(1 << 63) + (1 << 64) * part // parts for part in range(parts + 1)]
        return (f"key_hash BETWEEN {first} AND {after - 1}" for first, after in pairwise(ends))


def _rows(on: Projected, like: pl.DataFrame, facts: pl.DataFrame) -> pl.DataFrame:
    """The rows that follow from `facts`, one for each key and stage, with `since` and `until`."""
    stage: Sequence[str] = ("key_hash", on.key, "since", "until")
    keys = facts.select(stage).unique(maintain_order=True)
    facts = facts.join(keys.with_row_index("entity"), on=stage).drop("since", "until")
    folded, _ = from_the_start(on, keys.select(stage[:2]), like, facts, facts.clear())
    return folded.with_columns(keys["since"], keys["until"])
