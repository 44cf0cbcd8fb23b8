"""What the benchmarks compare with: the same work row by row, with kafka-python, fastavro and plain Python.

    python -m benchmarks.baseline --log URL --database PATH [--writes arrow|executemany] [--limit N]

A consumer of `coupon.events` as a competent engineer writes it with those libraries. Each message is decoded by
fastavro's `schemaless_reader`, checked as a dict, and folded by a small state machine over a dict of coupons in memory.
Each batch is one DuckDB transaction with journal rows, upserted coupons (with a primary key), violations, dead letters
and the next offsets. An event later than everything its coupon has seen advances the coupon; a late event refolds it
from its journal. The tables are the ledger's own, with the same facts in them (`run` checks that). It does less: it
takes any event with a known id for a repeat without looking at the content, it keeps what it needs of the past in
memory instead of in the file, and it leaves out other topics.

`--writes arrow` (the default) hands a batch's rows to DuckDB as one Arrow table; `executemany` uses DuckDB's prepared
INSERT for each row. The producers below do the same for publishing.
"""

from __future__ import annotations

import argparse
import gc
import io
import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

import duckdb
import fastavro
import pyarrow as pa
from kafka import KafkaConsumer, KafkaProducer
from kafka import TopicPartition as KafkaPartition
from kafka.partitioner.default import murmur2

from coupon_ledger import schemas
from coupon_ledger.ledger.codec import HEADER_BYTES, SCHEMA_NAME, current_writer
from coupon_ledger.ledger.log import Record
from coupon_ledger.ledger.rules import CHOICES, CURRENCIES, GUARDS, NEEDS, STATES, TRANSITIONS
from coupon_ledger.ledger.topics import COUPON

Row = dict[str, Any]
Message = tuple[int, int, int, bytes, bytes]
"""Partition, offset, recorded_at (µs), key, value."""

KAFKA: Final = "kafka://"
SQLITE: Final = "sqlite:///"

_TYPE_ORDER: Final = {kind: i for i, kind in enumerate(TRANSITIONS)}
_CELLS: Final = {
    (kind, state): (cell.removesuffix("!"), cell.endswith("!"))
    for kind, cells in TRANSITIONS.items()
    for state, cell in zip(STATES, cells, strict=True)
}
_FIRST_CARRIED: Final = (
    "campaign_id",
    "coupon_type",
    "face_value_minor",
    "percent_off_bp",
    "min_spend_minor",
    "currency",
    "valid_from",
    "valid_until",
)
_AMOUNTS: Final = ("face_value_minor", "percent_off_bp", "min_spend_minor", "discount_minor")
_IDS: Final = ("event_id", "source", "coupon_id", "campaign_id", "rule_id", "user_id", "order_id")


# --- rows


def _plain(kind: Any) -> Any:
    """The schema with instants as plain longs, so that fastavro does not turn each into a datetime."""
    if isinstance(kind, list):
        return [_plain(k) for k in kind]
    if isinstance(kind, dict):
        return {k: _plain(v) for k, v in kind.items() if k != "logicalType"}
    return kind


_HEADER: Final = current_writer(SCHEMA_NAME[COUPON]).header
_READ_AS: Final = fastavro.parse_schema(_plain(schemas.current(SCHEMA_NAME[COUPON])))
_FIELDS: Final = [f["name"] for f in schemas.current(SCHEMA_NAME[COUPON])["fields"]]
_WRITE_AS: Final = {topic: fastavro.parse_schema(schemas.current(name)) for topic, name in SCHEMA_NAME.items()}


def decode(value: bytes) -> Row:
    """Decode a coupon event. Raises ValueError and others for anything else."""
    if value[:HEADER_BYTES] != _HEADER:
        raise ValueError("no coupon event")
    body = io.BytesIO(value)
    body.seek(HEADER_BYTES)
    row = fastavro.schemaless_reader(body, _READ_AS, None)
    if body.tell() != len(value):
        raise ValueError("bytes too many")
    assert isinstance(row, dict)
    return row


def encode(topic: str, row: Mapping[str, Any]) -> bytes:
    body = io.BytesIO()
    body.write(current_writer(SCHEMA_NAME[topic]).header)
    fastavro.schemaless_writer(body, _WRITE_AS[topic], row)
    return body.getvalue()


def check(row: Mapping[str, Any]) -> None:
    """Check the rules that a typed coupon event can still break. Raises ValueError."""
    kind = row["type"]
    for name in NEEDS[COUPON][kind]:
        if row.get(name) is None:
            raise ValueError(f"{name} is needed")
    for name in _IDS:
        text = row.get(name)
        if text is not None and not 0 < len(text) <= 256:
            raise ValueError(f"{name}: 1 to 256 characters")
    for name in _AMOUNTS:
        amount = row.get(name)
        if amount is not None and amount < 0:
            raise ValueError(f"{name} is below 0")
    if row.get("currency") is not None and row["currency"] not in CURRENCIES:
        raise ValueError("unknown currency")
    if row.get("coupon_type") is not None and row["coupon_type"] not in CHOICES["coupon_type"]:
        raise ValueError("unknown coupon_type")
    if kind == "expired" and row["reason"] not in CHOICES["expired_reason"]:
        raise ValueError("unknown reason")


# --- the fold


@dataclass(slots=True)
class Coupon:
    """A row of the table `coupons`, and the event ids seen."""

    coupon_id: str
    key_hash: int = 0
    state: str = "none"
    resting: str = "none"
    campaign_id: str | None = None
    coupon_type: str | None = None
    face_value_minor: int | None = None
    percent_off_bp: int | None = None
    min_spend_minor: int | None = None
    currency: str | None = None
    valid_from: int | None = None
    valid_until: int | None = None
    owner: str | None = None
    order_id: str | None = None
    discount_minor: int | None = None
    acquired_at: int | None = None
    acquired_event_id: str | None = None
    acquired_by: str | None = None
    used_event_id: str | None = None
    issue_channel: str | None = None
    claim_channel: str | None = None
    reason: str | None = None
    created_at: int | None = None
    issued_at: int | None = None
    claimed_at: int | None = None
    reserved_at: int | None = None
    used_at: int | None = None
    ended_at: int | None = None
    last_event_at: int = 0
    events: int = 0
    violations: int = 0
    last_type: int = 0
    ids_low: int = 0
    ids_high: int = 0
    first_recorded_at: int = 0
    ids: set[str] = field(default_factory=set)
    last: tuple[int, int, str] = (-(2**63), 0, "")


def evolve(coupon: Coupon, row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Fold in one event. Returns its violations, each with the state in which it occurred."""
    kind, before, at = row["type"], coupon.state, row["occurred_at"]
    for name in _FIRST_CARRIED:
        if row[name] is not None and getattr(coupon, name) is None:
            setattr(coupon, name, row[name])
    state, illegal = _CELLS[kind, before]
    codes = [f"{kind}_when_{before}"] if illegal else []
    if kind in GUARDS["no_owner"]["events"] and before in GUARDS["no_owner"]["states"] and coupon.owner is None:
        codes.append("no_owner")
    by_user = kind in GUARDS["wrong_user"]["events"]
    if by_user and coupon.owner is not None and coupon.owner != row["user_id"]:
        codes.append("wrong_user")
    frozen = False
    if GUARDS["wrong_order"]["events"].get(kind) == before and coupon.order_id != row["order_id"]:
        codes.append("wrong_order")
        frozen = kind in GUARDS["wrong_order"]["frozen"]
    if kind in GUARDS["outside_validity"]["events"] and (
        (coupon.valid_from is not None and at < coupon.valid_from)
        or (coupon.valid_until is not None and at > coupon.valid_until)
    ):
        codes.append("outside_validity")
    coupon.events += 1
    coupon.violations += len(codes)
    coupon.last_event_at, coupon.last_type = at, _TYPE_ORDER[kind]
    if not frozen:
        if state == "resting":
            coupon.state, coupon.order_id, coupon.discount_minor = coupon.resting, None, None
        elif state != before:
            _enter(coupon, state, row)
    return [(code, before) for code in codes]


def _enter(coupon: Coupon, state: str, row: Mapping[str, Any]) -> None:
    at, kind = row["occurred_at"], row["type"]
    if state in ("reserved", "used") and coupon.state not in ("reserved", "used"):
        coupon.resting = coupon.state
    coupon.state = state
    if kind == "claimed" or (kind == "issued" and row["user_id"] is not None):
        coupon.owner = row["user_id"]
        if coupon.acquired_at is None:
            coupon.acquired_at, coupon.acquired_event_id, coupon.acquired_by = at, row["event_id"], row["user_id"]
    if state == "created":
        coupon.created_at = coupon.created_at or at
    elif state == "issued" and coupon.issued_at is None:
        coupon.issued_at, coupon.issue_channel = at, row["channel"]
    elif state == "claimed" and coupon.claimed_at is None:
        coupon.claimed_at, coupon.claim_channel = at, row["channel"]
    elif state == "reserved":
        coupon.reserved_at, coupon.order_id = at, row["order_id"]
    elif state == "used":
        coupon.used_at, coupon.order_id, coupon.discount_minor = at, row["order_id"], row["discount_minor"]
        coupon.used_event_id = row["event_id"]
    elif state in ("expired", "revoked"):
        coupon.ended_at, coupon.reason = at, row["reason"]


# --- the consumer


Write = Callable[[str, str, Sequence[tuple[Any, ...]]], None]


class Tables:
    """The ledger's tables in an open DuckDB file, written row by row."""

    def __init__(self, path: Path, writes: str) -> None:
        self.connection = duckdb.connect(path, config={"wal_autocheckpoint": "1GB"})
        if not self.connection.execute("SELECT count(*) FROM coupons").fetchall()[0][0]:
            self.connection.execute("ALTER TABLE coupons ADD PRIMARY KEY (coupon_id)")
        self._write: Write = self._by_arrow if writes == "arrow" else self._one_by_one
        self._types: dict[str, dict[str, str]] = {}

    def columns(self, table: str) -> dict[str, str]:
        """The table's columns and their types, in order."""
        if table not in self._types:
            columns = self.connection.execute(f"SELECT name, type FROM pragma_table_info('{table}')").fetchall()
            self._types[table] = dict(columns)
        return self._types[table]

    def insert(self, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        if rows:
            self._write("INSERT", table, rows)

    def upsert(self, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        if rows:
            self._write("INSERT OR REPLACE", table, rows)

    def _by_arrow(self, verb: str, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        names = self.columns(table)
        arrays = [pa.array(c, _arrow(kind)) for c, kind in zip(zip(*rows, strict=True), names.values(), strict=True)]
        self.connection.register("added", pa.table(arrays, names=list(names)))
        self.connection.execute(f"{verb} INTO {table} SELECT * FROM added")
        self.connection.unregister("added")

    def _one_by_one(self, verb: str, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        places = ", ".join("make_timestamp(?)" if kind == "TIMESTAMP" else "?" for kind in self.columns(table).values())
        self.connection.executemany(f"{verb} INTO {table} VALUES ({places})", rows)


_ARROW: Final = {"BIGINT": pa.int64(), "INTEGER": pa.int32(), "UTINYINT": pa.uint8(), "TIMESTAMP": pa.timestamp("us")}


def _arrow(kind: str) -> pa.DataType:
    return pa.binary() if kind == "BLOB" else _ARROW.get(kind, pa.string())


class RowConsumer:
    """Folds messages, and writes the results at `commit`."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self.coupons: dict[str, Coupon] = {}
        self.accounts: dict[int, list[int]] = {}  # next_offset, read, applied, repeats, conflicts, dead letters
        self._row_of = attrgetter(*tables.columns("coupons"))
        self._clear()

    def _clear(self) -> None:
        self.journal: list[tuple[Any, ...]] = []
        self.violations: list[tuple[Any, ...]] = []
        self.dead_letters: list[tuple[Any, ...]] = []
        self.touched: dict[str, Coupon] = {}
        self.late: set[str] = set()
        self.fresh: set[str] = set()

    def take(self, message: Message) -> None:
        partition, offset, recorded_at, key, value = message
        account = self.accounts.setdefault(partition, [0] * 6)
        account[0] = offset + 1
        account[1] += 1
        try:
            row = decode(value)
            check(row)
        except (ValueError, KeyError, EOFError, IndexError, TypeError) as error:
            account[5] += 1
            self.dead_letters.append((COUPON, partition, offset, recorded_at, key, value, "no event", str(error)))
            return
        coupon_id, event_id = row["coupon_id"], row["event_id"]
        coupon = self.coupons.get(coupon_id)
        if coupon is None:
            coupon = self.coupons[coupon_id] = Coupon(coupon_id, first_recorded_at=recorded_at)
            self.fresh.add(coupon_id)
        if event_id in coupon.ids:
            account[3] += 1
            return
        account[2] += 1
        coupon.ids.add(event_id)
        self.journal.append((0, *row.values(), recorded_at, partition, offset))
        self.touched[coupon_id] = coupon
        place = (row["occurred_at"], _TYPE_ORDER[row["type"]], event_id)
        if place < coupon.last:
            self.late.add(coupon_id)
        elif coupon_id not in self.late:
            coupon.last = place
            self._fold(coupon, row)

    def _fold(self, coupon: Coupon, row: Mapping[str, Any]) -> None:
        for code, state in evolve(coupon, row):
            of = (0, COUPON, coupon.coupon_id, row["event_id"], code, state, row["occurred_at"])
            self.violations.append((*of, "coupon", None, None))

    def commit(self) -> None:
        """Write rows and next offsets in one transaction."""
        connection = self.tables.connection
        connection.begin()
        self.tables.insert("coupon_events", self.journal)
        if self.late:
            self._fold_again()
        # Plain inserts where they suffice: upserts cost DuckDB several times as much.
        self.tables.insert("coupons", [self._row_of(c) for c in self.touched.values() if c.coupon_id in self.fresh])
        self.tables.upsert("coupons", [self._row_of(c) for c in self.touched.values() if c.coupon_id not in self.fresh])
        self.tables.insert("violations", self.violations)
        self.tables.insert("dead_letters", self.dead_letters)
        self.tables.upsert("checkpoints", [(COUPON, partition, *a) for partition, a in self.accounts.items()])
        connection.commit()
        self._clear()

    def _fold_again(self) -> None:
        """Refold the coupons with a late event from their journal."""
        late = list(self.late)
        connection = self.tables.connection
        kinds = self.tables.columns("coupon_events")
        columns = ", ".join(f"epoch_us({n})" if kinds[n] == "TIMESTAMP" else n for n in _FIELDS)
        self.violations = [v for v in self.violations if v[2] not in self.late]
        connection.execute("DELETE FROM violations WHERE key IN (SELECT unnest(?))", [late])
        journal_rows = connection.execute(
            f"SELECT {columns} FROM coupon_events WHERE coupon_id IN (SELECT unnest(?))", [late]
        ).fetchall()
        for coupon_id in late:
            before = self.coupons[coupon_id]
            self.coupons[coupon_id] = self.touched[coupon_id] = Coupon(
                coupon_id, ids=before.ids, first_recorded_at=before.first_recorded_at
            )
        rows = [dict(zip(_FIELDS, values, strict=True)) for values in journal_rows]
        for row in sorted(rows, key=lambda r: (r["occurred_at"], _TYPE_ORDER[r["type"]], r["event_id"])):
            coupon = self.coupons[row["coupon_id"]]
            coupon.last = (row["occurred_at"], _TYPE_ORDER[row["type"]], row["event_id"])
            self._fold(coupon, row)


def consume(messages: Iterable[Message], tables: Tables, batch_size: int) -> int:
    """Fold all messages, one transaction per batch. Returns their number."""
    consumer, taken = RowConsumer(tables), 0
    for message in messages:
        consumer.take(message)
        taken += 1
        if taken % batch_size == 0:
            consumer.commit()
    if taken % batch_size:
        consumer.commit()
    return taken


# --- reading


def kafka_messages(servers: str, topic: str) -> Iterator[Message]:
    """All records in the topic now: only committed ones, checksums verified, large fetches."""
    consumer = KafkaConsumer(
        bootstrap_servers=servers.split(","),
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        check_crcs=True,
        fetch_max_bytes=16 * 1024 * 1024,
        max_partition_fetch_bytes=2 * 1024 * 1024,
        metrics_enabled=False,
    )
    partitions = [KafkaPartition(topic, p) for p in sorted(consumer.partitions_for_topic(topic))]
    consumer.assign(partitions)
    left = sum(consumer.end_offsets(partitions).values())
    consumer.seek_to_beginning(*partitions)
    while left > 0:
        for records in consumer.poll(timeout_ms=500, max_records=10_000).values():
            left -= len(records)
            for r in records:
                yield r.partition, r.offset, r.timestamp * 1000, r.key, r.value
    consumer.close()


def sqlite_messages(path: str, topic: str, fetch: int = 25_000) -> Iterator[Message]:
    """All records of the topic, from the partitions in turn."""
    connection = sqlite3.connect(path)
    numbers = connection.execute("SELECT partition_id, partition FROM partitions WHERE topic = ?", [topic]).fetchall()
    offsets = dict.fromkeys(numbers, 0)
    while offsets:
        for (partition_id, partition), first in list(offsets.items()):
            rows = connection.execute(
                'SELECT "offset", recorded_at, key, value FROM records'
                ' WHERE partition_id = ? AND "offset" >= ? ORDER BY "offset" LIMIT ?',
                (partition_id, first, fetch),
            )
            offset = -1
            for offset, recorded_at, key, value in rows:
                yield partition, offset, recorded_at, key, value
            if offset < 0:
                del offsets[partition_id, partition]
            else:
                offsets[partition_id, partition] = offset + 1
    connection.close()


def messages_of(url: str, prefix: str) -> Iterator[Message]:
    """The coupon events of the log at `url`."""
    topic = prefix + COUPON
    if url.startswith(KAFKA):
        return kafka_messages(url.removeprefix(KAFKA), topic)
    return sqlite_messages(url.removeprefix(SQLITE), topic)


# --- producing


def checked(events: Iterable[Row]) -> Iterator[Record]:
    """The record of each coupon event (a dict with its `topic`), checked and encoded."""
    for event in events:
        check(event)
        yield Record(COUPON, event["coupon_id"].encode(), encode(COUPON, event))


def append_to_sqlite(path: str, records: Iterable[Record], batch_size: int) -> int:
    """Append to an embedded log's file, one durable transaction per batch, record by record. Returns their number."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous = FULL")
    heads = {
        (topic, partition): [next_offset, partition_id]
        for topic, partition, next_offset, partition_id in connection.execute(
            "SELECT topic, partition, next_offset, partition_id FROM partitions"
        )
    }
    partitions = sum(topic == COUPON for topic, _ in heads)
    appended = 0
    for batch in _batches(records, batch_size):
        now = time.time_ns() // 1000
        rows = []
        for topic, key, value in batch:
            head = heads[topic, (murmur2(key) & 0x7FFFFFFF) % partitions]
            rows.append((head[1], head[0], now, key, value))
            head[0] += 1
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?)", rows)
        connection.executemany("UPDATE partitions SET next_offset = ? WHERE partition_id = ?", heads.values())
        connection.execute("COMMIT")
        appended += len(batch)
    connection.close()
    return appended


def append_to_kafka(servers: str, prefix: str, records: Iterable[Record], batch_size: int) -> int:
    """Append with acks=all, idempotent, lz4; flush every batch and check every acknowledgement. Returns their
    number."""
    producer = KafkaProducer(
        bootstrap_servers=servers.split(","),
        acks="all",
        enable_idempotence=True,
        compression_type="lz4",
        batch_size=256 * 1024,
        linger_ms=20,
        metrics_enabled=False,
    )
    appended = 0
    for batch in _batches(records, batch_size):
        sent = [producer.send(prefix + topic, value, key) for topic, key, value in batch]
        producer.flush()
        for future in sent:
            future.get(timeout=0)
        appended += len(batch)
    producer.close()
    return appended


def append(url: str, prefix: str, records: Iterable[Record], batch_size: int) -> int:
    """Append to the log at `url`. Returns the number of records."""
    if url.startswith(KAFKA):
        return append_to_kafka(url.removeprefix(KAFKA), prefix, records, batch_size)
    return append_to_sqlite(url.removeprefix(SQLITE), records, batch_size)


def _batches(records: Iterable[Record], size: int) -> Iterator[list[Record]]:
    rest = iter(records)
    while batch := list(islice(rest, size)):
        yield batch


# --- the process


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--log", required=True)
    parser.add_argument("--topic-prefix", default="")
    parser.add_argument("--database", type=Path, required=True)
    parser.add_argument("--batch-size", type=int, default=100_000)
    parser.add_argument("--writes", choices=("arrow", "executemany"), default="arrow")
    parser.add_argument("--limit", type=int, default=None, help="read so many records at most")
    options = parser.parse_args()
    gc.set_threshold(100_000, 50, 100)  # as in the ledger's consumer
    tables = Tables(options.database, options.writes)
    messages = islice(messages_of(options.log, options.topic_prefix), options.limit)
    started = time.perf_counter()
    records = consume(messages, tables, options.batch_size)
    seconds = time.perf_counter() - started
    tables.connection.close()
    print(json.dumps({"records": records, "seconds": seconds}))


if __name__ == "__main__":
    main()
