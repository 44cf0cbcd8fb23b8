"""Audits: invariants of the tables. Each audit is a query that returns the rows that break the invariant (offenders).
If it returns no rows, the invariant holds.

An audit is a `.sql` file in this folder. The first sentence of its header is the question that the audit answers. The
rest says what one row is, and what an offender means. If SQL cannot express the check, a function below checks the rows
of the query. An audit reads one state of the database, in the caller's transaction, so later commits cause no false
alarms.

Memory does not grow with the tables: a query with `$first` and `$last` runs once per range of key hashes, and one with
`$first_offset` and `$last_offset` once per range of offsets. All offenders are counted, but only the first ones are
kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import polars as pl

from coupon_ledger.ledger.plain import plain
from coupon_ledger.ledger.rules import types
from coupon_ledger.ledger.topics import CAMPAIGN, COUPON, ORDER, USER
from coupon_ledger.projections.connection import Reading, sql
from coupon_ledger.projections.kept import KEPT
from coupon_ledger.projections.live import order_rules
from coupon_ledger.projections.live.cross import clock_and_grace
from coupon_ledger.projections.live.journal import JOURNAL
from coupon_ledger.projections.live.signature import bits_of, stable_hash
from coupon_ledger.questions.finance.statement import statement

_AT_ONCE: Final = 1_000_000
"""Approximate number of journal rows per part of a query."""
_ORDERS_AT_ONCE: Final = 50_000
_FIRST: Final = -(1 << 63)
_LINKED: Final = {"user_id": pl.String, "links_say": pl.String}
_TYPES: Final = {
    f"{name}_types": list(types(topic))
    for name, topic in (("coupon", COUPON), ("order", ORDER), ("campaign", CAMPAIGN), ("user", USER))
}


_KEPT: Final = {audit: table.folder for table in reversed(KEPT) for audit in table.audits}
"""For each audit of a kept table, the folder of its SQL."""


def _text(name: str) -> str:
    return sql(_KEPT[name], f"audit_{name}") if name in _KEPT else sql(__package__, name)


def question_of(name: str) -> str:
    """The question that the audit with this name answers: the first sentence of its file."""
    header = " ".join(line.removeprefix("-- ") for line in _text(name).splitlines() if line.startswith("--"))
    return header.partition("?")[0] + "?"


def run(reading: Reading, name: str, limit: int) -> tuple[int, list[dict[str, Any]]]:
    """Run the audit with this name. Returns the number of offenders and the first `limit` of them."""
    offenders = 0
    shown: list[dict[str, Any]] = []
    for frame in AUDITS[name](reading, name):
        offenders += frame.height
        shown += frame.head(limit - len(shown)).to_dicts()
    return offenders, shown


def as_json(offenders: Sequence[Mapping[str, Any]]) -> str:
    return json.dumps([plain(dict(offender)) for offender in offenders], ensure_ascii=False)


def _rows(reading: Reading, name: str, parts: int = 1) -> Iterator[pl.DataFrame]:
    """All rows of the audit's query. If the query can be divided, it runs in at least `parts` parts."""
    for query, parameters in _queries(reading, name, parts):
        yield from reading.batches(query, parameters)


def _queries(reading: Reading, name: str, parts: int = 1) -> Iterator[tuple[str, dict[str, Any]]]:
    """The audit's query in parts: the SQL text and the query parameters of each part."""
    query = _text(name)
    wanted = set(re.findall(r"\$(\w+)", re.sub("--.*", "", query)))
    for part in _parts(reading, wanted, parts):
        yield query, {name: value for name, value in part.items() if name in wanted}


def _parts(reading: Reading, wanted: set[str], least: int) -> Iterator[dict[str, Any]]:
    journals = ", ".join(f"'{table}'" for table in JOURNAL.values())
    [(rows, end)] = reading.rows(
        f"SELECT (SELECT sum(estimated_size) FROM duckdb_tables() WHERE table_name IN ({journals})),"
        " (SELECT coalesce(max(next_offset), 0) FROM checkpoints)"
    )
    parts = max(least, 1 + int(rows) // _AT_ONCE) if wanted & {"first", "first_offset"} else 1
    for part in range(parts):
        first, after = (_FIRST + (1 << 64) * n // parts for n in (part, part + 1))
        first_offset = end * part // parts if part else _FIRST
        last_offset = end * (part + 1) // parts if part < parts - 1 else -_FIRST
        offsets = {"first_offset": first_offset, "last_offset": last_offset - 1}
        yield {"first": first, "last": after - 1, **offsets, **_TYPES}


def _key_hashes(reading: Reading, name: str) -> Iterator[pl.DataFrame]:
    for rows in _rows(reading, name):
        yield rows.filter(rows["hash"] != pl.Series(stable_hash(rows["text"]), dtype=pl.Int64))


def _event_ids(reading: Reading, name: str) -> Iterator[pl.DataFrame]:
    for rows in _rows(reading, name):
        missing = np.zeros(rows.height, dtype=np.bool_)
        bits = bits_of(stable_hash(rows["event_id"]))
        for word, wanted in zip(("ids_low", "ids_high"), bits, strict=True):
            missing |= rows[word].to_numpy() & wanted != wanted
        yield rows.filter(pl.Series(missing)).select("projection", "key", "event_id")


def _conservation(reading: Reading, name: str) -> Iterator[pl.DataFrame]:
    parts = pl.concat(_rows(reading, name))
    sums = pl.col("counted", "stands").sum()
    each = parts.group_by("campaign_id", "statement").agg(sums)
    everything = parts.group_by("statement").agg(sums).select(pl.lit("all").alias("campaign_id"), pl.all())
    yield pl.concat([each, everything]).filter(pl.col("counted") != pl.col("stands"))


def _liability(reading: Reading, name: str) -> Iterator[pl.DataFrame]:
    by = ["campaign_id", "currency"]
    accounts = pl.concat(_rows(reading, name))
    for counted, by_rows in (("counted", False), ("told", True)):
        closing = {counted: "closing_coupons", f"{counted}_minor": "closing_minor"}
        moved = statement(reading, by_rows=by_rows).select(*by, **closing)
        accounts = accounts.join(moved, on=by, how="full", nulls_equal=True, coalesce=True).fill_null(0)
    kept = [
        (pl.col(f"stands{unit}") == pl.col(f"counted{unit}")) & (pl.col(f"stands{unit}") == pl.col(f"told{unit}"))
        for unit in ("", "_minor")
    ]
    yield accounts.filter(~pl.all_horizontal(kept))


_VIOLATIONS: Final = """
    SELECT v.* FROM violations v
    SEMI JOIN affected a ON v.order_hash = a.order_hash AND a.order_id = if(v.topic = $orders, v.key, v.counterpart)
"""


def _between_topics(reading: Reading, name: str) -> Iterator[pl.DataFrame]:
    clock, grace = clock_and_grace(reading)
    if clock is None:
        return
    for query, parameters in _queries(reading, name):
        for piece in reading.frame(query, parameters).iter_slices(_ORDERS_AT_ONCE):
            due, awaiting = order_rules.broken(reading, order_rules.as_stored(reading, piece), clock, grace)
            with reading.given(affected=piece):
                reported = reading.frame(_VIOLATIONS, {"orders": ORDER})
                awaited = reading.frame("SELECT w.* FROM awaited w SEMI JOIN affected USING (order_hash, order_id)")
            yield _differences(due, reported)
            yield _differences(awaiting, awaited)


def _differences(wanted: pl.DataFrame, kept: pl.DataFrame) -> pl.DataFrame:
    """The rows in which the two frames differ, with `fault`: a row that is more often in `wanted` is missing, one that
    is more often in `kept` is superfluous."""
    kept = kept.select(wanted.columns)
    both = pl.concat([wanted.with_columns(n=pl.lit(1)), kept.with_columns(n=pl.lit(-1))])
    odd = both.group_by(wanted.columns).agg(pl.col("n").sum()).filter(pl.col("n") != 0)
    fault = pl.when(pl.col("n") > 0).then(pl.lit("missing")).otherwise(pl.lit("superfluous"))
    return odd.select(fault.alias("fault"), *wanted.columns)


def _paths(reading: Reading, name: str) -> Iterator[pl.DataFrame]:
    """The rows of the audit of paths. The number of parts depends on the number of touches, not of orders, since one
    order can have a hundred touches."""
    [(touches,)] = reading.rows("SELECT coalesce(sum(least(touches, 100)), 0)::BIGINT FROM paths")
    return _rows(reading, name, 1 + touches // _AT_ONCE)


_PERSONS: Final = """
    SELECT user_id, if(count(*) OVER (PARTITION BY user_id) = 1, person, 'several') AS person FROM persons
"""


def _persons(reading: Reading, name: str) -> Iterator[pl.DataFrame]:
    """Linked ids whose stored person differs from the person that the links say. The links are followed one by one, so
    the cost is linear in the number of ids, however many ids a person has."""
    links = [pair for frame in _rows(reading, name) for pair in frame.iter_rows() if pair[0] != pair[1]]
    wanted = pl.DataFrame(list(_same(links).items()), schema=_LINKED, orient="row")
    kept = reading.frame(_PERSONS).unique().select("user_id", kept="person")
    both = wanted.join(kept, on="user_id", how="full", coalesce=True)
    yield both.filter(pl.col("links_say").ne_missing(pl.col("kept")))


def _same(links: Sequence[tuple[str, str]]) -> dict[str, str]:
    """For each linked id, the id that names its person: the first id of the linked group, in byte order, that is not an
    alias. If all ids of the group are aliases, the first one. `links`: pairs of an id and its alias."""
    neighbours: dict[str, list[str]] = {}
    for one, other in links:
        neighbours.setdefault(one, []).append(other)
        neighbours.setdefault(other, []).append(one)
    aliases = {alias for _, alias in links}
    persons: dict[str, str] = {}
    for start in neighbours:
        if start in persons:
            continue
        reached, waiting = {start}, [start]
        while waiting:
            for other in neighbours[waiting.pop()]:
                if other not in reached:
                    reached.add(other)
                    waiting.append(other)
        person = min(reached - aliases or reached, key=str.encode)
        persons |= dict.fromkeys(reached, person)
    return persons


_JUDGED: Final = {"persons": _persons, "paths": _paths}
AUDITS: Final[Mapping[str, Callable[[Reading, str], Iterator[pl.DataFrame]]]] = {
    "accounts": _rows,
    "accounts_of_tables": _rows,
    "positions_not_read": _rows,
    "positions_twice": _rows,
    "identities_twice": _rows,
    "keys_twice": _rows,
    "key_hashes": _key_hashes,
    "event_ids": _event_ids,
    "rows_of_journal": _rows,
    "conservation": _conservation,
    "liability": _liability,
    "coupon_values": _rows,
    "coupon_states": _rows,
    "order_values": _rows,
    "campaign_values": _rows,
    "user_values": _rows,
    "violations_of_rows": _rows,
    "violations_of_events": _rows,
    "conflicts_of_journal": _rows,
    "contents_twice": _rows,
    "data_clock": _rows,
    "acquisitions": _rows,
    "campaign_terms": _rows,
    "stock_cuts": _rows,
    "coupons_in_use": _rows,
    "uses": _rows,
    "over_issue": _rows,
    "outside_claim_window": _rows,
    "over_user_limit": _rows,
    "over_person_limit": _rows,
    "between_topics": _between_topics,
    "operations_twice": _rows,
    **{audit: _JUDGED.get(audit, _rows) for audit in _KEPT},
}
"""Audits by name, in the order in which they run: a fault found by an early audit can cause offenders in later ones."""
