"""The embedded log: one SQLite file in WAL mode, to which several processes can append at once.

The file has three tables, which every SQLite client can read:
- `partitions`: one row per partition, with its head: the next offset and the last `recorded_at`. So an append does not
  have to search `records`.
- `records`: one row per record, stored in the order of partition and offset. Triggers refuse UPDATE and DELETE.
- `identity`: one row with the log's id, written when the log is created. A log that an older release created gets an id
  with the first append.

Always true:
- The records of one `append` are one transaction with `synchronous=FULL`: either all of them are durable or none.
- Offsets have no gaps, except in a partition that was restored from an archive with gaps (of a Kafka topic).
- A partition's head changes in the same transaction that inserts its records.
- The records of one `append` are recorded a microsecond apart, in the order in which they were given. Read in the order
  of recording, a batch comes back as it went in, whatever partitions its records are in. The next append begins after
  the last record of the log, even if the clock was set back: what was read up to an instant stays complete.
- Every thread has its own connection, so several threads may use one `SqliteLog`.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import uuid
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from heapq import heapify, heappop, heappush
from itertools import repeat
from pathlib import Path
from typing import Final, NamedTuple, cast

from coupon_ledger.ledger.errors import (
    AppendFailed,
    LogClosed,
    LogError,
    LogFull,
    LogMissing,
    LogNotAnswering,
    LogNotEmpty,
    LogNotInitialised,
    LogReplaced,
    LogTruncated,
    LogUnavailable,
    SettingsError,
)
from coupon_ledger.ledger.findings import Finding
from coupon_ledger.ledger.log import (
    FIRST_RECORDED_US,
    LAST_RECORDED_US,
    Chunk,
    OpenTransaction,
    Position,
    Record,
    StoredRecord,
    TopicPartition,
)
from coupon_ledger.ledger.partitioner import partitions_of
from coupon_ledger.ledger.settings import LogSettings
from coupon_ledger.ledger.topics import ALL_TOPICS

SCHEME: Final = "sqlite:///"
LAYOUT: Final = 1
APPLICATION_ID: Final = 0x434C4F47  # "CLOG": tells a log from any other SQLite file
BUSY_S: Final = 30.0
POLL_S: Final = 0.005
LOOK_S: Final = 1.0
"""How often a reader checks that the file at the path is still the one that it has open."""

_LAYOUT_SQL: Final = (
    """CREATE TABLE partitions (
        partition_id INTEGER PRIMARY KEY,
        topic TEXT NOT NULL,
        partition INTEGER NOT NULL,
        next_offset INTEGER NOT NULL DEFAULT 0,
        recorded_at INTEGER NOT NULL DEFAULT 0, -- µs since the epoch, of the last record
        UNIQUE (topic, partition)
    ) STRICT""",
    """CREATE TABLE records (
        partition_id INTEGER NOT NULL REFERENCES partitions,
        "offset" INTEGER NOT NULL,
        recorded_at INTEGER NOT NULL, -- µs since the epoch
        key BLOB NOT NULL,
        value BLOB NOT NULL,
        PRIMARY KEY (partition_id, "offset")
    ) STRICT, WITHOUT ROWID""",
    """CREATE TRIGGER records_never_change BEFORE UPDATE ON records
        BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END""",
    """CREATE TRIGGER records_never_go BEFORE DELETE ON records
        BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END""",
)
_TRIGGERS: Final = {"records_never_change", "records_never_go"}
_IDENTITY: Final = "CREATE TABLE IF NOT EXISTS identity (id TEXT NOT NULL) STRICT"
_HAS_IDENTITY: Final = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'identity'"
_INSERT_PARTITION: Final = "INSERT INTO partitions (topic, partition) VALUES (?, ?)"
_HEADS: Final = "SELECT partition_id, topic, partition, next_offset, recorded_at FROM partitions"
_INSERT_RECORD: Final = "INSERT INTO records VALUES (?, ?, ?, ?, ?)"
_MOVE_HEAD: Final = "UPDATE partitions SET next_offset = ?, recorded_at = ? WHERE partition_id = ?"
_EARLIEST: Final = 'SELECT min("offset") FROM records WHERE partition_id = ?'
_READ: Final = (
    'SELECT "offset", recorded_at, key, value FROM records'
    ' WHERE partition_id = ? AND "offset" >= ? ORDER BY "offset" LIMIT ?'
)
_RECORDED_AT: Final = (
    'SELECT recorded_at FROM records WHERE partition_id = ? AND "offset" <= ? ORDER BY "offset" DESC LIMIT 1'
)
_NEXT_RECORDED: Final = (
    'SELECT recorded_at FROM records WHERE partition_id = ? AND "offset" >= ? ORDER BY "offset" LIMIT 1'
)
_RECORD: Final = 'SELECT recorded_at, key, value FROM records WHERE partition_id = ? AND "offset" = ?'

_NO_ROOM: Final = frozenset({"SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE"})
_BUSY: Final = frozenset({"SQLITE_BUSY", "SQLITE_BUSY_SNAPSHOT", "SQLITE_BUSY_RECOVERY", "SQLITE_LOCKED"})

_ROW_OVERHEAD: Final = 64
"""Upper bound for the bytes that a row of `records` takes besides its key and value."""


class _Head(NamedTuple):
    partition_id: int
    next_offset: int
    recorded_at: int


_position: Final = cast("Callable[[tuple[str, int, int]], Position]", partial(tuple.__new__, Position))
"""Makes a `Position` from a tuple of its three values. The constructor of a named tuple is a Python function, which
took a twentieth of the time of an append."""


class SqliteLog:
    """The `EventLog` in the SQLite file at an address `sqlite:///relative/path` or `sqlite:////absolute/path`."""

    visible_after_s = 0.0

    def __init__(self, settings: LogSettings, *, create: bool = False) -> None:
        self.url = settings.url
        self._settings = settings
        self._path = _path_of(settings.url)
        self._per_thread = threading.local()
        self._connections_lock = threading.Lock()
        self._connections: list[sqlite3.Connection] = []
        self._closed = False
        self._file: tuple[int, int] | None = None
        self._looked_at = time.monotonic()
        self._check_place(create)
        with self._errors("opened"):
            if create:
                self._make_layout()
            self._check_layout()
        # For `_check_file`: after the file was removed or replaced, appends to it would be lost, and readers would wait
        # for ever.
        self._file = self._file_now()

    # --- topics

    def create_topics(self) -> list[str]:
        with self._errors("written"), self._writing() as connection:
            existing = {topic for topic, _ in self._heads(connection)}
            missing = [topic for topic in ALL_TOPICS if topic not in existing]
            connection.executemany(
                _INSERT_PARTITION,
                [
                    (self._settings.topic_prefix + topic, partition)
                    for topic in missing
                    for partition in range(self._settings.partitions)
                ],
            )
        return missing

    def partitions(self, topics: Sequence[str] = ALL_TOPICS) -> list[TopicPartition]:
        with self._errors("read"):
            heads = self._heads(self._connection())
        self._require(topics, heads)
        return sorted(tp for tp in heads if tp.topic in set(topics))

    # --- append

    def append(self, records: Sequence[Record]) -> list[Position]:
        if not records:
            return []
        topics, keys, values = zip(*records, strict=True)
        offsets = [0] * len(records)
        with self._errors("written"), self._size_errors(records), self._writing() as connection:
            heads = self._heads(connection)
            self._require(topics, heads)
            partitions = _partitions(topics, keys, heads)
            rows: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
            for row, tp in enumerate(zip(topics, partitions, strict=True)):
                rows[tp].append(row)
            # After everything that is recorded, in whatever partition, even if the clock was set back.
            now = max(time.time_ns() // 1000, 1 + max(head.recorded_at for head in heads.values()))
            # Partition by partition: neighbours in the file are inserted together.
            for (topic, partition), places in sorted(rows.items()):
                head = heads[TopicPartition(topic, partition)]
                recorded_at = [now + i for i in places]
                _insert(connection, head, recorded_at, [keys[i] for i in places], [values[i] for i in places])
                for offset, row in enumerate(places, head.next_offset):
                    offsets[row] = offset
        return list(map(_position, zip(topics, partitions, offsets, strict=True)))

    def restore(
        self,
        begins: Mapping[TopicPartition, int],
        ends: Mapping[TopicPartition, int],
        chunks: Iterable[Chunk],
        *,
        gapless: bool,
        anew: bool = False,
    ) -> None:
        """Create the partitions and write the records, each with its own offset and time of recording. If this fails,
        nothing is written.

        Raises `LogNotEmpty` if the log has any record, `LogUnavailable` if a partition's first record is not at the
        offset in `begins`, and `LogFull`.
        """
        prefix = self._settings.topic_prefix
        latest, begun = dict.fromkeys(ends, 0), dict.fromkeys(ends, False)
        with self._errors("written"), self._writing() as connection:
            # Checked in the transaction, so that no other process appends between the check and the restore.
            if connection.execute("SELECT max(next_offset) FROM partitions").fetchone()[0]:
                raise LogNotEmpty(f"log {self.url}: holds records already; restore into a log that is not there yet")
            connection.executemany("DELETE FROM partitions WHERE topic = ?", {(prefix + tp.topic,) for tp in ends})
            connection.executemany(_INSERT_PARTITION, [(prefix + tp.topic, tp.partition) for tp in sorted(ends)])
            heads = self._heads(connection)
            for chunk in chunks:
                tp, first = TopicPartition(chunk.topic, chunk.partition), int(chunk.offsets[0])
                if not begun[tp] and first != begins[tp]:
                    raise LogUnavailable(
                        f"log {self.url}: cannot be restored: {tp.topic} partition {tp.partition} begins at offset"
                        f" {begins[tp]}, its first record is at {first} (a Kafka transaction that was taken back), and"
                        " this log would not know that nothing is missing; restore into Kafka, or read the archive"
                    )
                begun[tp] = True
                rows = (chunk.offsets.tolist(), chunk.recorded_at.tolist(), chunk.keys, chunk.values)
                connection.executemany(_INSERT_RECORD, zip(repeat(heads[tp].partition_id), *rows, strict=False))
                latest[tp] = max(latest[tp], int(chunk.recorded_at.max(initial=0)))
            for tp, end in ends.items():
                connection.execute(_MOVE_HEAD, (end, latest[tp], heads[tp].partition_id))

    # --- read

    def read(self, positions: Mapping[TopicPartition, int], max_records: int, timeout_s: float = 0.0) -> list[Chunk]:
        deadline = time.monotonic() + timeout_s
        with self._errors("read"):
            while True:
                chunks = self._read_now(positions, max_records)
                self._check_file(at_once=False)
                left_s = deadline - time.monotonic()
                if chunks or left_s <= 0:
                    return chunks
                time.sleep(min(POLL_S, left_s))

    def earliest_positions(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        with self._errors("read"), self._reading() as connection:
            heads = self._heads(connection)
            self._require([tp.topic for tp in partitions], heads)
            return {tp: _earliest(connection, heads[tp]) for tp in partitions}

    def end_positions(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        with self._errors("read"):
            heads = self._heads(self._connection())
        self._require([tp.topic for tp in partitions], heads)
        return {tp: heads[tp].next_offset for tp in partitions}

    def high_watermarks(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return self.end_positions(partitions)

    def open_transactions(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, list[OpenTransaction]]:
        return {}

    def identities(self) -> dict[str, str]:
        with self._errors("read"):
            connection = self._connection()
            log_id = self._read_id(connection)
            return {tp.topic: log_id for tp in self._heads(connection)} if log_id else {}

    def records_at(self, positions: Mapping[TopicPartition, int]) -> dict[TopicPartition, StoredRecord]:
        with self._errors("read"), self._reading() as connection:
            heads = self._heads(connection)
            rows = {
                tp: connection.execute(_RECORD, (heads[tp].partition_id, offset)).fetchone()
                for tp, offset in positions.items()
                if tp in heads
            }
        return {
            tp: StoredRecord(min(max(at, FIRST_RECORDED_US), LAST_RECORDED_US), key, value)
            for tp, row in rows.items()
            if row is not None
            for at, key, value in [row]
        }

    def next_recorded(self, positions: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        with self._errors("read"), self._reading() as connection:
            heads = self._heads(connection)
            rows = {
                tp: connection.execute(_NEXT_RECORDED, (heads[tp].partition_id, offset)).fetchone()
                for tp, offset in positions.items()
                if tp in heads
            }
        return {tp: min(max(row[0], FIRST_RECORDED_US), LAST_RECORDED_US) for tp, row in rows.items() if row}

    def examine(self) -> list[Finding]:
        """Check the log's file: whether its pages are intact, whether it has the triggers that protect records, and
        whether this user may write to it. Returns the findings."""
        name = f"log file {self._path}"
        with self._errors("read"):
            connection = self._connection()
            [(broken,)] = connection.execute("PRAGMA quick_check(1)").fetchall()
            triggers = {n for (n,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'")}
        findings = []
        if broken != "ok":
            remedy = "restore it from an archive: coupon-ledger restore --from FOLDER --log sqlite:///NEW"
            findings.append(Finding("error", name, f"damaged: {broken}", remedy))
        if missing := _TRIGGERS - triggers:
            remedy = "archive and restore it: coupon-ledger archive --to FOLDER"
            findings.append(
                Finding("error", name, f"lacks {', '.join(sorted(missing))}: records can be changed or removed", remedy)
            )
        if not (os.access(self._path, os.W_OK) and os.access(self._path.parent, os.W_OK)):
            findings.append(Finding("error", name, "this user may not write it", f"chmod u+w {self._path}"))
        return findings or [Finding("ok", name, f"whole, {self._path.stat().st_size:,} bytes")]

    def close(self) -> None:
        with self._connections_lock:
            self._closed = True
            for connection in self._connections:
                connection.close()
            self._connections.clear()

    def _read_now(self, positions: Mapping[TopicPartition, int], max_records: int) -> list[Chunk]:
        # In one read transaction, so that heads and records match.
        with self._reading() as connection:
            heads = self._heads(connection)
            self._require([tp.topic for tp in positions], heads)
            for tp, offset in positions.items():
                self._check_held(connection, tp, heads[tp], offset)
            return [
                _chunk(connection, tp, heads[tp], positions[tp], count)
                for tp, count in _next_in_time(connection, heads, positions, max_records).items()
            ]

    def _check_held(self, connection: sqlite3.Connection, tp: TopicPartition, head: _Head, offset: int) -> None:
        earliest = _earliest(connection, head)
        if not earliest <= offset <= head.next_offset:
            raise LogTruncated(
                f"log {self.url}: partition {tp.partition} of {tp.topic} has no offset {offset}, it holds"
                f" {earliest} to {head.next_offset}; rebuild from the log's start or restore the log"
            )

    # --- the file

    def _check_place(self, create: bool) -> None:
        path = self._path
        if path.is_dir():
            raise LogUnavailable(f"log {self.url}: {path} is a folder; name a file in it")
        if not path.parent.is_dir():
            raise LogUnavailable(f"log {self.url}: the folder {path.parent} is not there; make it first")
        if not create and not path.exists():
            raise LogMissing(f"log {self.url}: no such file; run `coupon-ledger init` to make it")

    def _make_layout(self) -> None:
        connection = self._connection("rwc")
        if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            return
        connection.execute("PRAGMA page_size = 8192")
        _use_wal(connection)
        with self._writing() as connection:
            if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
                return  # another process was first
            for statement in _LAYOUT_SQL:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {LAYOUT}")
            self._give_id(connection)

    def _check_layout(self) -> None:
        connection = self._connection()
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        layout = connection.execute("PRAGMA user_version").fetchone()[0]
        if application != APPLICATION_ID:
            raise LogUnavailable(
                f"log {self.url}: {self._path} is no event log; name another file, or run"
                " `coupon-ledger init` for a new one"
            )
        if layout != LAYOUT:
            raise LogUnavailable(
                f"log {self.url}: written with layout {layout}, this version knows {LAYOUT};"
                " use the version of coupon-ledger that wrote it, or a newer one"
            )

    def _read_id(self, connection: sqlite3.Connection) -> str | None:
        if connection.execute(_HAS_IDENTITY).fetchone() is None:
            return None
        row = connection.execute("SELECT id FROM identity").fetchone()
        return row and str(row[0])

    def _give_id(self, connection: sqlite3.Connection) -> None:
        """Write an id for the log, unless it has one. The caller must have opened a write transaction."""
        if self._read_id(connection) is None:
            connection.execute(_IDENTITY)
            connection.execute("INSERT INTO identity VALUES (?)", (uuid.uuid4().hex,))

    def _file_now(self) -> tuple[int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _connection(self, mode: str = "rw") -> sqlite3.Connection:
        """The connection of the calling thread. It is opened when first needed, with SQLite's open mode `mode`."""
        if self._closed:
            raise LogClosed(f"log {self.url}: closed; open it again")
        connection: sqlite3.Connection | None = getattr(self._per_thread, "connection", None)
        if connection is None:
            connection = sqlite3.connect(
                f"{self._path.as_uri()}?{self._access(mode)}",
                uri=True,
                timeout=BUSY_S,
                isolation_level=None,
                check_same_thread=False,  # only so that `close` can close the connections of other threads
            )
            with self._connections_lock:
                self._connections.append(connection)
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA wal_autocheckpoint = 4000")
            self._per_thread.connection = connection
        return connection

    def _access(self, mode: str) -> str:
        """The URI parameters with which SQLite opens the file: `mode` if this user may write to the file and its
        folder, or the file does not exist yet. Otherwise read-only.

        To read a log in WAL mode, SQLite needs a second file beside it. If that file does not exist and this user
        cannot create it, then no process is writing, and the log is opened as immutable, which needs no second file.
        """
        folder = os.access(self._path.parent, os.W_OK)
        if not self._path.exists() or (folder and os.access(self._path, os.W_OK)):
            return f"mode={mode}"
        beside = self._path.with_name(self._path.name + "-wal").exists()
        return "mode=ro" if folder or beside else "mode=ro&immutable=1"

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        connection = self._connection()
        connection.execute("BEGIN IMMEDIATE")
        yield from _transaction(connection, self._prepared)

    def _prepared(self, connection: sqlite3.Connection) -> None:
        if connection.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID:
            self._give_id(connection)

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        connection = self._connection()
        connection.execute("BEGIN")
        yield from _transaction(connection)

    def _heads(self, connection: sqlite3.Connection) -> dict[TopicPartition, _Head]:
        """The heads of all partitions whose topic has this log's prefix. The topic names in the result are without the
        prefix."""
        prefix = self._settings.topic_prefix
        return {
            TopicPartition(topic.removeprefix(prefix), partition): _Head(partition_id, next_offset, recorded_at)
            for partition_id, topic, partition, next_offset, recorded_at in connection.execute(_HEADS)
            if topic.startswith(prefix)
        }

    def _require(self, topics: Sequence[str], heads: Mapping[TopicPartition, _Head]) -> None:
        missing = sorted(set(topics) - {tp.topic for tp in heads})
        if missing:
            self._check_file(at_once=True)  # if the file was replaced, `init` is not the remedy
            names = ", ".join(self._settings.topic_prefix + topic for topic in missing)
            raise LogNotInitialised(f"log {self.url}: no topic {names}; run `coupon-ledger init`")

    @contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        """Within the block, errors of SQLite become the ledger's own. Before the block, checks that the file was not
        removed or replaced. `doing`: `read`, `written` or `opened`, for messages."""
        try:
            self._check_file(at_once=doing == "written")
            yield
        except sqlite3.Error as error:
            raise self._translated(error, doing) from error

    @contextmanager
    def _size_errors(self, records: Sequence[Record]) -> Iterator[None]:
        """Within the block, SQLite's error for records that are too large becomes `AppendFailed`, which names those
        records. Nothing of the batch is written then."""
        try:
            yield
        except (sqlite3.DataError, OverflowError) as error:
            limit = self._connection().getlimit(sqlite3.SQLITE_LIMIT_LENGTH)
            sizes = {
                i: size for i, r in enumerate(records) if (size := len(r.key) + len(r.value)) > limit - _ROW_OVERHEAD
            }
            if not sizes:
                raise
            too_large = {
                i: f"{size:,} bytes are more than SQLite stores ({limit:,}); split the event"
                for i, size in sizes.items()
            }
            first = min(too_large)
            raise AppendFailed(
                f"log {self.url}: {len(too_large)} of {len(records)} records are too large, the first of key"
                f" {records[first].key.decode(errors='replace')} of {records[first].topic}: {too_large[first]}; nothing"
                " of the batch was written",
                dict.fromkeys(range(len(records)), "nothing of the batch was written") | too_large,
                too_large,
            ) from error

    def _check_file(self, *, at_once: bool) -> None:
        """Raises `LogReplaced` if the file at the path was removed or replaced since the log was opened. Looks at most
        once a second, or always with `at_once`. While the log is being opened, does nothing."""
        now = time.monotonic()
        opened = self._file
        if opened is None or not (at_once or now - self._looked_at > LOOK_S):
            return
        self._looked_at = now
        if (current := self._file_now()) != opened:
            raise LogReplaced(
                f"log {self.url}: {self._path} was {'removed' if current is None else 'replaced'} while it was open;"
                " put the file and its -wal back, or restore it from an archive (`coupon-ledger restore`), and start"
                " again"
            )

    def _translated(self, error: sqlite3.Error, doing: str) -> LogError:
        name = getattr(error, "sqlite_errorname", "")
        if name in _NO_ROOM:
            return LogFull(
                f"log {self.url}: no room to append ({error}), nothing of the batch was written;"
                f" free space on the disk of {self._path.parent}, then try again"
            )
        if name in _BUSY:
            return LogNotAnswering(f"log {self.url}: another process has held it for {BUSY_S:.0f} s; end that process")
        if name.startswith("SQLITE_READONLY"):
            return LogUnavailable(
                f"log {self.url}: this user may only read it; let them write {self._path} and its folder, or run this"
                " as the user who owns them"
            )
        return LogUnavailable(f"log {self.url}: cannot be {doing} ({error}); check the file and its permissions")


def _path_of(url: str) -> Path:
    path = url.removeprefix(SCHEME)
    if path in (url, ""):
        raise SettingsError(f"log address {url!r}: no path; use sqlite:///relative or sqlite:////absolute")
    # Absolute from here on: the process may change its working folder.
    return Path(path).absolute()


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch the file to WAL mode. Unlike other statements, this one does not wait while another process has locked the
    file. So it is repeated here until it succeeds, for `BUSY_S` at most."""
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname not in _BUSY or time.monotonic() > deadline:
                raise
            time.sleep(POLL_S)


def _transaction(
    connection: sqlite3.Connection, prepare: Callable[[sqlite3.Connection], None] = lambda _: None
) -> Iterator[sqlite3.Connection]:
    try:
        prepare(connection)
        yield connection
        connection.execute("COMMIT")
    finally:
        # After a full disk SQLite may have rolled back already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _partitions(topics: Sequence[str], keys: Sequence[bytes], heads: Mapping[TopicPartition, _Head]) -> list[int]:
    """The number of each record's partition, in the order of the records."""
    counts = Counter(tp.topic for tp in heads)
    needed = {counts[topic] for topic in set(topics)}
    numbers = {count: partitions_of(keys, count) for count in needed}
    if len(needed) == 1:  # all topics have as many partitions, as `init` makes them
        return numbers[needed.pop()]
    return [numbers[counts[topic]][row] for row, topic in enumerate(topics)]


def _insert(
    connection: sqlite3.Connection,
    head: _Head,
    recorded_at: Sequence[int],
    keys: Sequence[bytes],
    values: Sequence[bytes],
) -> None:
    """Append records to the partition whose head is `head`, and change the head. `recorded_at`: per record, in µs since
    the epoch, never decreasing."""
    end = head.next_offset + len(keys)
    offsets = range(head.next_offset, end)
    # strict=False: `repeat` never ends.
    rows = zip(repeat(head.partition_id), offsets, recorded_at, keys, values, strict=False)
    connection.executemany(_INSERT_RECORD, rows)
    connection.execute(_MOVE_HEAD, (end, recorded_at[-1], head.partition_id))


def _earliest(connection: sqlite3.Connection, head: _Head) -> int:
    earliest: int | None = connection.execute(_EARLIEST, (head.partition_id,)).fetchone()[0]
    return head.next_offset if earliest is None else earliest


def _next_in_time(
    connection: sqlite3.Connection,
    heads: Mapping[TopicPartition, _Head],
    positions: Mapping[TopicPartition, int],
    limit: int,
) -> dict[TopicPartition, int]:
    """How many records to read from each partition, so that together they are the earliest recorded ones, and at most
    `limit`.

    Records are taken in blocks. Among the next blocks of all partitions, the one whose last record is the earliest is
    taken first. So only the last record of each block is looked up. At the end, each partition also gets those records
    of its next block that were recorded no later than the last block taken. Records with the same `recorded_at` are in
    any order.
    """
    left = {tp: n for tp, offset in positions.items() if (n := heads[tp].next_offset - offset) > 0}
    if sum(left.values()) <= limit or len(left) == 1:
        return {tp: min(n, limit) for tp, n in left.items()}
    block = max(1, limit // (4 * len(left)))
    spare = block * len(left) if block > 1 else 0
    counts = dict.fromkeys(left, 0)

    def recorded_at(tp: TopicPartition, count: int) -> int:
        """The `recorded_at` of the last one of the partition's next `count` records."""
        row = (heads[tp].partition_id, positions[tp] + count - 1)
        return int(connection.execute(_RECORDED_AT, row).fetchone()[0])

    def next_block(tp: TopicPartition) -> tuple[int, int, TopicPartition]:
        count = min(counts[tp] + block, left[tp])
        return recorded_at(tp, count), count, tp

    blocks = [next_block(tp) for tp in left]
    heapify(blocks)
    total, horizon = 0, 0
    while blocks and total + block + spare <= max(limit, block + spare):
        horizon, count, tp = heappop(blocks)
        total += count - counts[tp]
        counts[tp] = count
        if count < left[tp]:
            heappush(blocks, next_block(tp))
    if spare:
        for _, count, tp in blocks:
            later = range(counts[tp] + 1, count + 1)
            counts[tp] += bisect_right(later, horizon, key=partial(recorded_at, tp))
    return {tp: count for tp, count in counts.items() if count}


def _chunk(connection: sqlite3.Connection, tp: TopicPartition, head: _Head, offset: int, count: int) -> Chunk:
    import numpy as np

    rows = connection.execute(_READ, (head.partition_id, offset, count)).fetchall()
    offsets, recorded_at, keys, values = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Chunk(
        topic=tp.topic,
        partition=tp.partition,
        offsets=np.array(offsets, np.int64),
        recorded_at=np.clip(np.array(recorded_at, np.int64), FIRST_RECORDED_US, LAST_RECORDED_US),
        keys=list(keys),
        values=list(values),
        # If there were fewer rows than requested, a restored partition has no more records up to its head.
        next_offset=offsets[-1] + 1 if len(rows) == count else head.next_offset,
    )
