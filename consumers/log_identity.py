"""Checks that a log is the one from which the database was filled, before records of the log are folded or records are
appended to it (docs/decisions/0023-log-identity.md).

It is the same log if its topics have the ids that the database has stored, and the last records that were consumed are
still at their offsets. The topics of a log that was restored from its archive have new ids. Then only the records are
compared: if they are the same, the database stores the new ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from coupon_ledger.ledger.errors import LogError, LogMissing, LogNotInitialised, LogReplaced
from coupon_ledger.ledger.log import EventLog, LogReader, TopicPartition
from coupon_ledger.ledger.opening import open_log
from coupon_ledger.ledger.settings import LogSettings
from coupon_ledger.ledger.topics import INPUT_TOPICS
from coupon_ledger.projections.connection import Reading
from coupon_ledger.projections.identity import LastRecord, ReadLog, keep_ids, read_log
from coupon_ledger.projections.store import Store
from coupon_ledger.questions.asking import Source

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_RIGHT_LOG: Final = (
    "name the right log with --log, or restore it from its archive"
    " (`coupon-ledger restore`, a topic of it with `--topic`)"
)
_REMEDY: Final = f"{_RIGHT_LOG}; or fill a new database from this log: `coupon-ledger rebuild --database NEW`"


def open_log_of(settings: LogSettings, database: Reading | ReadLog, path: Path | None = None) -> EventLog:
    """Open the log from which a database is filled. `database`: the database, or what is known of the log that it has
    read; `path`: in the second case, the path of the database.

    Raises what `open_log` raises. Raises `LogReplaced` if the log does not exist, and the database has read records
    from it.
    """
    try:
        return open_log(settings)
    except LogMissing as error:
        known = database if isinstance(database, ReadLog) else read_log(database)
        raise gone(error, path or (None if isinstance(database, ReadLog) else database.path), known) from error


def check(store: Store, log: LogReader) -> None:
    """Check that the log is the one from which this database was filled, and store the ids of the log's topics.

    Raises `LogReplaced` if it is another log. Raises what reading a log raises.
    """
    known = read_log(store)
    refuse(known, log, store.path)
    keep_ids(store, {topic: id_ for topic, id_ in log.identities().items() if topic in INPUT_TOPICS})


def refuse(known: ReadLog, log: LogReader, database: Path) -> None:
    """Raise `LogReplaced` if `log` is not the log from which the database was filled. `known`: what the database has
    stored about that log; `database`: the path of the database, for the error."""
    if why := difference(known, log):
        raise LogReplaced(f"log {log.url}: not the log that database {database} was filled from: {why}; {_REMEDY}")


def of_source(source: Source) -> ReadLog:
    """What a database has stored about the log from which it was filled. `source`: answers the question: the database
    itself, its owner, or a snapshot."""
    return ReadLog.of_rows(row for frame in source.ask("log-identity").frames for row in frame.iter_rows(named=True))


def difference(known: ReadLog, log: LogReader) -> str | None:
    """A text that says how `log` differs from the log that the database has read (`known`). None if it is the same
    log."""
    if not known.next_offsets:
        return None
    missing = [topic for topic in known.topics if not _has(log, topic)]
    if missing:
        read = sum(offset for tp, offset in known.next_offsets.items() if tp.topic == missing[0])
        return f"it has no topic {missing[0]}, which was read up to {read:,} offsets (deleted?)"
    there = log.partitions(known.topics)
    if lost := sorted(known.next_offsets.keys() - set(there)):
        return f"it has no partition {lost[0].partition} of {lost[0].topic}"
    ends = log.end_positions(there)
    for tp, offset in sorted(known.next_offsets.items()):
        if ends[tp] < offset:
            return f"{_place(tp)} ends at offset {ends[tp]}, and was read up to {offset}"
    return _other_records(known, log, there)


def _other_records(known: ReadLog, log: LogReader, there: Sequence[TopicPartition]) -> str | None:
    """Compare the last records that were consumed with those in the log. For topics that have none of these records any
    more, compare the ids. `there`: the partitions of the log. Returns what `difference` returns."""
    ids, earliest = log.identities(), log.earliest_positions(there)
    held = {tp: last for tp, last in known.last.items() if last.offset >= earliest[tp]}
    stored = log.records_at({tp: last.offset for tp, last in held.items()})
    for tp, last in sorted(held.items()):
        record = stored.get(tp)
        if record is None and _same_id(known, ids, tp.topic):
            continue  # compacted away, or a transaction marker; the topic's id proves that the log is the same
        if record is None:
            return f"{_place(tp)} has no record at offset {last.offset}, where one was read"
        if not last.is_(record):
            return f"{_place(tp)} has another record at offset {last.offset}: {_otherwise(last, record.recorded_at)}"
    compared = {tp.topic for tp in held}
    for topic in known.topics:
        other_id = topic in known.ids and topic in ids and known.ids[topic] != ids[topic]
        if other_id and topic not in compared:
            return (
                f"topic {topic} has the id {ids[topic]}, not {known.ids[topic]}, and no longer holds the records that"
                " were read last"
            )
    return None


def _same_id(known: ReadLog, ids: dict[str, str], topic: str) -> bool:
    return topic in ids and known.ids.get(topic) == ids[topic]


def _has(log: LogReader, topic: str) -> bool:
    try:
        log.partitions([topic])
    except LogNotInitialised:
        return False
    return True


def _otherwise(last: LastRecord, recorded_at: int) -> str:
    if last.recorded_at == recorded_at:
        return "of the same time, with another key or value"
    return f"recorded at {_instant(recorded_at)}, the one that was read at {_instant(last.recorded_at)}"


def _instant(us: int) -> str:
    try:
        return (_EPOCH + timedelta(microseconds=us)).isoformat()
    except OverflowError:
        return f"{us} µs since 1970"


def _place(tp: TopicPartition) -> str:
    return f"partition {tp.partition} of {tp.topic}"


def gone(error: LogError, database: Path | None, known: ReadLog) -> LogError:
    """The error to raise if a log or topic is missing. This is a `LogReplaced` if the database has read records from
    the log (`known`), otherwise `error` itself. `database`: the path of the database, for the error."""
    if not known.next_offsets:
        return error
    what = str(error).partition("; ")[0]
    return LogReplaced(f"{what}, but database {database} was filled from it; {_RIGHT_LOG}")
